"""A local folder and all below it, listed: names a folder at a time, no object per file; there may be millions.

Once there are many, the folders that are left are shared with other processes. What is remembered of a folder is
compared with it right where it is listed, so that of one that is as it was next to nothing travels.
"""

from __future__ import annotations

import errno
import os
import pickle
import stat
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NoReturn

from .errors import ErrorCode, InvalidInputError, NotFoundError
from .forked import MAX_UNITS, process_count, share_work
from .leftovers import PREFIX as LEFTOVER_PREFIX
from .paths import join_path, normalize_folder
from .source_files import Recall, SourceFolder

_SHARE_FROM_FILES = 2000
_SHARE_FROM_FOLDERS = 8


class Exclude:
    """What is left out.

    Parameters
    ----------
    patterns
        Globs; one without a slash is matched against each name, one with a slash against the path below the source.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        if not patterns:
            self._names, self._paths = [], []
            return
        from .glob import compile_glob

        self._names = [compile_glob(pattern) for pattern in patterns if "/" not in pattern.strip("/")]
        self._paths = [compile_glob(pattern) for pattern in patterns if "/" in pattern.strip("/")]

    def __bool__(self) -> bool:
        return bool(self._names or self._paths)

    def __call__(self, relative: str) -> bool:
        """Whether that is left out."""
        name = relative.rpartition("/")[2]
        return any(glob.match(name) is not None for glob in self._names) or any(
            glob.match(relative) is not None for glob in self._paths
        )


class _Listings(dict[int, list[SourceFolder]]):
    """Folders that were listed, by number of unit. Pickles as a whole, not name by name."""

    def __reduce__(self) -> tuple[Callable[[bytes], _Listings], tuple[bytes]]:
        plain = {number: [_to_row(found) for found in folders] for number, folders in self.items()}
        return _decode_listings, (pickle.dumps(plain, protocol=pickle.HIGHEST_PROTOCOL),)


_Row = tuple[str, str, int, bytes, int, bool, Sequence[int] | None, tuple[str, bytes] | None]


def _to_row(found: SourceFolder) -> _Row:
    listed = None if found.same_names else ("\0".join(found.names), b"\0".join(found.keys))
    return found.root, found.inside, found.device, found.below, found.count, found.same_names, found.stale, listed


def _of_row(row: _Row) -> SourceFolder:
    root, inside, device, below, count, same_names, stale, listed = row
    found = SourceFolder(root, inside, device, below, None, count)
    found.same_names, found.stale = same_names, stale
    if listed is not None:
        names, keys = listed
        found.names, found.keys = names.split("\0"), keys.split(b"\0")
    return found


def _decode_listings(raw: bytes) -> _Listings:
    return _Listings((number, [_of_row(row) for row in rows]) for number, rows in pickle.loads(raw).items())


class Walk:
    """Lists folders.

    Parameters
    ----------
    target
        The folder of the commit that they go to.
    excluded
        What is left out; a folder with all it holds.
    skip
        A folder that is passed over.
    found
        Gets what was found.
    recall
        What is remembered of them; None: nothing.
    """

    def __init__(
        self, target: bytes, excluded: Exclude, skip: Path | None, found: list[SourceFolder], recall: Recall | None
    ) -> None:
        self._target = target
        self._excluded = excluded
        self._skip = _identity(os.stat(skip)) if skip is not None and skip.exists() else None
        self._found = found
        self._recall = recall
        self._files = 0
        """Listed so far."""
        self._alone = True
        """Whether no other process lists with this one."""

    def walk(self, root: str) -> None:
        """List a folder and all below it.

        Raises
        ------
        InvalidInputError
            Something in it cannot be stored, or read.
        """
        here = _identity(look(root))
        if self._recall is not None:
            self._recall.begin(root)
        self._walk(root, "", here, {here})

    def _walk(self, root: str, relative: str, here: tuple[int, int], above: set[tuple[int, int]]) -> None:
        local = os.path.join(root, relative) if relative else root
        names, others = self._list(local, relative)
        inside = f"{relative}/" if relative else ""
        folders: list[tuple[str, tuple[int, int]]] = []
        for name in others:
            file = os.path.join(local, name)
            status = look(file)
            if stat.S_ISDIR(status.st_mode):
                folders.append((name, _identity(status)))
            else:
                check_plain(file, status.st_mode)
                names.append(name)
        if names:
            names.sort()
            self._add(root, relative, here[0], names)
        left = [(name, there) for name, there in folders if there != self._skip]
        for name, there in left:
            if there in above:
                raise InvalidInputError(
                    f"{os.path.join(local, name)} links to a folder above itself", code=ErrorCode.BAD_PATH
                )
        for number, (name, there) in enumerate(left):
            if self._alone and self._files >= _SHARE_FROM_FILES and len(left) - number >= _SHARE_FROM_FOLDERS:
                self._share([(root, inside + name, there, above | {there}) for name, there in left[number:]])
                return
            self._walk(root, inside + name, there, above | {there})

    def _list(self, local: str, relative: str) -> tuple[list[str], list[str]]:
        """Return the names of plain files in a folder, and those of whatever else is there."""
        names: list[str] = []
        others: list[str] = []
        try:
            with os.scandir(local) as listing:
                for entry in listing:
                    # What the listing itself tells: no call for each file.
                    (names if entry.is_file(follow_symlinks=False) else others).append(entry.name)
        except OSError as error:
            raise_unreadable(local, error)
        names, others = _without_leftovers(names), _without_leftovers(others)
        inside = f"{relative}/" if relative else ""
        if self._excluded:
            names = [name for name in names if not self._excluded(inside + name)]
            others = [name for name in others if not self._excluded(inside + name)]
        return names, others

    def _add(self, root: str, relative: str, device: int, names: list[str]) -> None:
        below = normalize_folder(os.fsencode(relative))
        folder = join_path(self._target, below) if below else self._target
        found = SourceFolder(root, relative, device, folder, names, len(names), recall=self._recall)
        found.check()
        found.compare()
        self._found.append(found)
        self._files += len(names)

    def _share(self, walks: Sequence[tuple[str, str, tuple[int, int], set[tuple[int, int]]]]) -> None:
        """Walk through folders together with other processes."""
        step = -(-len(walks) // MAX_UNITS)
        units = [walks[start : start + step] for start in range(0, len(walks), step)]
        found, self._alone = self._found, False

        def work(numbers: Iterator[int]) -> _Listings:
            done = _Listings()
            for number in numbers:
                self._found = done[number] = []
                for walk in units[number]:
                    self._walk(*walk)
            return done

        listed = _Listings()
        for part in share_work(work, len(units), process_count(len(units))):
            listed.update(part)
        for folder in chain.from_iterable(listed[number] for number in range(len(units))):
            folder.recall = self._recall
            found.append(folder)
        self._found, self._alone = found, True


def _without_leftovers(names: list[str]) -> list[str]:
    """Return names in order, without those of halves of files and folders, as a killed `get` left them."""
    names.sort()
    # There are none, nearly always: that is not asked of each name.
    begin = bisect_left(names, LEFTOVER_PREFIX)
    end = begin
    while end < len(names) and names[end].startswith(LEFTOVER_PREFIX):
        end += 1
    return names[:begin] + names[end:] if begin < end else names


def look(file: str) -> os.stat_result:
    """Return the stat of a file, links followed.

    Raises
    ------
    NotFoundError
        There is no such file.
    InvalidInputError
        It links to nothing, or cannot be read.
    """
    try:
        return os.stat(file)
    except FileNotFoundError as error:
        if os.path.islink(file):
            raise InvalidInputError(f"{file} is a link to nothing", code=ErrorCode.BAD_PATH) from error
        raise NotFoundError(f"no such file or folder: {file}", code=ErrorCode.NO_FILE) from error
    except OSError as error:
        raise_unreadable(file, error)
    except ValueError as error:  # a NUL in the name
        raise InvalidInputError(f"{file!r} is no file name: {error}", code=ErrorCode.BAD_PATH) from error


def check_plain(file: str, mode: int) -> None:
    """Raise `InvalidInputError` if a file is no plain one."""
    if not stat.S_ISREG(mode):
        raise InvalidInputError(f"{file} is {_kind(mode)}: only plain files can be put", code=ErrorCode.BAD_PATH)


def raise_unreadable(file: str, error: OSError) -> NoReturn:
    """Raise the error that says that a file or folder cannot be read."""
    denied = isinstance(error, PermissionError)
    raise InvalidInputError(
        f"cannot read {file}: {error.strerror or error}",
        code=ErrorCode.PERMISSION if denied else ErrorCode.INVALID,
        hint="go into the folder, and put `.`" if error.errno == errno.ENAMETOOLONG else None,
    ) from error


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _kind(mode: int) -> str:
    for test, kind in ((stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"), (stat.S_ISDIR, "a folder")):
        if test(mode):
            return kind
    return "a device"
