"""What `put` is given: files, folders, bytes, streams, URLs. Listed and checked whole before anything is written.

A folder's contents land at the target; a file lands there under its own name. Links are followed. A file that is no
plain file (a FIFO, a device, a socket), a name that breaks the rules of `paths.py`, and two sources for one name are
refused. Empty folders leave no trace.

Local folders are listed a folder at a time, names in one list and no object per file: there may be millions. Once there
are many, the folders that are left are shared with other processes.
"""

from __future__ import annotations

import errno
import os
import pickle
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from operator import eq
from pathlib import Path
from typing import Any, BinaryIO

from .errors import ErrorCode, InvalidInputError, NotFoundError
from .forked import MAX_UNITS, process_count, share_work
from .leftovers import PREFIX as LEFTOVER_PREFIX
from .paths import PATH_MAX_BYTES, join_path, normalize_folder, normalize_path, show_path

_SHARE_FROM_FILES = 2000
_SHARE_FROM_FOLDERS = 8

Content = bytes | str | BinaryIO
Source = str | os.PathLike[str] | tuple[str, Content]
"""A path, an fsspec URL, or (name, content)."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to be put."""

    path: bytes
    """Where it goes in the commit."""
    origin: str
    """What it is called where it comes from, for messages."""
    file: str | None = None
    """Local file to read."""
    data: bytes | None = None
    """Content that stands here."""
    stream: Callable[[], BinaryIO] | None = None
    """Opens the content."""
    url: str = ""
    """Where it is, if not in a local file."""


@dataclass(frozen=True, slots=True)
class SourceFolder:
    """The plain files right in one local folder, sorted by name."""

    root: str
    """The source that it was found in."""
    inside: str
    """Where in there; empty: it is the source itself."""
    device: int
    """Number of the file system that it is on."""
    names: list[str]
    keys: list[bytes]
    """Where each goes in the commit."""

    @property
    def local(self) -> str:
        """Path of the folder."""
        root = self.root.rstrip("/")
        return f"{root}/{self.inside}" if self.inside else root or "/"

    def files(self) -> Iterator[SourceFile]:
        """Yield each file by itself."""
        local = self.local.rstrip("/")
        for name, key in zip(self.names, self.keys, strict=True):
            file = f"{local}/{name}"
            yield SourceFile(key, file, file=file)


class _Listings(dict[int, list[SourceFolder]]):
    """Folders that were listed, by number of unit. Pickles as a whole, not name by name."""

    def __reduce__(self) -> tuple[Callable[[bytes], _Listings], tuple[bytes]]:
        plain = {
            number: [
                (found.root, found.inside, found.device, "\0".join(found.names), b"\0".join(found.keys))
                for found in folders
            ]
            for number, folders in self.items()
        }
        return _decode_listings, (pickle.dumps(plain, protocol=pickle.HIGHEST_PROTOCOL),)


def _decode_listings(raw: bytes) -> _Listings:
    plain = pickle.loads(raw)
    return _Listings(
        (
            number,
            [
                SourceFolder(root, inside, device, names.split("\0"), keys.split(b"\0"))
                for root, inside, device, names, keys in folders
            ],
        )
        for number, folders in plain.items()
    )


@dataclass(frozen=True)
class SourcePlan:
    """Files to be put. Iterating yields each by itself."""

    singles: list[SourceFile]
    folders: list[SourceFolder]

    @cached_property
    def paths(self) -> list[bytes]:
        """Where the files go in the commit, sorted."""
        return sorted(chain((item.path for item in self.singles), *(folder.keys for folder in self.folders)))

    @cached_property
    def targets(self) -> frozenset[bytes]:
        """The folders of the commit that they stand right in."""
        some = [item.path for item in self.singles] + [folder.keys[0] for folder in self.folders if folder.keys]
        return frozenset(path.rpartition(b"/")[0] for path in some)

    def __iter__(self) -> Iterator[SourceFile]:
        yield from self.singles
        for folder in self.folders:
            yield from folder.files()

    def __len__(self) -> int:
        return len(self.singles) + sum(len(folder.names) for folder in self.folders)


def plan_sources(
    sources: Sequence[Source], folder: bytes, *, exclude: Sequence[str] = (), skip: Path | None = None
) -> SourcePlan:
    """List the files of `sources`, as they will stand below `folder`.

    Parameters
    ----------
    sources
        See `Source`.
    folder
        Tree path of the target folder, ``b""`` for the root.
    exclude
        Globs; one without a slash is matched against each name, one with a slash against the path below the source.
        What a folder's name matches is left out with all it holds.
    skip
        A folder that is passed over: the store itself.

    Raises
    ------
    InvalidInputError
        A name or a kind of file that cannot be stored, two sources for one name, a file that cannot be read.
    NotFoundError
        A source does not exist.
    """
    excluded = _Exclude(exclude)
    plan = SourcePlan([], [])
    for source in sources:
        _plan_source(source, folder, excluded, skip, plan)
    if any(map(eq, plan.paths, islice(plan.paths, 1, None))):
        _refuse_doubles(plan)
    return plan


def _refuse_doubles(plan: SourcePlan) -> None:
    found: dict[bytes, SourceFile] = {}
    for item in plan:
        other = found.setdefault(item.path, item)
        if other is not item:
            raise InvalidInputError(
                f"{other.origin} and {item.origin} would both be {show_path(item.path)}", code=ErrorCode.BAD_PATH
            )


class _Exclude:
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
        name = relative.rpartition("/")[2]
        return any(glob.match(name) is not None for glob in self._names) or any(
            glob.match(relative) is not None for glob in self._paths
        )


def _plan_source(source: Source, folder: bytes, excluded: _Exclude, skip: Path | None, plan: SourcePlan) -> None:
    if isinstance(source, tuple):
        plan.singles.append(_plan_content(source[0], source[1], folder))
        return
    text = os.fspath(source)
    if text.startswith("file://"):
        text = text[len("file://") :]
    if "://" in text:
        plan.singles.extend(_plan_url(text, folder, excluded))
        return
    mode = _stat(text).st_mode
    if stat.S_ISDIR(mode):
        _Walk(folder, excluded, skip, plan.folders).walk(text)
    else:
        _check_plain(text, mode)
        name = os.path.basename(os.path.abspath(text))
        plan.singles.append(SourceFile(join_path(folder, normalize_path(os.fsencode(name))), text, file=text))


def _plan_content(name: str, content: Content, folder: bytes) -> SourceFile:
    path = join_path(folder, normalize_path(name))
    if isinstance(content, str):
        return SourceFile(path, name, data=content.encode())
    if isinstance(content, bytes):
        return SourceFile(path, name, data=content)
    return SourceFile(path, name, stream=lambda: content)


def _check_plain(file: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise InvalidInputError(f"{file} is {_kind(mode)}: only plain files can be put", code=ErrorCode.BAD_PATH)


class _Walk:
    def __init__(self, target: bytes, excluded: _Exclude, skip: Path | None, found: list[SourceFolder]) -> None:
        self._target = target
        self._excluded = excluded
        self._skip = _identity(os.stat(skip)) if skip is not None and skip.exists() else None
        self._found = found
        self._files = 0
        """Listed so far."""
        self._alone = True
        """Whether no other process lists with this one."""

    def walk(self, root: str) -> None:
        """List a folder and all below it."""
        here = _identity(_stat(root))
        self._walk(root, "", here, {here})

    def _walk(self, root: str, relative: str, here: tuple[int, int], above: set[tuple[int, int]]) -> None:
        local = os.path.join(root, relative) if relative else root
        names: list[str] = []
        others: list[str] = []
        try:
            with os.scandir(local) as listing:
                for entry in listing:
                    # What the listing itself tells: no call for each file.
                    (names if entry.is_file(follow_symlinks=False) else others).append(entry.name)
        except OSError as error:
            raise _unreadable(local, error) from error
        inside = f"{relative}/" if relative else ""
        # Half of a file or folder, as a killed `get` left it.
        names = [name for name in names if not name.startswith(LEFTOVER_PREFIX)]
        others = [name for name in others if not name.startswith(LEFTOVER_PREFIX)]
        if self._excluded:
            names = [name for name in names if not self._excluded(inside + name)]
            others = [name for name in others if not self._excluded(inside + name)]
        folders: list[tuple[str, tuple[int, int]]] = []
        for name in sorted(others):
            file = os.path.join(local, name)
            status = _stat(file)
            if stat.S_ISDIR(status.st_mode):
                folders.append((name, _identity(status)))
            else:
                _check_plain(file, status.st_mode)
                names.append(name)
        if names:
            names.sort()
            below = normalize_folder(os.fsencode(relative))
            folder = join_path(self._target, below) if below else self._target
            self._found.append(SourceFolder(root, relative, here[0], names, _keys_of(folder, names)))
            self._files += len(names)
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
        found.extend(chain.from_iterable(listed[number] for number in range(len(units))))
        self._found, self._alone = found, True


def _keys_of(folder: bytes, names: list[str]) -> list[bytes]:
    """Return the tree paths of files in a folder, given the names that a listing yields."""
    prefix = folder + b"/" if folder else b""
    joined = "\0".join(names)
    if joined.isascii():
        keys = [prefix + name for name in joined.encode().split(b"\0")]
    else:
        keys = [prefix + normalize_path(os.fsencode(name)) for name in names]
    if max(map(len, keys)) > PATH_MAX_BYTES:
        for key in keys:
            normalize_path(key)
    return keys


def _plan_url(url: str, folder: bytes, excluded: _Exclude) -> Iterator[SourceFile]:
    import fsspec

    try:
        fs, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise InvalidInputError(f"cannot read {url}: {error}") from error
    try:
        if fs.isfile(root):
            yield _remote_file(fs, root, join_path(folder, normalize_path(root.rpartition("/")[2])))
            return
        names = sorted(fs.find(root))
    except OSError as error:
        raise _unreadable(url, error) from error
    if not names:
        raise NotFoundError(f"no such file or folder: {url}", code=ErrorCode.NO_FILE)
    for name in names:
        relative = name[len(root) :].strip("/")
        if not excluded(relative):
            yield _remote_file(fs, name, join_path(folder, normalize_path(relative)))


def _remote_file(fs: Any, name: str, path: bytes) -> SourceFile:
    return SourceFile(path, name, stream=lambda: fs.open(name, "rb"), url=fs.unstrip_protocol(name))


def _stat(file: str) -> os.stat_result:
    try:
        return os.stat(file)
    except FileNotFoundError as error:
        if os.path.islink(file):
            raise InvalidInputError(f"{file} is a link to nothing", code=ErrorCode.BAD_PATH) from error
        raise NotFoundError(f"no such file or folder: {file}", code=ErrorCode.NO_FILE) from error
    except OSError as error:
        raise _unreadable(file, error) from error
    except ValueError as error:  # a NUL in the name
        raise InvalidInputError(f"{file!r} is no file name: {error}", code=ErrorCode.BAD_PATH) from error


def _unreadable(file: str, error: OSError) -> InvalidInputError:
    denied = isinstance(error, PermissionError)
    return InvalidInputError(
        f"cannot read {file}: {error.strerror or error}",
        code=ErrorCode.PERMISSION if denied else ErrorCode.INVALID,
        hint="go into the folder, and put `.`" if error.errno == errno.ENAMETOOLONG else None,
    )


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _kind(mode: int) -> str:
    for test, kind in ((stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"), (stat.S_ISDIR, "a folder")):
        if test(mode):
            return kind
    return "a device"
