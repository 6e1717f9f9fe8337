"""What `put` is given: files, folders, bytes, streams, URLs. Listed and checked whole before anything is written.

A folder's contents land at the target; a file lands there under its own name. Links are followed. A file that is no
plain file (a FIFO, a device, a socket), a name that breaks the rules of `paths.py`, and two sources for one name are
refused. Empty folders leave no trace.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .errors import ErrorCode, InvalidInputError, NotFoundError
from .glob import compile_glob
from .paths import join_path, normalize_path, show_path

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


def plan_sources(
    sources: Sequence[Source], folder: bytes, *, exclude: Sequence[str] = (), skip: Path | None = None
) -> list[SourceFile]:
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
    found: dict[bytes, SourceFile] = {}
    for source in sources:
        for item in _plan_source(source, folder, excluded, skip):
            other = found.get(item.path)
            if other is not None:
                raise InvalidInputError(
                    f"{other.origin} and {item.origin} would both be {show_path(item.path)}", code=ErrorCode.BAD_PATH
                )
            found[item.path] = item
    return list(found.values())


class _Exclude:
    def __init__(self, patterns: Sequence[str]) -> None:
        self._names = [compile_glob(pattern) for pattern in patterns if "/" not in pattern.strip("/")]
        self._paths = [compile_glob(pattern) for pattern in patterns if "/" in pattern.strip("/")]

    def __call__(self, relative: str) -> bool:
        name = relative.rpartition("/")[2]
        return any(glob.match(name) is not None for glob in self._names) or any(
            glob.match(relative) is not None for glob in self._paths
        )


def _plan_source(source: Source, folder: bytes, excluded: _Exclude, skip: Path | None) -> Iterator[SourceFile]:
    if isinstance(source, tuple):
        yield _plan_content(source[0], source[1], folder)
        return
    text = os.fspath(source)
    if text.startswith("file://"):
        text = text[len("file://") :]
    if "://" in text:
        yield from _plan_url(text, folder, excluded)
        return
    mode = _stat(text).st_mode
    if stat.S_ISDIR(mode):
        yield from _Walk(text, folder, excluded, skip).files()
    else:
        name = os.path.basename(os.path.abspath(text))
        yield _plan_file(text, mode, join_path(folder, normalize_path(os.fsencode(name))))


def _plan_content(name: str, content: Content, folder: bytes) -> SourceFile:
    path = join_path(folder, normalize_path(name))
    if isinstance(content, str):
        return SourceFile(path, name, data=content.encode())
    if isinstance(content, bytes):
        return SourceFile(path, name, data=content)
    return SourceFile(path, name, stream=lambda: content)


def _plan_file(file: str, mode: int, path: bytes) -> SourceFile:
    if not stat.S_ISREG(mode):
        raise InvalidInputError(f"{file} is {_kind(mode)}: only plain files can be put", code=ErrorCode.BAD_PATH)
    return SourceFile(path, file, file=file)


class _Walk:
    def __init__(self, root: str, folder: bytes, excluded: _Exclude, skip: Path | None) -> None:
        self._root = root
        self._folder = folder
        self._excluded = excluded
        self._skip = _identity(os.stat(skip)) if skip is not None and skip.exists() else None

    def files(self) -> Iterator[SourceFile]:
        yield from self._walk(self._root, "", {_identity(_stat(self._root))})

    def _walk(self, local: str, relative: str, above: set[tuple[int, int]]) -> Iterator[SourceFile]:
        try:
            with os.scandir(local) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            raise _unreadable(local, error) from error
        for entry in entries:
            inside = f"{relative}/{entry.name}" if relative else entry.name
            if self._excluded(inside):
                continue
            status = _stat(entry.path)
            if not stat.S_ISDIR(status.st_mode):
                tree_path = join_path(self._folder, normalize_path(os.fsencode(inside)))
                yield _plan_file(entry.path, status.st_mode, tree_path)
                continue
            here = _identity(status)
            if here == self._skip:
                continue
            if here in above:
                raise InvalidInputError(f"{entry.path} links to a folder above itself", code=ErrorCode.BAD_PATH)
            yield from self._walk(entry.path, inside, above | {here})


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
        f"cannot read {file}: {error.strerror or error}", code=ErrorCode.PERMISSION if denied else ErrorCode.INVALID
    )


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _kind(mode: int) -> str:
    for test, kind in ((stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"), (stat.S_ISDIR, "a folder")):
        if test(mode):
            return kind
    return "a device"
