"""Reading local files, a folder's at a time: their values, and the stats that they had.

Each file is looked at after it was read. What had not changed for a tick of the clock before the reading began and has
the size that was read is whole; anything else is read again, between two looks that must agree. A file that keeps
changing is refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import add
from typing import NamedTuple

import msgspec
from blake3 import blake3

from ..digest import DIGEST_SIZE
from ..errors import ConflictError, ErrorCode, InvalidInputError
from ..objects.value import INLINE_MAX_BYTES, PACK_BELOW_BYTES, Inline, Whole, encode_value
from .packer import BATCH_MAX, Packer
from .stats import COARSE_TICK_NS, SECOND_NS, TICK_NS, differing, pack_stats, replace

# A FIFO that took a file's place since it was listed must not hold up the opening.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0)
_TRIES = 3

LARGE = b""
"""Stands for the value of a file that is too large for a pack."""


class Part(NamedTuple):
    """Files of one folder."""

    local: str
    names: Sequence[str]
    stats: bytes
    """What they had when they were last read, `STAT_BYTES` each; empty: nothing is known."""
    values: Sequence[bytes]


class ReadPart(msgspec.Struct, array_like=True):
    """What files hold, in the order of their names."""

    values: list[bytes]
    """Encoded; `LARGE` where they are yet to be read."""
    stats: bytes


UNCHANGED = ReadPart([], b"")
"""Says that all is as it was: what is known of the part need not travel between processes."""


class PartReader:
    """Reads small files. For one thread.

    Parameters
    ----------
    packer
        Where their content goes; None: it is hashed and nothing else.
    began_ns
        When reading began, by the clock of file systems.
    """

    def __init__(self, packer: Packer | None, began_ns: int) -> None:
        self._packer = packer
        self._view = packer.view if packer is not None else memoryview(bytearray(2 * PACK_BELOW_BYTES))
        self._fresh_ns = began_ns - TICK_NS
        self._maybe_fresh_ns = began_ns - COARSE_TICK_NS
        self._heads = _Heads()

    def read(self, part: Part) -> ReadPart:
        """Read the files that are not as they were; return `UNCHANGED` if there are none.

        Raises
        ------
        InvalidInputError
            One cannot be read, or is no plain file any more.
        ConflictError
            One changes all the time.
        """
        if not part.stats:
            return self._read(part, range(len(part.names)))
        present = look_at(part.local, part.names)
        other = differing(present, part.stats)
        if not other:
            return UNCHANGED
        again = self._read(part, other)
        values = list(part.values)
        for place, number in enumerate(other):
            values[number] = again.values[place]
        return ReadPart(values, replace(present, other, again.stats))

    def _read(self, part: Part, numbers: Sequence[int]) -> ReadPart:
        files = [part.names[number] for number in numbers]
        values: list[bytes] = []
        found: list[os.stat_result] = []
        with _opened(part.local) as folder:
            while len(values) < len(files):
                batch = files[len(values) : len(values) + BATCH_MAX]
                self._read_batch(part.local, folder, batch, values, found)
        return ReadPart(values, pack_stats(found))

    def _read_batch(
        self, local: str, folder: int, files: Sequence[str], values: list[bytes], found: list[os.stat_result]
    ) -> None:
        """Read files until there is no room for more; add their values and stats."""
        packer, view, fresh, maybe_fresh = self._packer, self._view, self._fresh_ns, self._maybe_fresh_ns
        at, full = (packer.position, packer.full) if packer is not None else (0, PACK_BELOW_BYTES)
        names: list[bytes] = []
        sizes: list[int] = []
        odd: dict[int, bytes] = {}
        open_, readv, fstat, close = os.open, os.readv, os.fstat, os.close
        file = ""
        try:
            # For each of very many files: what can be done for all of them together stands below.
            for file in files:
                if at >= full:
                    break
                fd = open_(file, _FLAGS, dir_fd=folder)
                try:
                    size = readv(fd, [view[at : at + PACK_BELOW_BYTES]])
                    status = fstat(fd)
                    changed = status.st_ctime_ns
                    if (
                        size != status.st_size
                        or (changed >= maybe_fresh and (changed >= fresh or not changed % SECOND_NS))
                        or not size
                    ):
                        size, status = _read_again(fd, view[at : at + PACK_BELOW_BYTES], _join(local, file))
                finally:
                    close(fd)
                found.append(status)
                if INLINE_MAX_BYTES < size < PACK_BELOW_BYTES:
                    stop = at + size
                    names.append(blake3(view[at:stop]).digest())
                    sizes.append(size)
                    at = stop
                elif size <= INLINE_MAX_BYTES:
                    odd[len(names) + len(odd)] = encode_value(Inline(bytes(view[at : at + size])))
                else:
                    odd[len(names) + len(odd)] = LARGE
        except OSError as error:
            raise unreadable(_join(local, file), error) from error
        done = len(names) + len(odd)
        packed = map(add, map(self._heads.__getitem__, sizes), names)
        values += [odd[place] if place in odd else next(packed) for place in range(done)] if odd else packed
        if packer is not None and names:
            taken = [file for place, file in enumerate(files[:done]) if place not in odd] if odd else files
            packer.take(names, sizes, taken)


def look_at(local: str, names: Sequence[str]) -> bytes:
    """Return the stats of files in a folder, packed.

    Raises
    ------
    InvalidInputError
        One is gone.
    """
    with _opened(local) as folder:
        look = os.stat
        try:
            return pack_stats([look(name, dir_fd=folder) for name in names])
        except OSError as error:
            raise unreadable(_join(local, error.filename), error) from error


class _Heads(dict[int, bytes]):
    """By size: the encoded value of packed content, but for its hash, which ends it."""

    def __missing__(self, size: int) -> bytes:
        head = self[size] = encode_value(Whole(size, bytes(DIGEST_SIZE)))[:-DIGEST_SIZE]
        return head


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    """Open a folder for looking its names up."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(folder, error) from error
    try:
        yield fd
    finally:
        os.close(fd)


def _join(folder: str, file: str) -> str:
    return f"{folder.rstrip('/')}/{file}"


def _read_again(fd: int, view: memoryview, file: str) -> tuple[int, os.stat_result]:
    """Read a file between two looks that agree; of a large one nothing is read."""
    for _ in range(_TRIES):
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise InvalidInputError(f"{file} is no plain file any more", code=ErrorCode.BAD_PATH)
        if before.st_size >= PACK_BELOW_BYTES:
            return PACK_BELOW_BYTES, before
        size = 0
        while got := os.preadv(fd, [view[size:]], size):
            size += got
        after = os.fstat(fd)
        if size == after.st_size and is_same(before, after):
            return size, after
    raise changing(file)


def is_same(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether a file seems not to have changed between two looks."""
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )


def changing(file: str) -> ConflictError:
    """Return the error that says that a file changed."""
    return ConflictError(
        f"{file} changed while it was read: what was read may be neither its old nor its new content",
        hint="put it when nobody writes to it, or put a copy",
    )


def unreadable(file: str, error: OSError) -> InvalidInputError:
    """Return the error that says that a file cannot be read."""
    if isinstance(error, FileNotFoundError):
        return InvalidInputError(f"{file} is gone: it was there a moment ago", code=ErrorCode.NO_FILE)
    denied = isinstance(error, PermissionError)
    return InvalidInputError(
        f"cannot read {file}: {error.strerror or error}", code=ErrorCode.PERMISSION if denied else ErrorCode.INVALID
    )
