"""Objects as files below a folder.

An object is written to ``.tmp-…`` beside its place, a large one to one in the root, and then linked to its place:
`link(2)` is atomic and refuses an existing name, which no form of `open` and `rename` gives. Without hard links (exFAT,
some FUSE mounts) `renameat2(RENAME_NOREPLACE)` takes its place; without both the folder is refused.

Durability: with fsync mode ``commit`` (the default) only what is written ``durable`` or named in `sync` is forced to
disk; ``always`` forces each object as it is written, ``never`` leaves it to the kernel (tests, scratch stores).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

from ..digest import Data
from ..errors import BackendError, NotFoundError
from ..leftovers import TEMPORARY
from .base import Backend, Properties, backend_error, check_key, check_range
from .descriptors import Descriptors
from .draft import Clone, Draft
from .linking import link_new
from .reflink import clone_range
from .temporaries import Temporaries

FSYNC_MODES = ("commit", "always", "never")
FSYNC_VARIABLE = "DMLPIPE_FSYNC"
"""Environment variable with the mode where none is given."""

_PARALLEL_SYNC_FROM = 8


class LocalBackend(Backend):
    """Objects as files below `root`.

    Parameters
    ----------
    root
        Folder; made with the first object.
    fsync
        One of `FSYNC_MODES`; None: ``$DMLPIPE_FSYNC``, else ``commit``.
    """

    def __init__(self, root: Path | str, *, fsync: str | None = None) -> None:
        # absolute, not resolved: a store reached through a link stays where the user put it.
        self._root = Path(os.path.abspath(root))
        self._base = str(self._root)
        self._fsync = fsync or os.environ.get(FSYNC_VARIABLE) or "commit"
        if self._fsync not in FSYNC_MODES:
            raise BackendError(f"fsync mode {self._fsync!r}: expected one of {', '.join(FSYNC_MODES)}")
        self._temporaries = Temporaries(self._base)
        self._descriptors = Descriptors()
        self._durable_folders: set[str] = set()
        self._no_clones: set[int] = set()
        """File systems with which blocks cannot be shared."""

    @property
    def url(self) -> str:
        """The folder's path as a ``file://`` URL."""
        return f"file://{self._base}"

    @property
    def properties(self) -> Properties:
        """Files that can be linked."""
        return Properties(remote=False, shared=True, hard_links=True, path=self._root)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (type(self), self._base, self._fsync))

    def __repr__(self) -> str:
        return f"LocalBackend({self._base!r})"

    def path_of(self, key: str) -> Path:
        """Return the file that is, or would be, the object `key`."""
        return Path(self._path(key))

    def _path(self, key: str) -> str:
        check_key(key)
        return f"{self._base}/{key}"

    def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
        """See `Backend.put_if_absent`."""
        path = self._path(key)
        force = self._forced(durable)
        try:
            temporary = self._write_temporary(path, data, force)
            try:
                made = link_new(temporary, path)
            finally:
                _unlink_if_there(temporary)
            if made and force:
                self._sync_folders([path])
        except BackendError:
            raise
        except OSError as err:
            raise self._translate(err, f"write object {key}") from err
        return made

    def draft(self) -> Draft:
        """See `Backend.draft`: a file beside the objects."""
        return LocalDraft(self)

    def clone_in(self, source: int, start: int, length: int) -> Clone | None:
        """See `Backend.clone_in`; file systems that cannot are asked once."""
        device = os.fstat(source).st_dev
        if device in self._no_clones:
            return None
        clone = LocalDraft(self, length)
        try:
            done = clone_range(source, start, length, clone.fd, 0)
        except OSError as err:
            clone.drop()
            raise self._translate(err, "share blocks with a file") from err
        if done:
            return clone
        clone.drop()
        self._no_clones.add(device)
        return None

    def clone_out(self, key: str, dest: int, at: int) -> bool:
        """See `Backend.clone_out`."""
        device = os.fstat(dest).st_dev
        if device in self._no_clones:
            return False
        try:
            with open(self._path(key), "rb", buffering=0) as file:
                done = clone_range(file.fileno(), 0, os.fstat(file.fileno()).st_size, dest, at)
        except (FileNotFoundError, NotADirectoryError):
            return False
        if not done:
            self._no_clones.add(device)
        return done

    def put(self, key: str, data: Data) -> None:
        """See `Backend.put`."""
        path = self._path(key)
        force = self._forced(False)
        try:
            temporary = self._write_temporary(path, data, force)
            try:
                os.replace(temporary, path)
            except OSError:
                _unlink_if_there(temporary)
                raise
            if force:
                self._sync_folders([path])
        except OSError as err:
            raise self._translate(err, f"write object {key}") from err
        self._descriptors.forget(key)

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """See `Backend.get`; ranges are read from descriptors that stay open."""
        path = self._path(key)
        try:
            if start is None and end is None:
                with open(path, "rb", buffering=0) as file:
                    return file.read()
            check_range(key, start, end)
            file_ = self._descriptors.open(key, path)
            if start is not None and start < 0:
                start = max(0, os.fstat(file_.fd).st_size + start)
            start = start or 0
            if end is None:
                end = os.fstat(file_.fd).st_size
            return _pread(file_.fd, start, end)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as err:
            raise NotFoundError(f"no object {key} in {self.url}") from err
        except OSError as err:
            raise self._translate(err, f"read object {key}") from err

    def size(self, key: str) -> int | None:
        """See `Backend.size`."""
        try:
            found = os.stat(self._path(key))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as err:
            raise self._translate(err, f"look at object {key}") from err
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """See `Backend.list`."""
        folder = prefix.rpartition("/")[0]
        try:
            # Within a folder names sort as keys do only if a folder's name sorts with its slash.
            yield from self._walk(f"{folder}/" if folder else "", prefix)
        except OSError as err:
            raise self._translate(err, f"list {prefix or 'objects'}") from err

    def _walk(self, folder: str, prefix: str) -> Iterator[tuple[str, int]]:
        try:
            with os.scandir(f"{self._base}/{folder}") as entries:
                names = sorted(
                    (entry.name + "/" if entry.is_dir() else entry.name, entry)
                    for entry in entries
                    if not entry.name.startswith(TEMPORARY)
                )
        except (FileNotFoundError, NotADirectoryError):
            return
        for name, entry in names:
            key = folder + name
            if name.endswith("/"):
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._walk(key, prefix)
            elif key.startswith(prefix):
                try:
                    size = entry.stat().st_size
                except FileNotFoundError:  # deleted since the folder was read
                    continue
                yield key, size

    def list_written(self, prefix: str = "") -> Iterator[tuple[str, int, float | None]]:
        """See `Backend.list_written`: the files' modification times."""
        for key, size in self.list(prefix):
            try:
                yield key, size, os.stat(f"{self._base}/{key}").st_mtime
            except FileNotFoundError:  # deleted since the folder was read
                continue

    def sweep_temporaries(self, older_than_s: float) -> int:
        """Delete what writers that died left beside their targets; return how many files.

        Parameters
        ----------
        older_than_s
            Leave younger ones: somebody may be writing them.
        """
        return self._temporaries.sweep(older_than_s)

    def list_folders(self, prefix: str = "") -> Sequence[str]:
        """See `Backend.list_folders`."""
        try:
            with os.scandir(f"{self._base}/{prefix}") as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as err:
            raise self._translate(err, f"list {prefix or 'objects'}") from err

    def delete_many(self, keys: Iterable[str]) -> None:
        """See `Backend.delete_many`."""
        for key in keys:
            try:
                _unlink_if_there(self._path(key))
            except OSError as err:
                raise self._translate(err, f"delete object {key}") from err
            self._descriptors.forget(key)

    def sync(self, keys: Iterable[str]) -> None:
        """See `Backend.sync`; does nothing in the modes ``always`` and ``never``."""
        if self._fsync != "commit":
            return
        paths = [self._path(key) for key in dict.fromkeys(keys)]
        try:
            if len(paths) < _PARALLEL_SYNC_FROM:
                for path in paths:
                    _fsync(path)
            else:
                # The file system commits one journal for the fsyncs that wait at the same time.
                with futures.ThreadPoolExecutor(16, thread_name_prefix="dmlpipe-sync") as pool:
                    list(pool.map(_fsync, paths))
            self._sync_folders(paths)
        except FileNotFoundError as err:
            raise NotFoundError(f"no object {os.path.relpath(err.filename, self._base)} in {self.url}") from err
        except OSError as err:
            raise self._translate(err, "make objects durable") from err

    def _forced(self, durable: bool) -> bool:
        return self._fsync == "always" or (durable and self._fsync == "commit")

    def _write_temporary(self, path: str, data: Data, force: bool) -> str:
        view = memoryview(data).cast("B")
        temporary, fd = self._temporaries.open_for(path, len(view))
        try:
            while view:
                view = view[os.write(fd, view) :]
            if force:
                os.fsync(fd)
        except OSError:
            _unlink_if_there(temporary)
            raise
        finally:
            os.close(fd)
        return temporary

    def _sync_folders(self, paths: Iterable[str]) -> None:
        """Make the names of `paths` durable: their folders, and the names of those where not yet known to be."""
        folders = {os.path.dirname(path) for path in paths}
        above: set[str] = set()
        for folder in folders:
            while folder not in self._durable_folders:
                self._durable_folders.add(folder)
                if len(folder) <= len(self._base):
                    above.add(os.path.dirname(folder))
                    break
                folder = os.path.dirname(folder)
                above.add(folder)
        for folder in folders | above:
            _fsync(folder)

    def _translate(self, err: OSError, what: str) -> BackendError:
        return backend_error(err, what, self.url)


class LocalDraft(Clone):
    """A file beside the objects.

    Parameters
    ----------
    backend
        Where it becomes an object.
    cloned
        Bytes that it is going to share with another file.
    """

    def __init__(self, backend: LocalBackend, cloned: int = 0) -> None:
        self._backend = backend
        self._size = cloned
        self.shares_blocks = cloned > 0
        try:
            self._path, self.fd = backend._temporaries.open(backend._base, os.O_RDWR)
        except OSError as err:
            raise backend._translate(err, "write an object") from err

    def __len__(self) -> int:
        return self._size

    def write(self, data: Data) -> None:
        """See `Draft.write`."""
        view = memoryview(data)
        self._size += len(view)
        try:
            while view:
                view = view[os.write(self.fd, view) :]
        except OSError as err:
            raise self._backend._translate(err, "write an object") from err

    def read(self) -> bytes:
        """See `Draft.read`."""
        try:
            return _pread(self.fd, 0, self._size)
        except OSError as err:
            raise self._backend._translate(err, "read an object") from err

    def put_if_absent(self, key: str) -> bool:
        """See `Draft.put_if_absent`."""
        path = self._backend._path(key)
        try:
            if self._backend._forced(False):
                os.fsync(self.fd)
            try:
                made = link_new(self._path, path)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                made = link_new(self._path, path)
            if made and self._backend._forced(False):
                self._backend._sync_folders([path])
        except OSError as err:
            raise self._backend._translate(err, f"write object {key}") from err
        return made

    def drop(self) -> None:
        """See `Draft.drop`."""
        os.close(self.fd)
        _unlink_if_there(self._path)


def _reopen(kind: type[LocalBackend], base: str, fsync: str) -> LocalBackend:
    return kind(base, fsync=fsync)


def _pread(fd: int, start: int, end: int) -> bytes:
    want = max(0, end - start)
    data = os.pread(fd, want, start)
    if len(data) == want or not data:
        return data
    parts = [data]
    got = len(data)
    while got < want and (data := os.pread(fd, want - got, start + got)):
        parts.append(data)
        got += len(data)
    return b"".join(parts)


def _fsync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unlink_if_there(path: str) -> None:
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
