"""Outputs of one datum: names checked, links followed, files opened. Runs where user code runs.

The process that made the files opens them and hands over descriptors: the parent never follows a path of theirs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...storage.errors import ErrorCode, InvalidInputError, UserCodeError
from ...storage.paths import normalize_path
from .wire import INLINE_MAX_BYTES

FRAME_MAX_BYTES = 4 << 20
FRAME_MAX_FDS = 64


Listed = Callable[[str, Sequence["os.DirEntry[str]"]], None]
"""Is told the entries of a folder."""


class Output(NamedTuple):
    """One output file: its bytes, or an open descriptor of a regular file that the taker closes."""

    path: str
    data: bytes
    fd: int = -1
    source: str = ""
    """Instead of content: the stand-in that it is a copy of, `input/path`."""


def output_path(name: object) -> str:
    """Check and normalise the name of an output file.

    Returns
    -------
    str
        NFC, without slashes at the ends.

    Raises
    ------
    UserCodeError
        It is no text, or breaks a rule of `storage.paths`.

    Examples
    --------
    >>> output_path("/a/b.json")
    'a/b.json'
    """
    if isinstance(name, os.PathLike):
        name = os.fspath(name)
    if not isinstance(name, str):
        raise UserCodeError(f"output names must be text, got {name!r} ({type(name).__name__})", code=ErrorCode.BAD_PATH)
    try:
        return normalize_path(name).decode()
    except InvalidInputError as err:
        raise UserCodeError(f"output {err.message}", code=ErrorCode.BAD_PATH) from err


class Names:
    """The output names of one datum: no two alike, no file where another needs a folder."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def add(self, name: object) -> str:
        """Return the checked path of one more file; raise `UserCodeError` if it clashes."""
        path = output_path(name)
        if path in self._files:
            raise UserCodeError(
                f"two outputs have the name {path!r}: {self._files[path]!r} and {name!r}",
                code=ErrorCode.OUTPUT_CONFLICT,
            )
        if path in self._folders:
            raise UserCodeError(
                f"output {path!r} is a file, but {self._folders[path]!r} needs a folder there",
                code=ErrorCode.OUTPUT_CONFLICT,
            )
        new: list[str] = []
        cut = path.rfind("/")
        while cut > 0:
            folder = path[:cut]
            if folder in self._files:
                raise UserCodeError(
                    f"output {folder!r} is a file, but {path!r} needs a folder there", code=ErrorCode.OUTPUT_CONFLICT
                )
            if folder in self._folders:
                break
            new.append(folder)
            cut = path.rfind("/", 0, cut)
        self._folders.update(dict.fromkeys(new, path))
        self._files[path] = str(name)
        return path


def open_output(path: str, name: str, stands: Mapping[str, str] = {}) -> Output:
    """Read a small file, open a large one. `path` may be a link; it must lead to a regular file, or to a stand-in."""
    for stand, folder in stands.items():
        real, root = os.path.realpath(path), os.path.realpath(folder)
        if real.startswith(f"{root}/"):
            return Output(name, b"", source=f"{stand}/{real.removeprefix(root).lstrip('/')}")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if os.path.islink(path):
            raise UserCodeError(
                f"output {name!r} is a link to {os.readlink(path)!r}, which does not exist", code=ErrorCode.BAD_PATH
            ) from None
        raise UserCodeError(f"output {name!r}: there is no file {path!r}", code=ErrorCode.BAD_PATH) from None
    except OSError as err:
        raise UserCodeError(f"output {name!r} cannot be read: {err.strerror}", code=ErrorCode.BAD_PATH) from err
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise UserCodeError(
                f"output {name!r} is {_kind(status.st_mode)}; only files can be outputs", code=ErrorCode.BAD_PATH
            )
        size = status.st_size
        if size >= INLINE_MAX_BYTES:
            taken, fd = fd, -1
            return Output(name, b"", taken)
        data = os.read(fd, size + 1)
        if len(data) != size:
            # It grew, or is one of those that do not tell their size.
            with open(fd, "rb", buffering=0, closefd=False) as file:
                data += file.readall()
        return Output(name, data)
    finally:
        if fd >= 0:
            os.close(fd)


def _kind(mode: int) -> str:
    names = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((text for test, text in names if test(mode)), "a device")


def collect_folder(
    folder: str,
    real: Callable[[str], str] | None = None,
    *,
    stands: Mapping[str, str] = {},
    listed: Listed | None = None,
) -> Iterator[Output]:
    """Yield the files below `folder`, sorted by path. Links are followed; empty folders are lost.

    Parameters
    ----------
    real
        Where a link made elsewhere (in a container) leads to here, given its text.
    stands
        Inputs whose files stand for content that is not there: name to folder.
    listed
        Is told what is in `folder` itself before any of it is yielded.

    Raises
    ------
    UserCodeError
        A link leads nowhere or in a circle, a name is no UTF-8, or something is neither file nor folder.
    """
    entries = _list(folder)
    if listed is not None:
        listed(folder, entries)
    if len(entries) == 1 and entries[0].is_file(follow_symlinks=False):
        return _one(entries[0], stands)
    return _walk(entries, folder, "", Names(), (folder,), False, real, stands)


def _one(entry: os.DirEntry[str], stands: Mapping[str, str]) -> Iterator[Output]:
    """The only file: its name clashes with no other."""
    yield open_output(entry.path, output_path(entry.name), stands)


def _list(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        listed = list(entries)
    if len(listed) > 1:
        listed.sort(key=lambda entry: os.fsencode(entry.name))
    return listed


def _walk(
    entries: list[os.DirEntry[str]],
    folder: str,
    prefix: str,
    names: Names,
    above: tuple[str, ...],
    linked: bool,
    real: Callable[[str], str] | None,
    stands: Mapping[str, str],
) -> Iterator[Output]:
    """Everything in a folder; `above`: it and those that led to it; `linked`: one of them was a link."""
    for entry in entries:
        name, place, by_link = prefix + entry.name, entry.path, entry.is_symlink()
        if by_link and real is not None:
            place = real(os.readlink(place))
            place = place if place.startswith("/") else os.path.join(folder, place)
        if not (os.path.isdir(place) if by_link else entry.is_dir()):
            yield open_output(place, names.add(name), stands)
            continue
        # Without links a folder is never inside itself.
        if (linked or by_link) and os.path.realpath(place) in map(os.path.realpath, above):
            raise UserCodeError(f"output {name!r} is a link to a folder above it", code=ErrorCode.BAD_PATH)
        yield from _walk(_list(place), place, name + "/", names, (*above, place), linked or by_link, real, stands)


def collect_files(result: object, stands: Mapping[str, str] = {}) -> Iterator[Output]:
    """Yield the files of a returned mapping of names to bytes, text or paths, sorted by path.

    Raises
    ------
    UserCodeError
        It is no mapping, or a name or a content is none.
    """
    # The second asks an abstract class, which costs more than all the rest for one small file.
    if not isinstance(result, dict) and not isinstance(result, Mapping):
        raise UserCodeError(
            f"it returned {_type(result)}; expected files: a mapping of path to bytes, str or Path (dml.Files)"
        )
    # One name clashes with no other.
    check = Names().add if len(result) > 1 else output_path
    files: dict[str, Any] = {check(name): content for name, content in result.items()}
    for path in sorted(files, key=str.encode) if len(files) > 1 else files:
        content = files[path]
        if isinstance(content, bytes):
            yield Output(path, content)
        elif isinstance(content, str):
            yield Output(path, content.encode())
        elif isinstance(content, bytearray | memoryview):
            yield Output(path, bytes(content))
        elif isinstance(content, Path):
            yield open_output(str(content), path, stands)
        else:
            raise UserCodeError(f"file {path!r} is {_type(content)}; expected bytes, str or Path")


def _type(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
