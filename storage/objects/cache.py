"""The file cache: whole, verified files by content, one cache per host, shared by processes.

An entry is ``<2 hex>/<62 hex>``, mode 0444, with a fixed modification time. Whoever writes to it (through a hard link,
say) changes that time or the size: such an entry is hashed again before it is used, and dropped if it is another.
Entries appear whole: they are filled beside their place, by one process at a time, part by part, and moved there.

The cache keeps to a limit: what was not used for longest goes first. What a datum has linked stays, since its bytes
would not come free. All of it may be killed at any time, and used by any number of processes.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from ..digest import Data, Digest, digest
from ..errors import BackendError, CorruptError, DmlpipeError, ErrorCode
from ..leftovers import TEMPORARY
from .cache_size import cache_limit_bytes
from .fill_lock import PART_PREFIX, STUCK_S, OpenPart, hold_part, is_held
from .filling import Filling, FromStore, Part, PartReader, PartSource
from .local_value import value_of_file
from .value import External, Inline, Pieces, Value, Whole, encode_value

VERIFIED_MTIME_NS = 1_000_000_000_000_000_000
"""Modification time of every entry as it was verified: 2001-09-09."""

MIN_AGE_S = 5.0
"""Entries that were used more recently stay, whatever the limit."""
_MODE = 0o444
_TEMPORARY_KEPT_S = 3600
_TOUCH_AFTER_S = 60
_TRIM_EACH_BYTES = 256 << 20
_TRIM_SHARE = 16
"""The limit is looked at after a process added a 16th of it, or 256 MiB."""
_TRIM_AFTER_S = 600
_STAMP = "trimmed"
"""When the limit was looked at last: for processes that add a little and end."""
_TRIES = 4
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_PAUSES_S = (0.0, 0.05, 0.2, 0.5, 1.0, 2.0)
"""On a full disk: room may come as others lay out their files, or give up."""
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES})


class ContentReader(PartReader, Protocol):
    """Where the cache fetches what it lacks. `storage.objects.content.Content` is one."""

    def parts(self, value: Whole | Pieces) -> Sequence[Part]:
        """Return what the file is verified by."""
        ...

    def copy_to(self, value: Value, path: Path) -> None:
        """Write the verified content to the new file `path`."""
        ...


class Entry(NamedTuple):
    """A file of the cache."""

    name: Digest
    size: int


class _Wanted(NamedTuple):
    """An entry to be made."""

    path: Path
    value: Value
    fill: Callable[[OpenPart], None]
    objects: ContentReader | None
    """What a touched entry's parts are compared by; None: its value is computed."""
    pauses_s: Sequence[float]
    """Between tries on a full disk."""


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
    max_bytes
        What it may hold; None: see `cache_limit_bytes`.
    stuck_s
        How long another process that fills the same file may write nothing before it is passed over.
    """

    def __init__(self, folder: Path, *, max_bytes: int | None = None, stuck_s: float = STUCK_S) -> None:
        self.folder = folder
        self.source: PartSource = FromStore()
        """Where parts of files come from. A worker puts its peers here."""
        self._max_bytes = max_bytes
        self._stuck_s = stuck_s
        self._lock = threading.Lock()
        self._added = 0
        self._each = 0
        self._looked = False
        self._filling: dict[Path, threading.Lock] = {}
        """Held by this process's thread that fills an entry: its others need not poll for the file's lock."""

    def path_of(self, value: Value) -> Path:
        """Return where the entry of `value` is or would be."""
        return self.path_named(content_name(value))

    def path_named(self, name: Digest) -> Path:
        """Return where the entry `name` is or would be."""
        text = name.hex()
        return self.folder / text[:2] / text[2:]

    def get(self, value: Value, objects: ContentReader, *, ahead: bool = False) -> Path:
        """Return a file that holds exactly the content of `value`, fetching it if need be.

        The file is read-only and must not be written to. It may be gone at any time (`trim`): see `lay`.

        Parameters
        ----------
        ahead
            Nobody waits for it: on a full disk, give up at once and leave the room to those for whom somebody does.

        Raises
        ------
        NotFoundError, CorruptError
            The store does not hold the content.
        BackendError
            The cache folder cannot be written, or its disk is full.
        """
        pauses_s = _PAUSES_S[:1] if ahead else _PAUSES_S
        return self._get(value, lambda part: self._fetch(value, part, objects), objects, pauses_s)

    def put(self, value: Whole, data: Data) -> None:
        """Keep content that was read, and verified, already."""
        self._get(value, lambda part: _write(part, data), None)

    def lay(self, value: Value, objects: ContentReader, target: str) -> bool:
        """Let the content of `value` appear as the new file `target`: a hard link of the entry, else a copy.

        Returns
        -------
        bool
            Whether it is a link, which must not be written to.

        Raises
        ------
        OSError
            Also where `get` raises.
        """
        for _ in range(_TRIES):
            path = self.get(value, objects)
            try:
                linked = _link_or_copy(path, target)
            except FileNotFoundError:
                if not os.path.isdir(os.path.dirname(target)):
                    raise
                continue  # another process trimmed it
            # Between the look at the entry and now somebody may have written to it through another link.
            if not linked or _looks_verified(os.lstat(target), value):
                return linked
            os.unlink(target)
        raise BackendError(
            f"the cache in {self.folder} loses files as fast as they are fetched: its limit is too small",
            hint="raise $DMLPIPE_CACHE_SIZE",
        )

    def is_unchanged(self, value: Value) -> bool:
        """Whether the entry of `value` is there and nobody wrote to it since it was verified."""
        try:
            status = os.stat(self.path_of(value))
        except FileNotFoundError:
            return False
        return _looks_verified(status, value)

    def read_named(self, name: Digest, start: int, stop: int) -> bytes | None:
        """Return bytes [start, stop) of the entry `name`; None if it is not there, or not as it was verified."""
        try:
            fd = os.open(self.path_named(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(fd)
            if status.st_mtime_ns != VERIFIED_MTIME_NS or stop > status.st_size:
                return None
            # Read, not mapped: user code that shortens a linked file must not end whoever serves it.
            data = os.pread(fd, stop - start, start)
        finally:
            os.close(fd)
        return data if len(data) == stop - start else None

    def drop(self, value: Value) -> None:
        """Remove the entry of `value`, if there is one."""
        self.path_of(value).unlink(missing_ok=True)

    def entries(self, *, min_bytes: int = 0, limit: int = 1000) -> list[Entry]:
        """Return verified entries of at least `min_bytes`, the last used first, at most `limit`."""
        found = [
            (status.st_atime, Entry(Digest(bytes.fromhex(path.parent.name + path.name)), status.st_size))
            for path, status in self._scan()
            if not path.name.startswith(".") and status.st_mtime_ns == VERIFIED_MTIME_NS and status.st_size >= min_bytes
        ]
        return [entry for _, entry in sorted(found, key=lambda item: -item[0])[:limit]]

    def trim(
        self,
        max_bytes: int | None = None,
        *,
        min_age_s: float = MIN_AGE_S,
        keep: Collection[Path] = (),
        enough: int | None = None,
    ) -> int:
        """Remove entries that were not used for longest until at most `max_bytes` are left; return bytes freed.

        Parameters
        ----------
        max_bytes
            What may stay; None: the cache's own limit.
        min_age_s
            Entries that were used more recently stay in any case.
        keep
            Entries that stay in any case.
        enough
            Stop when so many bytes are freed.
        """
        now = time.time()
        entries = []
        total = 0
        for path, status in self._scan():
            if path.name.startswith(TEMPORARY) or path.name.startswith(PART_PREFIX):
                total += 512 * status.st_blocks
                if now - status.st_mtime > _TEMPORARY_KEPT_S and not is_held(path):
                    path.unlink(missing_ok=True)
                continue
            total += status.st_size
            if status.st_nlink == 1 and path not in keep:
                entries.append((status.st_atime, status.st_size, path))
        limit = self._limit(total) if max_bytes is None else max_bytes
        freed = 0
        for used, size, path in sorted(entries):
            if total - freed <= limit or (enough is not None and freed >= enough):
                break
            if now - used >= min_age_s:
                path.unlink(missing_ok=True)
                freed += size
        return freed

    # --- inside

    def _limit(self, used: int) -> int:
        return cache_limit_bytes(self.folder, used) if self._max_bytes is None else self._max_bytes

    def _get(
        self,
        value: Value,
        fill: Callable[[OpenPart], None],
        objects: ContentReader | None,
        pauses_s: Sequence[float] = _PAUSES_S,
    ) -> Path:
        path = self.path_of(value)
        if self._is_fresh(path, value):
            return path
        try:
            self._make(_Wanted(path, value, fill, objects, pauses_s))
        except DmlpipeError:
            raise
        except OSError as error:
            raise BackendError(
                f"cannot cache a file of {value.size:,} bytes in {self.folder}: {error.strerror or error}",
                code=ErrorCode.DISK_FULL if error.errno in _FULL else ErrorCode.BACKEND,
                hint="make room there, or set $DMLPIPE_CACHE_DIR",
            ) from error
        self._count(value.size, path)
        return path

    def _make(self, wanted: _Wanted) -> None:
        path = wanted.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            inside = self._filling.setdefault(path, threading.Lock())
        alone = inside.acquire(timeout=self._stuck_s)
        try:
            if not self._is_fresh(path, wanted.value):
                self._make_alone(wanted)
        finally:
            if alone:
                with self._lock:
                    self._filling.pop(path, None)
                inside.release()

    def _make_alone(self, wanted: _Wanted) -> None:
        with hold_part(wanted.path, stuck_s=self._stuck_s) as part:
            try:
                if self._is_good(wanted.path, wanted.value, wanted.objects):
                    part.path.unlink(missing_ok=True)
                    return
                self._fill(part, wanted)
                os.fchmod(part.fd, _MODE)
                os.utime(part.fd, ns=(time.time_ns(), VERIFIED_MTIME_NS))
                os.rename(part.path, wanted.path)
            except BaseException as error:
                if not (isinstance(error, BackendError) and error.retryable):
                    part.path.unlink(missing_ok=True)
                raise

    def _fill(self, part: OpenPart, wanted: _Wanted) -> None:
        """Fill a file, making room where the disk is full: what is wanted now counts for more than what was."""
        for pause_s in (*wanted.pauses_s, None):
            try:
                return wanted.fill(part)
            except OSError as error:
                if error.errno not in _FULL or isinstance(error, DmlpipeError) or pause_s is None:
                    raise
            if not self.trim(0, min_age_s=0.0, enough=2 * wanted.value.size):
                time.sleep(pause_s)  # another may be at it, or lay out its last file

    def _fetch(self, value: Value, part: OpenPart, objects: ContentReader) -> None:
        match value:
            case Whole() | Pieces():
                filling = Filling(content_name(value), objects.parts(value), part.path, part.fd)
                self.source.fill(filling, objects)
                if filling.missing():
                    raise CorruptError(f"{len(filling.missing())} parts of a file did not come as they should be")
            case Inline(data):
                _write(part, data)
            case External():
                beside = part.path.with_name(f"{TEMPORARY}{part.path.name}")
                import shutil

                beside.unlink(missing_ok=True)
                objects.copy_to(value, beside)
                try:
                    os.ftruncate(part.fd, 0)
                    with open(beside, "rb") as source, open(part.fd, "wb", closefd=False) as target:
                        shutil.copyfileobj(source, target, 1 << 20)
                finally:
                    beside.unlink(missing_ok=True)

    def _count(self, size: int, made: Path) -> None:
        with self._lock:
            self._added += size
            if not self._looked:
                self._looked = True
                self._each = min(_TRIM_EACH_BYTES, self._limit(0) // _TRIM_SHARE)
                due = time.time() - _time_of(self.folder / _STAMP) > _TRIM_AFTER_S
            else:
                due = self._added >= self._each
            if not due:
                return
            self._added = 0
        self.trim(keep=(made,))
        (self.folder / _STAMP).touch()

    def _scan(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.glob("??/*"):
            try:
                yield path, path.stat()
            except FileNotFoundError:
                continue

    def _is_fresh(self, path: Path, value: Value) -> bool:
        """Whether the entry is there as it was verified. One stat."""
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return False
        if not _looks_verified(status, value):
            return False
        now = time.time()
        if now - status.st_atime > _TOUCH_AFTER_S:
            _set_times(path, now)
        return True

    def _is_good(self, path: Path, value: Value, objects: ContentReader | None) -> bool:
        """Whether the entry is what it should be; hashes it if somebody touched it, removes it if it is another."""
        if self._is_fresh(path, value):
            return True
        try:
            good = _holds(path, value, objects)
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


def _holds(path: Path, value: Value, objects: ContentReader | None) -> bool:
    """Whether a file is what it should be. Pieces may have been cut anywhere: their list says where."""
    if isinstance(value, External) or (isinstance(value, Pieces) and objects is None):
        return False
    if not isinstance(value, Pieces) or objects is None:
        return value_of_file(path) == value
    with open(path, "rb", buffering=0) as file:
        return os.fstat(file.fileno()).st_size == value.size and all(
            digest(os.pread(file.fileno(), part.size, part.offset)) == part.hash for part in objects.parts(value)
        )


def _looks_verified(status: os.stat_result, value: Value) -> bool:
    return status.st_mtime_ns == VERIFIED_MTIME_NS and status.st_size == value.size


def _time_of(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _set_times(path: Path, used: float) -> None:
    try:
        os.utime(path, ns=(int(used * 1e9), VERIFIED_MTIME_NS))
    except FileNotFoundError:
        pass  # trimmed meanwhile; whoever wants it fetches it again


def _write(part: OpenPart, data: Data) -> None:
    os.ftruncate(part.fd, 0)
    view, offset = memoryview(data), 0
    while view:
        written = os.pwrite(part.fd, view, offset)
        view, offset = view[written:], offset + written


def _link_or_copy(path: Path, target: str) -> bool:
    try:
        os.link(path, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        import shutil

        shutil.copyfile(path, target)
        os.chmod(target, _MODE)
        return False
    return True
