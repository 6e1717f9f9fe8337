"""A file's content in pieces, as it is stored: holes are not read, and a file that changes meanwhile is refused.

A piece that lies in a hole of a sparse file is one shared object of zeros, whose hash is computed once; on the way back
it becomes a hole again. So a disk image of a terabyte with a megabyte in it costs that megabyte.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from ..digest import Digest, digest
from ..errors import ConflictError
from .value import WHOLE_MAX_BYTES


@functools.cache
def zero_piece() -> bytes:
    """Return a whole piece of zeros: always the same object, of which the system sets no memory aside."""
    return bytes(WHOLE_MAX_BYTES)


@functools.cache
def zero_digest() -> Digest:
    """Return the hash of `zero_piece`."""
    return digest(zero_piece())


def piece_digest(piece: bytes) -> Digest:
    """Return the hash of a piece."""
    return zero_digest() if piece is zero_piece() else digest(piece)


def read_pieces(source: int | BinaryIO) -> Iterator[bytes]:
    """Yield the rest of a file in parts of one piece each, but for the last.

    Parameters
    ----------
    source
        A descriptor, or a binary file.
    """
    status = os.fstat(source) if isinstance(source, int) else None
    # A read sets aside what it asks for: ask for no 16 MiB where a small file is.
    ask = min(WHOLE_MAX_BYTES, status.st_size + 1) if status is not None else WHOLE_MAX_BYTES
    ask = max(ask, 1 << 16)
    sparse = status is not None and status.st_blocks * 512 < status.st_size
    while True:
        if sparse and isinstance(source, int) and status is not None and _skip_hole(source, status.st_size):
            yield zero_piece()
            continue
        parts: list[bytes] = []
        missing = WHOLE_MAX_BYTES
        while missing:
            part = os.read(source, min(ask, missing)) if isinstance(source, int) else source.read(missing)
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        if parts:
            yield parts[0] if len(parts) == 1 else b"".join(parts)
        if missing:
            return


def _skip_hole(fd: int, size: int) -> bool:
    """Whether the next piece lies in a hole; then it is passed over."""
    here = os.lseek(fd, 0, os.SEEK_CUR)
    hole = is_hole(fd, here, size)
    os.lseek(fd, here + WHOLE_MAX_BYTES if hole else here, os.SEEK_SET)
    return hole


def is_hole(fd: int, here: int, size: int) -> bool:
    """Whether the whole piece that begins at `here` lies in a hole of a file of `size` bytes. Moves the position."""
    if here + WHOLE_MAX_BYTES > size:
        return False
    try:
        data = os.lseek(fd, here, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:  # not: no data up to the end
            raise
        data = size
    return data >= here + WHOLE_MAX_BYTES


def write_piece(file: BinaryIO, piece: bytes) -> None:
    """Write a piece at a new file's position; zeros leave a hole. Afterwards `end_file` sets the length."""
    if piece is zero_piece():
        file.seek(len(piece), os.SEEK_CUR)
    else:
        file.write(piece)


def end_file(file: BinaryIO, size: int) -> None:
    """Give a file that `write_piece` wrote its length, though it may end in a hole."""
    file.flush()
    os.ftruncate(file.fileno(), size)


@contextmanager
def unchanged(fd: int, name: str) -> Iterator[None]:
    """Refuse a file that somebody writes to while the block reads it.

    Raises
    ------
    ConflictError
        Its size or a time of its changed.
    """
    before = _version(fd)
    yield
    if _version(fd) != before:
        raise ConflictError(
            f"{name} changed while it was read: what was read may be neither its old nor its new content",
            hint="put it when nobody writes to it, or put a copy",
        )


def _version(fd: int) -> tuple[int, int, int]:
    status = os.fstat(fd)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
