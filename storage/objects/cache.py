"""The file cache: whole, verified files by content, one cache per host, shared by processes.

An entry is ``<2 hex>/<62 hex>``, mode 0444, with a fixed modification time. Whoever writes to it (through a hard link,
say) changes that time or the size: such an entry is hashed again before it is used, and dropped if it is another.
Entries appear whole: they are made beside their place and linked there.
"""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from ..digest import Digest, digest
from ..errors import BackendError, CorruptError, ErrorCode
from .local_value import value_of_file
from .value import External, Inline, Pieces, Value, Whole, encode_value

VERIFIED_MTIME_NS = 1_000_000_000_000_000_000
"""Modification time of every entry as it was verified: 2001-09-09."""

_MODE = 0o444
_TEMPORARY = ".tmp-"
_TEMPORARY_KEPT_S = 3600
_TOUCH_AFTER_S = 60


class ContentReader(Protocol):
    """Where the cache fetches what it lacks."""

    def copy_to(self, value: Value, path: Path) -> None:
        """Write the verified content to the new file `path`."""
        ...


def content_name(value: Value) -> Digest:
    """Return the name that a value's content has in the cache."""
    match value:
        case Whole():
            return Digest(value.hash)
        case Pieces():
            return Digest(value.manifest)
        case Inline():
            return digest(value.data)
        case External():
            return digest(encode_value(value))


class FileCache:
    """Whole files by content in a local folder. Safe for use by many threads and processes.

    Parameters
    ----------
    folder
        Made when the first entry is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path_of(self, value: Value) -> Path:
        """Return where the entry of `value` is or would be."""
        name = content_name(value).hex()
        return self.folder / name[:2] / name[2:]

    def get(self, value: Value, objects: ContentReader) -> Path:
        """Return a file that holds exactly the content of `value`, fetching it if need be.

        The file is read-only and must not be written to; it may be hard-linked. It stays until `drop` or `trim`.

        Raises
        ------
        NotFoundError, CorruptError
            The store does not hold the content.
        BackendError
            The cache folder cannot be written, or its disk is full.
        """
        path = self.path_of(value)
        if self._is_good(path, value):
            return path
        temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            objects.copy_to(value, temporary)
            try:
                os.chmod(temporary, _MODE)
                os.utime(temporary, ns=(time.time_ns(), VERIFIED_MTIME_NS))
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    pass  # another process was faster with the same bytes
            finally:
                os.unlink(temporary)
        except BackendError:
            raise
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise BackendError(
                f"cannot cache a file in {self.folder}: {error.strerror or error}",
                code=ErrorCode.DISK_FULL if full else ErrorCode.BACKEND,
                hint="make room there, or set $DMLPIPE_CACHE_DIR",
            ) from error
        return path

    def is_unchanged(self, value: Value) -> bool:
        """Whether the entry of `value` is there and nobody wrote to it since it was verified."""
        try:
            status = os.stat(self.path_of(value))
        except FileNotFoundError:
            return False
        return _looks_verified(status, value)

    def drop(self, value: Value) -> None:
        """Remove the entry of `value`, if there is one."""
        self.path_of(value).unlink(missing_ok=True)

    def trim(self, max_bytes: int, *, min_age_s: float = 600.0) -> int:
        """Remove entries that were not used for longest until at most `max_bytes` are left; return bytes freed.

        Parameters
        ----------
        max_bytes
            What may stay.
        min_age_s
            Entries that were used more recently stay in any case.
        """
        now = time.time()
        entries = []
        for path, status in self._scan():
            if path.name.startswith(_TEMPORARY):
                if now - status.st_mtime > _TEMPORARY_KEPT_S:
                    path.unlink(missing_ok=True)
                continue
            entries.append((status.st_atime, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        freed = 0
        for used, size, path in sorted(entries):
            if total - freed <= max_bytes:
                break
            if now - used >= min_age_s:
                path.unlink(missing_ok=True)
                freed += size
        return freed

    def _scan(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.glob("??/*"):
            try:
                yield path, path.stat()
            except FileNotFoundError:
                continue

    def _is_good(self, path: Path, value: Value) -> bool:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return False
        if _looks_verified(status, value):
            now = time.time()
            if now - status.st_atime > _TOUCH_AFTER_S:
                _set_times(path, now)
            return True
        try:
            good = not isinstance(value, External) and value_of_file(path) == value
            if good:
                os.chmod(path, _MODE)
                _set_times(path, time.time())
        except FileNotFoundError:
            return False
        except OSError as error:
            raise CorruptError(f"the cached file {path} cannot be read: {error.strerror}") from error
        if not good:
            path.unlink(missing_ok=True)
        return good


def _looks_verified(status: os.stat_result, value: Value) -> bool:
    return status.st_mtime_ns == VERIFIED_MTIME_NS and status.st_size == value.size


def _set_times(path: Path, used: float) -> None:
    try:
        os.utime(path, ns=(int(used * 1e9), VERIFIED_MTIME_NS))
    except FileNotFoundError:
        pass  # trimmed meanwhile; the caller's copy_to or link says so
