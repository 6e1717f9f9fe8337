"""Content on its way out of a store into local files, many at a time, by several processes where that is safe.

A file appears whole, in the place of what was there: it is written beside its place and renamed. A folder that was not
there appears whole, too, as far as one process writes it. What a killed process left under such a name, the next one
that writes into the same folders removes.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from ..digest import Data, Digest
from ..errors import BackendError, CorruptError, DmlpipeError, ErrorCode, InvalidInputError
from ..forked import MAX_UNITS, process_count, share_work
from ..leftovers import remove_leftovers, temporary_name
from ..objects.content import Content
from ..objects.value import PACK_BELOW_BYTES, External, Inline, Sizes, Value, Whole, decode_value
from ..paths import PATH_MAX_BYTES, normalize_path

_FILES_PER_UNIT = 1000
_FILES_PER_PROCESS = 2000
_UNIT_BYTES = 32 << 20
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def write_file(objects: Content, value: Value, file: Path) -> None:
    """Write one file.

    Raises
    ------
    BackendError
        It cannot be written.
    """
    remove_leftovers([str(file.parent)])
    _write_one(objects, value, str(file))


def _write_one(objects: Content, value: Value, file: str) -> None:
    _replace(file, lambda temporary: objects.copy_to(value, Path(temporary)))


def write_files(objects: Content, target: Path, files: Sequence[tuple[bytes, bytes]]) -> None:
    """Write files below the folder `target`.

    Parameters
    ----------
    objects
        Where the content is.
    target
        An existing folder.
    files
        Path below `target`, and the encoded value of what the file holds; sorted by path.

    Raises
    ------
    CorruptError
        A path cannot be: somebody forged the tree.
    BackendError
        A file cannot be written.
    """
    asked = len(files)
    remove_leftovers(_folders(str(target), [path for path, _ in files]))
    units = _plan_units(files)
    if files:
        objects.expect(decode_value(files[0][1]), asked)

    def work(numbers: Iterator[int]) -> None:
        with _FolderWriter() as writer:
            for number in numbers:
                part = files[slice(*units[number])]
                _write_unit(objects, writer, part, _places(str(target), [path for path, _ in part]), asked)

    local = objects.backend.properties.path is not None
    share_work(work, len(units), process_count(min(asked // _FILES_PER_PROCESS, len(units))) if local else 1)


def _folders(target: str, paths: Sequence[bytes]) -> list[str]:
    """Return the folders below `target` that are written to or made in, itself first; none of an empty one."""
    with os.scandir(target) as listing:
        if next(listing, None) is None:
            return []
    found = {b""}
    for folder in {path.rpartition(b"/")[0] for path in paths}:
        while folder not in found:
            found.add(folder)
            folder = folder.rpartition(b"/")[0]
    return [target, *(place for name in sorted(found - {b""}) for place in _places(target, [name]))]


def _write_unit(
    objects: Content, writer: _FolderWriter, files: Sequence[tuple[bytes, bytes]], places: Sequence[str], asked: int
) -> None:
    sizes: dict[Digest, int] = {}
    wanted: dict[Digest, list[str]] = {}
    others: list[tuple[Value, str]] = []
    for (_, raw), place in zip(files, places, strict=True):
        value = decode_value(raw)
        if isinstance(value, Whole) and value.size < PACK_BELOW_BYTES:
            sizes[Digest(value.hash)] = value.size
            wanted.setdefault(Digest(value.hash), []).append(place)
        elif isinstance(value, Inline):
            writer.write(place, value.data)
        else:
            others.append((value, place))
    for name, data in objects.each_blob(sizes, asked=asked):
        for place in wanted[name]:
            writer.write(place, data)
    for value, place in others:
        writer.make(place.rpartition("/")[0])
        _write_one(objects, value, place)


def _plan_units(files: Sequence[tuple[bytes, bytes]]) -> list[tuple[int, int]]:
    """Cut files into ranges that are read together; at the border of a folder, if there is one."""
    paths, values, sizes = [path for path, _ in files], [value for _, value in files], Sizes()
    most = max(_FILES_PER_UNIT, len(values) // (MAX_UNITS // 4))
    units: list[tuple[int, int]] = []
    start = 0
    while start < len(values):
        stop = min(start + most, len(values))
        if stop < len(values):
            begins = bisect_left(paths, paths[stop].rpartition(b"/")[0] + b"/", start, stop)
            stop = begins if begins > start else stop
        if stop - start <= _UNIT_BYTES // PACK_BELOW_BYTES or sizes.sum(values[start:stop]) <= _UNIT_BYTES:
            units.append((start, stop))
        else:
            units += _cut_unit(values, start, stop)
        start = stop
    return units


def _cut_unit(values: Sequence[bytes], start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield ranges whose packed content stays within `_UNIT_BYTES`."""
    size = 0
    for number in range(start, stop):
        value = decode_value(values[number])
        mine = value.size if value.size < PACK_BELOW_BYTES and not isinstance(value, External) else 0
        if number > start and size + mine > _UNIT_BYTES:
            yield start, number
            start, size = number, 0
        size += mine
    yield start, stop


def _places(folder: str, paths: Sequence[bytes]) -> list[str]:
    """Return the local files that stand for the paths of a tree below a folder."""
    # A tree that dmlpipe wrote has such names only; one that somebody forged must not write elsewhere. All of them are
    # looked at together; if there is anything to see, one by one.
    joined = b"\n".join([b"", *paths, b""])
    strange = not joined.isascii() or any(
        text in joined for text in (b"/.", b"\n.", b"//", b"\n/", b"/\n", b"\0", b"\n\n")
    )
    if strange or joined.count(b"\n") != len(paths) + 1 or max(map(len, paths), default=0) > PATH_MAX_BYTES:
        return [_place(folder, path) for path in paths]
    return [f"{folder}/{path}" for path in joined.decode().split("\n")[1:-1]]


def _place(folder: str, path: bytes) -> str:
    try:
        return f"{folder}/{os.fsdecode(normalize_path(path))}"
    except InvalidInputError as error:
        raise CorruptError(f"the commit holds a path that cannot be: {error}") from error


class _FolderWriter:
    """Writes small files: fastest many of one folder in a row. For one thread.

    A folder that is not there is written under another name and appears with all that was written in a row; in one that
    is, each file appears whole, in the place of what was there.
    """

    def __init__(self) -> None:
        self._folder: str | None = None
        self._fd = -1
        self._temporary = temporary_name()
        self._aside = ""
        """Where what is to be in the folder is; empty: in the folder itself."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._close()
            if self._aside:
                import shutil  # `put` imports this module, too

                shutil.rmtree(self._aside, ignore_errors=True)

    def make(self, folder: str) -> None:
        """Let a folder be there, with what was written into it."""
        try:
            self._finish()
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from error

    def write(self, file: str, data: Data) -> None:
        """Write one file."""
        folder, _, name = file.rpartition("/")
        try:
            if folder != self._folder:
                self._finish()
                self._open(folder)
            at = self._fd
            to = name if self._aside else self._temporary
            try:
                fd = os.open(to, _FILE_FLAGS, 0o666, dir_fd=at)
                try:
                    done = os.write(fd, data)
                    while done < len(data):
                        done += os.write(fd, memoryview(data)[done:])
                finally:
                    os.close(fd)
                if not self._aside:
                    os.rename(to, name, src_dir_fd=at, dst_dir_fd=at)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(to, dir_fd=at)
                raise
        except OSError as error:
            raise _unwritable(file, error) from error

    def _open(self, folder: str) -> None:
        try:
            self._fd = os.open(folder or "/", _FOLDER_FLAGS)
        except FileNotFoundError:
            above = folder.rpartition("/")[0]
            os.makedirs(above or "/", exist_ok=True)
            aside = f"{above}/{self._temporary}"
            os.mkdir(aside)
            self._aside = aside
            self._fd = os.open(aside, _FOLDER_FLAGS)
        self._folder = folder

    def _finish(self) -> None:
        """Let the folder that is being written appear."""
        if self._aside and self._folder is not None:
            try:
                os.rename(self._aside, self._folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                # Somebody else made it meanwhile: another process that writes other files of it.
                for name in os.listdir(self._aside):
                    os.rename(f"{self._aside}/{name}", f"{self._folder}/{name}")
                os.rmdir(self._aside)
            self._aside = ""
        self._close()
        self._folder = None

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _replace(file: str, fill: Callable[[str], None]) -> None:
    temporary = f"{file.rpartition('/')[0] or '.'}/{temporary_name()}"
    try:
        try:
            fill(temporary)
            os.rename(temporary, file)
        except BaseException:
            if os.path.lexists(temporary):
                os.unlink(temporary)
            raise
    except DmlpipeError:
        raise
    except OSError as error:
        raise _unwritable(file, error) from error


def _unwritable(file: str, error: OSError) -> BackendError:
    return BackendError(
        f"cannot write {file}: {error.strerror or error}",
        code=ErrorCode.DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else ErrorCode.PERMISSION,
    )
