"""Folders that datums are laid out in, used again: making and removing a folder costs milliseconds on some disks.

A berth keeps its first two levels of folders (`<berth>/<input>`, or `<berth>/pfs/<input>`); everything else in it is
removed when its datum ends, whoever put it there. Folders that are removed are emptied and kept, and appear again where
one is needed, under a new name each time: no path of an earlier datum leads there.

These are the worker's; of datums that the child lays out: `datum_folders.py`, which shares the stock of empty folders.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Mapping

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STOCK_MAX = 1024
_DEPTH_MAX = 16
"""Folders nested deeper are removed one by one, without a stack of calls."""
_SIZE_MAX_BYTES = 64 << 10
"""A folder that held so many names that its list is larger stays slow: it is not kept."""


def _moved(spare: str, path: str) -> bool:
    """Let an empty folder appear at `path`; False if user code took it away."""
    try:
        os.rename(spare, path)
    except OSError:
        return False
    return True


def _is_folder(name: str, parent: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def unlinked(name: str, parent: int) -> bool:
    """Remove what is no folder; False if it is one. To list names and try is half of what it costs to list kinds."""
    try:
        os.unlink(name, dir_fd=parent)
    except (IsADirectoryError, PermissionError):
        # macOS says the latter of a folder.
        if not _is_folder(name, parent):
            raise
        return False
    return True


class Stock:
    """Empty folders that nobody uses.

    Parameters
    ----------
    folder
        Where they lie, on the file system where they are needed; made here.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        # What it lies in was made where no user code runs, which may change what a new folder allows.
        self._like = os.stat(os.path.dirname(folder))
        self._make(folder)
        self._names: list[str] = []
        self._made = 0

    def make(self, path: str) -> None:
        """Make the folder `path`, whose parent exists."""
        if not (self._names and _moved(self._names.pop(), path)):
            self._make(path)

    def _make(self, path: str) -> None:
        os.mkdir(path)
        if not self.is_plain(os.stat(path)):
            os.chmod(path, stat.S_IMODE(self._like.st_mode))

    def make_all(self, path: str) -> None:
        """Make the folder `path` and those above it, as far as they are missing."""
        if not os.path.isdir(path):
            self.make_all(os.path.dirname(path))
            self.make(path)

    def remove(self, name: str, parent: int, *, reuse: bool, depth: int = 0) -> None:
        """Remove the folder `name` in the folder `parent`, with all that is in it; no link is followed.

        Parameters
        ----------
        reuse
            Nobody is left who may hold it open: it may come back under another name.
        """
        if self.empty(name, parent, reuse=reuse, depth=depth) and len(self._names) < _STOCK_MAX:
            self._made += 1
            spare = f"{self._folder}/{self._made}"
            os.rename(name, spare, src_dir_fd=parent)
            self._names.append(spare)
        else:
            os.rmdir(name, dir_fd=parent)

    def empty(self, name: str, parent: int, *, reuse: bool, depth: int = 0) -> bool:
        """Remove all that is in the folder `name` in `parent`; return whether it may be used again."""
        fd = os.open(name, FOLDER, dir_fd=parent)
        try:
            for inside in os.listdir(fd):
                if unlinked(inside, fd):
                    continue
                if depth < _DEPTH_MAX:
                    self.remove(inside, fd, reuse=reuse, depth=depth + 1)
                else:
                    shutil.rmtree(inside, dir_fd=fd)
            return reuse and self.is_plain(os.fstat(fd))
        finally:
            os.close(fd)

    def empty_alone(self, path: str) -> None:
        """Remove all that is in a folder that nobody else uses: by path, which is half as many system calls."""
        for name in os.listdir(path):
            try:
                os.unlink(f"{path}/{name}")
            except (IsADirectoryError, PermissionError):
                # macOS says the latter of a folder. What is none raises again.
                self.remove_alone(path, name)

    def remove_alone(self, path: str, name: str) -> None:
        """Remove the folder `path/name`, which nobody else uses."""
        fd = os.open(path, FOLDER)
        try:
            self.remove(name, fd, reuse=True)
        finally:
            os.close(fd)

    def is_plain(self, status: os.stat_result) -> bool:
        """Whether a folder is like one that was just made."""
        like = self._like
        return (status.st_mode, status.st_uid, status.st_gid) == (like.st_mode, like.st_uid, like.st_gid) and (
            status.st_size <= _SIZE_MAX_BYTES
        )


class Berth:
    """One folder with the folders kept in it."""

    def __init__(self, path: str, stock: Stock) -> None:
        self.path = path
        self.stock = stock
        self._kept: dict[str, dict[str, bool]] = {path: {}}
        """Of each kept folder, what stays in it: name, and whether that is a folder."""
        self._fresh = 0
        self._last = ""
        """Name of the folder that `fresh` made last."""
        self._spare = ""
        """It, while it is empty and nobody uses it."""
        stock.make(path)

    def keep(self, folder: str, name: str) -> str:
        """Return `folder/name`, an empty folder that stays; `folder` is the berth or kept itself."""
        path = f"{folder}/{name}"
        if path not in self._kept:
            self.stock.make(path)
            self._kept[folder][name] = True
            self._kept[path] = {}
        return path

    def fresh(self, name: str) -> str:
        """Make and return a folder that never was: what a late thread of an earlier datum writes is not in it."""
        self._fresh += 1
        self._last = f"{name}-{self._fresh}"
        path = f"{self.path}/{self._last}"
        spare, self._spare = self._spare, ""
        if not (spare and _moved(f"{self.path}/{spare}", path)):
            self.stock.make(path)
        return path

    def write(self, folder: str, name: str, data: bytes) -> None:
        """Let the file `folder/name` hold `data`. It stays, too: a new file costs more than new content."""
        path = f"{folder}/{name}"
        if name not in self._kept[folder]:
            self._kept[folder][name] = False
        elif self._overwrite(path, data):
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    @staticmethod
    def _overwrite(path: str, data: bytes) -> bool:
        """Write to a file of ours; False if it is none any more."""
        try:
            fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            status = os.fstat(fd)
            # User code may have linked it elsewhere.
            if status.st_nlink != 1 or not stat.S_ISREG(status.st_mode):
                return False
            os.write(fd, data)
            if status.st_size > len(data):
                os.ftruncate(fd, len(data))
        finally:
            os.close(fd)
        return True

    def leave_out(self, folder: str, name: str) -> None:
        """See to it that there is no `folder/name`, which an earlier datum may have had."""
        path = f"{folder}/{name}"
        if self._kept.pop(path, None) is not None:
            del self._kept[folder][name]
            os.rmdir(path)

    def clear(self, *, reuse: bool) -> bool:
        """Remove everything but the kept folders; False if the berth is not what it was and must go.

        Parameters
        ----------
        reuse
            Nobody is left who may use it.
        """
        try:
            for path, kept in self._kept.items():
                if not reuse:
                    self._empty(path, kept)
                elif kept or path == self.path:
                    if not self._empty_alone(path, kept):
                        return False
                else:
                    # Its parent was looked at: it is a folder, and nobody is left who could put a link in its place.
                    self.stock.empty_alone(path)
        except OSError:
            # A kept folder was removed, moved, or replaced by a link or a file.
            return False
        return True

    def _empty_alone(self, path: str, kept: Mapping[str, bool]) -> bool:
        """Remove all entries of a folder that nobody else uses but what is kept; False if that is not what it was.

        By path, which is half as many system calls as by descriptor.
        """
        with os.scandir(path) as entries:
            listed = list(entries)
        for entry in listed:
            is_folder = entry.is_dir(follow_symlinks=False)
            if (stays := kept.get(entry.name)) is not None:
                if stays and not is_folder:
                    return False
                if stays or not is_folder:
                    continue
            if not is_folder:
                os.unlink(entry.path)
            elif entry.name != self._last or path != self.path:
                if entry.name != self._spare:
                    self.stock.remove_alone(path, entry.name)
            else:
                self.stock.empty_alone(entry.path)
                if self.stock.is_plain(entry.stat(follow_symlinks=False)):
                    self._spare = entry.name
                else:
                    os.rmdir(entry.path)
        return True

    def _empty(self, path: str, kept: Mapping[str, bool]) -> None:
        """Remove all entries of a folder but what is kept, whatever others do meanwhile; never follows a link."""
        fd = os.open(path, FOLDER)
        try:
            for name in os.listdir(fd):
                if (stays := kept.get(name)) is not None:
                    # A kept folder is emptied itself, which fails if it is none any more.
                    if stays or not _is_folder(name, fd):
                        continue
                elif (name != self._last or path != self.path) and unlinked(name, fd):
                    continue
                if name != self._spare:
                    self.stock.remove(name, fd, reuse=False)
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Delete it."""
        shutil.rmtree(self.path, ignore_errors=True)


class Berths:
    """The berths of one slot. One thread at a time.

    Parameters
    ----------
    folder
        Private to the slot; exists.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.stock = Stock(os.path.join(folder, "stock"))
        self._free: list[Berth] = []
        self._made = 0
        self._owner: object = None

    def take(self, owner: object) -> Berth:
        """Return a berth for a datum of `owner` (its job): nothing of another job's inputs is in it."""
        if owner is not self._owner:
            for berth in self._free:
                berth.remove()
            self._free.clear()
            self._owner = owner
        if self._free:
            return self._free.pop()
        self._made += 1
        return Berth(os.path.join(self._folder, str(self._made)), self.stock)

    def give_back(self, berth: Berth, owner: object, *, reuse: bool) -> None:
        """Take a berth back once its datum has ended.

        Parameters
        ----------
        reuse
            Nothing that the datum started is left: no thread, no process.
        """
        if owner is self._owner and berth.clear(reuse=reuse):
            self._free.append(berth)
        else:
            berth.remove()
