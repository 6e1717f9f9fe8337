"""Content on its way out of a store into local files, many at a time, by several processes where that is safe.

A file appears whole, in the place of what was there: it is written beside its place and renamed.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..errors import BackendError, CorruptError, DmlpipeError, ErrorCode, InvalidInputError
from ..forked import MAX_UNITS, process_count, share_work
from ..objects.content import Content
from ..objects.value import PACK_BELOW_BYTES, External, Value
from ..paths import PATH_MAX_BYTES, normalize_path

_FILES_PER_UNIT = 1000
_FILES_PER_PROCESS = 2000
_UNIT_BYTES = 32 << 20

_serial = itertools.count()


def write_file(objects: Content, value: Value, file: Path) -> None:
    """Write one file.

    Raises
    ------
    BackendError
        It cannot be written.
    """
    _replace(str(file), lambda temporary: objects.copy_to(value, Path(temporary)))


def write_files(objects: Content, target: Path, files: Sequence[tuple[bytes, Value]]) -> None:
    """Write files below the folder `target`.

    Parameters
    ----------
    objects
        Where the content is.
    target
        An existing folder.
    files
        Path below `target`, and what the file holds; sorted by path.

    Raises
    ------
    CorruptError
        A path cannot be: somebody forged the tree.
    BackendError
        A file cannot be written.
    """
    places = [_place(str(target), path) for path, _ in files]
    try:
        for folder in dict.fromkeys(place.rpartition("/")[0] for place in places):
            os.makedirs(folder or "/", exist_ok=True)
    except OSError as error:
        raise _unwritable(str(error.filename), error) from error
    units = _plan_units([value for _, value in files])
    asked = len(files)

    def work(numbers: Iterator[int]) -> int:
        done = 0
        for number in numbers:
            start, stop = units[number]
            part = [(value, places[start + place]) for place, (_, value) in enumerate(files[start:stop])]
            small = [(value, place) for value, place in part if _is_small(value)]
            for (_, place), data in zip(
                small, objects.read_many([value for value, _ in small], asked=asked), strict=True
            ):
                _write(place, data)
            for value, place in part:
                if not _is_small(value):
                    write_file(objects, value, Path(place))
            done += stop - start
        return done

    local = objects.backend.properties.path is not None
    share_work(work, len(units), process_count(min(asked // _FILES_PER_PROCESS, len(units))) if local else 1)


def _plan_units(values: Sequence[Value]) -> list[tuple[int, int]]:
    """Cut a run of values into ranges that are read together."""
    most = max(_FILES_PER_UNIT, len(values) // (MAX_UNITS // 4))
    units: list[tuple[int, int]] = []
    start = size = 0
    for number, value in enumerate(values):
        mine = value.size if _is_small(value) else 0
        if number > start and (number - start >= most or size + mine > _UNIT_BYTES):
            units.append((start, number))
            start, size = number, 0
        size += mine
    if start < len(values):
        units.append((start, len(values)))
    return units


def _is_small(value: Value) -> bool:
    return value.size < PACK_BELOW_BYTES and not isinstance(value, External)


def _place(folder: str, path: bytes) -> str:
    # A tree that dmlpipe wrote has such names only; one that somebody forged must not write elsewhere.
    plain = path.isascii() and not path.startswith(b"/") and b"/." not in path and not path.startswith(b".")
    if plain and b"//" not in path and b"\0" not in path and 0 < len(path) <= PATH_MAX_BYTES and path[-1:] != b"/":
        return f"{folder}/{path.decode()}"
    try:
        return f"{folder}/{os.fsdecode(normalize_path(path))}"
    except InvalidInputError as error:
        raise CorruptError(f"the commit holds a path that cannot be: {error}") from error


def _write(file: str, data: bytes) -> None:
    def fill(temporary: str) -> None:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            done = os.write(fd, data)
            while done < len(data):
                done += os.write(fd, memoryview(data)[done:])
        finally:
            os.close(fd)

    _replace(file, fill)


def _replace(file: str, fill: Callable[[str], None]) -> None:
    temporary = f"{file.rpartition('/')[0] or '.'}/.tmp-{os.getpid()}-{next(_serial)}"
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
