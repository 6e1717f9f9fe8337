"""Folders that datums are laid out in, used again: making and removing a folder costs a millisecond on some disks.

A berth keeps its first two levels of folders (`<berth>/<input>`, or `<berth>/pfs/<input>`); everything else in it is
removed when its datum ends, whoever put it there.
"""

from __future__ import annotations

import os
import shutil


class Berth:
    """One folder with the folders kept in it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._kept: dict[str, set[str]] = {path: set()}
        self._fresh = 0
        os.mkdir(path)

    def keep(self, folder: str, name: str) -> str:
        """Return `folder/name`, an empty folder that stays; `folder` is the berth or kept itself."""
        path = f"{folder}/{name}"
        if path not in self._kept:
            os.mkdir(path)
            self._kept[folder].add(name)
            self._kept[path] = set()
        return path

    def fresh(self, name: str) -> str:
        """Make and return a folder that never was: what a late thread of an earlier datum writes is not in it."""
        self._fresh += 1
        path = f"{self.path}/{name}-{self._fresh}"
        os.mkdir(path)
        return path

    def leave_out(self, folder: str, name: str) -> None:
        """See to it that there is no `folder/name`, which an earlier datum may have had."""
        path = f"{folder}/{name}"
        if self._kept.pop(path, None) is not None:
            self._kept[folder].discard(name)
            os.rmdir(path)

    def clear(self) -> bool:
        """Remove everything but the kept folders; False if the berth is not what it was and must go."""
        try:
            for path, names in self._kept.items():
                _empty(path, names)
        except OSError:
            # A kept folder was removed, moved, or replaced by a link or a file.
            return False
        return True

    def remove(self) -> None:
        """Delete it."""
        shutil.rmtree(self.path, ignore_errors=True)


def _empty(path: str, names: set[str]) -> None:
    """Remove all entries of a folder but the folders `names`; never follows a link."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with os.scandir(fd) as entries:
            listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_folder in listed:
            if is_folder:
                if name not in names:
                    _remove(name, fd)
            else:
                os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)


def _remove(name: str, parent: int) -> None:
    """Remove a folder in the folder `parent`; mostly it holds a file or two, and no folder."""
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        with os.scandir(fd) as entries:
            listed = list(entries)
        flat = not any(entry.is_dir(follow_symlinks=False) for entry in listed)
        if flat:
            for entry in listed:
                os.unlink(entry.name, dir_fd=fd)
    finally:
        os.close(fd)
    if flat:
        os.rmdir(name, dir_fd=parent)
    else:
        shutil.rmtree(name, dir_fd=parent)


class Berths:
    """The berths of one slot. One thread at a time.

    Parameters
    ----------
    folder
        Private to the slot; exists.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
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
        return Berth(os.path.join(self._folder, str(self._made)))

    def give_back(self, berth: Berth, owner: object) -> None:
        """Take a berth back once its datum has ended."""
        if owner is self._owner and berth.clear():
            self._free.append(berth)
        else:
            berth.remove()
