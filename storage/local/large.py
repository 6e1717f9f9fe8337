"""Large local files: read in pieces by several threads, each with a buffer of its own.

Reading, hashing and writing let other threads run, so a file is as fast as the cores, and memory stays at a piece a
thread whatever the file's size.

What a piece is called is known when all of it was read. Where the store most likely lacks it, it goes to a draft of the
object a block at a time, each while it is in the processor's cache; else it is held in memory until it is hashed.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures

from ..backend import Draft
from ..digest import Digest, digest, digest_parts
from ..errors import DmlpipeError, ErrorCode, InvalidInputError
from ..objects.compression import SAMPLE_BYTES, own_compressor, sample_places
from ..objects.content import Piece, encode_manifest
from ..objects.cutting import ContentDefined
from ..objects.file_pieces import is_hole, piece_digest, read_pieces, zero_digest, zero_piece
from ..objects.value import PACK_BELOW_BYTES, WHOLE_MAX_BYTES, Pieces, Value, Whole, encode_value
from ..objects.writer import ObjectWriter
from .reading import changing, is_same, unreadable

_THREADS_MAX = 4
_BLOCK_BYTES = 256 << 10


class LargeReader:
    """Reads files that are too large to stand with others in a pack.

    Parameters
    ----------
    writer
        Stores what is read; None: it is hashed and nothing else.
    beat
        Called now and then.
    cutting
        How the store cuts large files by what they hold; None: at each 16 MiB.
    foresee
        Called with the bytes of all files before any is read.
    """

    def __init__(
        self,
        writer: ObjectWriter | None,
        beat: Callable[[], None],
        cutting: ContentDefined | None = None,
        foresee: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._writer = writer
        self._beat = beat
        self._cutting = cutting
        self._foresee = foresee
        self._local = threading.local()

    def read(self, files: Sequence[str]) -> list[tuple[bytes, os.stat_result]]:
        """Return the encoded value of each file, and the stat that it had.

        Raises
        ------
        InvalidInputError
            One cannot be read.
        ConflictError
            One changes meanwhile.
        """
        if not files:
            return []
        before = [_look(file) for file in files]
        for file, status in zip(files, before, strict=True):
            if status.st_size < PACK_BELOW_BYTES:
                raise changing(file)  # it was larger when it was listed
        self._foresee(sum(status.st_size for status in before))
        # What is cut by its content is read from its beginning: a thread for each file, not for each piece.
        units = [
            (file, start, status)
            for file, status in zip(files, before, strict=True)
            for start in ((0,) if self._is_cut(status) else range(0, max(status.st_size, 1), WHOLE_MAX_BYTES))
        ]
        threads = min(_THREADS_MAX, len(units), (os.cpu_count() or 1) + 1)
        with futures.ThreadPoolExecutor(threads, thread_name_prefix="dmlpipe-read") as pool:
            try:
                pieces = iter(list(pool.map(self._read_unit, units)))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        found: list[tuple[bytes, os.stat_result]] = []
        for file, status in zip(files, before, strict=True):
            if not is_same(status, _look(file)):
                raise changing(file)
            mine = list(next(pieces))
            while sum(piece.size for piece in mine) < status.st_size:
                mine += next(pieces)
            found.append((encode_value(self._join(mine)), status))
        return found

    def _is_cut(self, status: os.stat_result) -> bool:
        return self._cutting is not None and status.st_size > WHOLE_MAX_BYTES

    def _read_unit(self, unit: tuple[str, int, os.stat_result]) -> list[Piece]:
        return self._cut(unit[0], unit[2].st_size) if self._is_cut(unit[2]) else [self._read_piece(unit)]

    def _cut(self, file: str, size: int) -> list[Piece]:
        pieces: list[Piece] = []
        try:
            with open(file, "rb", buffering=0) as stream:
                for part in read_pieces(stream.fileno(), self._cutting):
                    self._beat()
                    name = piece_digest(part)
                    pieces.append(Piece(self._writer.add_piece(part, name) if self._writer else name, len(part)))
        except DmlpipeError:
            raise
        except OSError as error:
            raise unreadable(file, error) from error
        if sum(piece.size for piece in pieces) != size:
            raise changing(file)
        return pieces

    def _read_piece(self, unit: tuple[str, int, os.stat_result]) -> Piece:
        file, start, status = unit
        length = min(WHOLE_MAX_BYTES, status.st_size - start)
        self._beat()
        try:
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if status.st_blocks * 512 < status.st_size and is_hole(fd, start, status.st_size):
                    if self._writer is not None:
                        self._writer.add_blob(zero_piece(), zero_digest())
                    return Piece(zero_digest(), length)
                return Piece(self._take(file, fd, start, length), length)
            finally:
                os.close(fd)
        except DmlpipeError:
            raise
        except OSError as error:
            raise unreadable(file, error) from error

    def _take(self, file: str, fd: int, start: int, length: int) -> Digest:
        """Read a piece, store it if there is a writer, and return its hash."""
        if self._writer is None:
            return digest_parts(self._read_blocks(file, fd, start, length))
        if length < PACK_BELOW_BYTES:
            held = self._hold(length)
            return self._writer.add_blob(held, digest_parts(_fill_blocks(file, fd, start, held)))
        backend = self._writer.backend
        clone = backend.clone_in(fd, start, length)
        draft = backend.draft() if clone is None and self._is_likely_new(fd, start, length) else clone
        try:
            if draft is not None and clone is None:
                name = digest_parts(self._read_blocks(file, fd, start, length, draft))
                self._local.new = self._writer.add_large(name, None, draft)
            else:
                held = self._hold(length)
                # A clone stays as it is while it is read, hashed and stored.
                source, at = (fd, start) if clone is None else (clone.fd, 0)
                name = digest_parts(_fill_blocks(file, source, at, held))
                self._local.new = self._writer.add_large(name, held, clone)
        finally:
            if draft is not None:
                draft.drop()
        return name

    def _is_likely_new(self, fd: int, start: int, length: int) -> bool:
        """Whether a piece most likely becomes an object: the one before it did, and it seems not to compress."""
        if not getattr(self._local, "new", False):
            return False
        samples = [os.pread(fd, SAMPLE_BYTES, start + place) for place in sample_places(length)]
        return not own_compressor().samples_pay(samples)

    def _read_blocks(
        self, file: str, fd: int, start: int, length: int, draft: Draft | None = None
    ) -> Iterator[memoryview]:
        """Read a part of a file; yield each block of it, which then is added to the draft."""
        block: memoryview | None = getattr(self._local, "block", None)
        if block is None:
            block = self._local.block = memoryview(bytearray(_BLOCK_BYTES))
        for at in range(0, length, _BLOCK_BYTES):
            part = block[: min(_BLOCK_BYTES, length - at)]
            _fill(file, fd, start + at, part)
            yield part
            if draft is not None:
                draft.write(part)

    def _hold(self, length: int) -> memoryview:
        """Return room for a piece."""
        buffer: bytearray | None = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = bytearray(WHOLE_MAX_BYTES)
        return memoryview(buffer)[:length]

    def _join(self, pieces: Sequence[Piece]) -> Value:
        if len(pieces) == 1:
            return Whole(pieces[0].size, pieces[0].hash)
        if self._writer is not None:
            return self._writer.join(pieces)
        return Pieces(sum(piece.size for piece in pieces), digest(encode_manifest(pieces)))


def _fill_blocks(file: str, fd: int, start: int, view: memoryview) -> Iterator[memoryview]:
    """Fill a buffer from a file; yield each block of it that has been filled."""
    for at in range(0, len(view), _BLOCK_BYTES):
        block = view[at : at + _BLOCK_BYTES]
        _fill(file, fd, start + at, block)
        yield block


def _fill(file: str, fd: int, start: int, view: memoryview) -> None:
    """Fill a buffer from a file.

    Raises
    ------
    ConflictError
        It ends before.
    """
    done = 0
    while done < len(view):
        got = os.preadv(fd, [view[done:]], start + done)
        if not got:
            raise changing(file)
        done += got


def _look(file: str) -> os.stat_result:
    try:
        status = os.stat(file)
    except OSError as error:
        raise unreadable(file, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise InvalidInputError(f"{file} is no plain file any more", code=ErrorCode.BAD_PATH)
    return status
