"""A file of a session while it is being written."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast

_SPOOL_BYTES = 16 << 20


class Draft(io.BufferedIOBase):
    """A file that is being written; published as a whole when it is closed, or by `commit` in a transaction.

    Parameters
    ----------
    publish
        Takes the content.
    autocommit
        Publish when closed.
    seekable
        Whether the position may be moved.
    """

    def __init__(self, publish: Callable[[BinaryIO], None], *, autocommit: bool, seekable: bool) -> None:
        super().__init__()
        self._publish = publish
        self._autocommit = autocommit
        self._seekable = seekable
        self._content = SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115  (closed with this file)

    def writable(self) -> bool:
        """Yes, it is."""
        return True

    def seekable(self) -> bool:
        """Whether `seek` works: not in what is appended."""
        return self._seekable

    def write(self, data: Any, /) -> int:
        """Take bytes."""
        self._open()
        with memoryview(data) as view:
            self._content.write(view.cast("B") if view.nbytes else b"")
            return view.nbytes

    def tell(self) -> int:
        """Return the position."""
        self._open()
        return self._content.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position."""
        self._open()
        if not self._seekable:
            raise io.UnsupportedOperation("what is appended cannot be sought in")
        return self._content.seek(offset, whence)

    def truncate(self, size: int | None = None, /) -> int:
        """Cut what was written."""
        self._open()
        self._content.truncate(size)
        return self._content.tell() if size is None else size

    def close(self) -> None:
        """End it; publish unless a transaction does."""
        if self.closed:
            return
        super().close()
        if self._autocommit:
            self.commit()

    def commit(self) -> None:
        """Publish what was written."""
        try:
            self._content.seek(0)
            self._publish(cast(BinaryIO, self._content))
        finally:
            self._content.close()

    def discard(self) -> None:
        """Drop what was written."""
        self._content.close()

    def _open(self) -> None:
        if self.closed:
            raise ValueError("the file is closed")
