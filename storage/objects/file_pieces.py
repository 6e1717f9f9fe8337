"""A file's content in pieces, as it is stored: holes are not read, and a file that changes meanwhile is refused.

A piece that lies in a hole of a sparse file is one shared object of zeros, whose hash is computed once; on the way back
it becomes a hole again. So a disk image of a terabyte with a megabyte in it costs that megabyte.

Up to 16 MiB a file is one part. A larger one is cut at each 16 MiB, or by what it holds (`cutting`); either way at most
two such parts are in memory.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from ..digest import Data, Digest, digest
from ..errors import ConflictError
from .cutting import ContentDefined
from .value import WHOLE_MAX_BYTES

_BLOCK_BYTES = 8 << 20
_HOLE_FROM_BYTES = 64 << 10


_zeros: dict[int, bytes] = {}


def zero_piece(size: int = WHOLE_MAX_BYTES) -> bytes:
    """Return a piece of zeros: always the same object, of which the system sets no memory aside."""
    found = _zeros.get(size)
    return found if found is not None else _zeros.setdefault(size, bytes(size))


@functools.cache
def zero_digest(size: int = WHOLE_MAX_BYTES) -> Digest:
    """Return the hash of `zero_piece`."""
    return digest(zero_piece(size))


def piece_digest(piece: bytes) -> Digest:
    """Return the hash of a piece."""
    return zero_digest(len(piece)) if piece is _zeros.get(len(piece)) else digest(piece)


def read_pieces(source: int | BinaryIO, cutting: ContentDefined | None = None) -> Iterator[bytes]:
    """Yield the rest of a file in parts: all of it, or pieces.

    Parameters
    ----------
    source
        A descriptor, or a binary file.
    cutting
        How a store cuts large files by what they hold; None: at each 16 MiB.

    Raises
    ------
    InvalidInputError
        The library that cuts is not installed (code ``unsupported``).
    """
    if cutting is None:
        yield from _read_fixed(source)
        return
    begun = _read_block(source, WHOLE_MAX_BYTES + 1)
    if len(begun) > WHOLE_MAX_BYTES:
        yield from _cut(source, begun, cutting)
    elif begun:
        yield begun


def split(data: Data, cutting: ContentDefined | None = None) -> Iterator[bytes]:
    """Yield the pieces of content that is more than one object may hold; see `read_pieces`."""
    view, at = memoryview(data), 0
    lengths = itertools.repeat(WHOLE_MAX_BYTES) if cutting is None else cutting.cuts(data)
    while at < len(view):
        length = next(lengths)
        yield bytes(view[at : at + length])
        at += length


def _cut(source: int | BinaryIO, waiting: bytes, cutting: ContentDefined) -> Iterator[bytes]:
    """Yield the pieces of a file, of which `waiting` was read."""
    status = os.fstat(source) if isinstance(source, int) else None
    sparse = status is not None and status.st_blocks * 512 < status.st_size
    ended = False
    while waiting or not ended:
        view, at = memoryview(waiting), 0
        for length in cutting.cuts(view):
            if not ended and len(view) - at < cutting.max:
                break  # where it ends depends on what comes
            yield waiting[at : at + length]
            at += length
        waiting = waiting[at:]
        if sparse and isinstance(source, int) and status is not None and not ended:
            zeros = cutting.zero_length()
            skipped = _skip_zeros(source, len(waiting), status.st_size, cutting)
            if skipped:
                waiting = b""
                yield from itertools.repeat(zero_piece(zeros), skipped)
        if not ended:
            block = _read_block(source, _BLOCK_BYTES)
            ended = len(block) < _BLOCK_BYTES
            waiting += block


def _skip_zeros(fd: int, waiting: int, size: int, cutting: ContentDefined) -> int:
    """Pass over pieces that lie in a hole of a file; return how many.

    Parameters
    ----------
    fd
        Its position is `waiting` bytes behind where the next piece begins; afterwards, unless the result is 0, it is
        where the next one begins.
    waiting, size
        Bytes that were read and not cut; bytes of the file.
    cutting
        How it is cut.
    """
    here = os.lseek(fd, 0, os.SEEK_CUR)
    start = here - waiting
    count = max(0, _next_data(fd, start, size) - start - cutting.max) // cutting.zero_length()
    os.lseek(fd, start + count * cutting.zero_length() if count else here, os.SEEK_SET)
    return count


def _read_block(source: int | BinaryIO, size: int) -> bytes:
    """Read so much, or what is left."""
    parts: list[bytes] = []
    missing = size
    ask = _ask(source, size)
    while missing and (part := os.read(source, min(ask, missing)) if isinstance(source, int) else source.read(missing)):
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _read_fixed(source: int | BinaryIO) -> Iterator[bytes]:
    """Yield the rest of a file in parts of one piece each, but for the last."""
    status = os.fstat(source) if isinstance(source, int) else None
    ask = _ask(source, WHOLE_MAX_BYTES)
    sparse = status is not None and status.st_blocks * 512 < status.st_size
    while True:
        if sparse and isinstance(source, int) and status is not None and _skip_hole(source, status.st_size):
            yield zero_piece()
            continue
        parts: list[bytes] = []
        missing = WHOLE_MAX_BYTES
        while missing:
            part = os.read(source, min(ask, missing)) if isinstance(source, int) else source.read(missing)
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        if parts:
            yield parts[0] if len(parts) == 1 else b"".join(parts)
        if missing:
            return


def _ask(source: int | BinaryIO, most: int) -> int:
    """Return how much to ask for at a time: a read sets it aside, and where a small file is that need be no 16 MiB."""
    return max(min(most, os.fstat(source).st_size + 1), 1 << 16) if isinstance(source, int) else most


def _skip_hole(fd: int, size: int) -> bool:
    """Whether the next piece lies in a hole; then it is passed over."""
    here = os.lseek(fd, 0, os.SEEK_CUR)
    hole = is_hole(fd, here, size)
    os.lseek(fd, here + WHOLE_MAX_BYTES if hole else here, os.SEEK_SET)
    return hole


def is_hole(fd: int, here: int, size: int) -> bool:
    """Whether the whole piece that begins at `here` lies in a hole of a file of `size` bytes. Moves the position."""
    return here + WHOLE_MAX_BYTES <= size and _next_data(fd, here, size) >= here + WHOLE_MAX_BYTES


def _next_data(fd: int, here: int, size: int) -> int:
    """Return where data begins at or behind `here`; where there is none, the file's size. Moves the position."""
    try:
        return os.lseek(fd, here, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:  # not: no data up to the end
            raise
        return size


def write_piece(file: BinaryIO, piece: bytes) -> None:
    """Write a piece at a new file's position; zeros leave a hole. Afterwards `end_file` sets the length."""
    if piece is _zeros.get(len(piece)) or _is_zero(piece):
        file.seek(len(piece), os.SEEK_CUR)
    else:
        file.write(piece)


def _is_zero(piece: bytes) -> bool:
    """Whether a piece is worth a hole."""
    return len(piece) >= _HOLE_FROM_BYTES and not piece[0] and not piece[-1] and piece.count(0) == len(piece)


def end_file(file: BinaryIO, size: int) -> None:
    """Give a file that `write_piece` wrote its length, though it may end in a hole."""
    file.flush()
    os.ftruncate(file.fileno(), size)


@contextmanager
def unchanged(fd: int, name: str) -> Iterator[None]:
    """Refuse a file that somebody writes to while the block reads it.

    Raises
    ------
    ConflictError
        Its size or a time of its changed.
    """
    before = _version(fd)
    yield
    if _version(fd) != before:
        raise ConflictError(
            f"{name} changed while it was read: what was read may be neither its old nor its new content",
            hint="put it when nobody writes to it, or put a copy",
        )


def _version(fd: int) -> tuple[int, int, int]:
    status = os.fstat(fd)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
