"""File content: stored by size, read back verified.

By size: up to 128 B in the tree itself, below 1 MiB packed, up to 16 MiB one loose object, above that pieces that a
manifest node lists. What compresses well is packed, too, as a zstd frame. A value follows from the content alone;
*where* a blob lies (which pack, or loose) is no part of it, and a reader looks in both places.

Everything that is read is checked against its hash: a range of up to 16 MiB is cut from the whole, verified blob.
"""

from __future__ import annotations

import bisect
import io
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

import msgspec

from ..backend import Backend, Draft
from ..digest import Data, Digest, digest, short
from ..errors import CorruptError, NotFoundError
from .condemned import displaced, place_for
from .cutting import ContentDefined
from .external import copy_external, open_external, read_external
from .file_pieces import end_file, write_piece, zero_digest, zero_piece
from .filling import Part
from .node import NodeStore
from .pack import CODEC_RAW, Location, PackBuilder, check_blob, unpack
from .value import PACK_BELOW_BYTES, WHOLE_MAX_BYTES, External, Inline, Pieces, Value, Whole

OBJECT_PREFIX = "objects"
MANIFEST_VERSION = 1
COALESCE_GAP_BYTES = 64 << 10
COALESCE_MAX_BYTES = 8 << 20

_PIECE_BYTES_AHEAD = 16 << 20
_PIECE_BYTES_AHEAD_REMOTE = 64 << 20
_MAX_RECENT = 64

Locate = Callable[[Digest], Location | None]
Names = Callable[[int], frozenset[bytes] | None]
LocateMany = Callable[[Sequence[Digest], int], Sequence[Location | None]]


def object_key(name: Digest) -> str:
    """Key of the loose object that holds a blob."""
    text = name.hex()
    return f"{OBJECT_PREFIX}/{text[:2]}/{text[2:]}"


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """One piece of a large file."""

    hash: bytes
    size: int


class Manifest(msgspec.Struct, frozen=True, array_like=True):
    """The pieces of a large file, in order."""

    version: int
    size: int
    pieces: tuple[Piece, ...]


def encode_manifest(pieces: Sequence[Piece]) -> bytes:
    """Return the node that lists `pieces`."""
    return msgspec.msgpack.encode(Manifest(MANIFEST_VERSION, sum(piece.size for piece in pieces), tuple(pieces)))


class Content:
    """Content of a store. Safe for use by many threads.

    Parameters
    ----------
    backend
        Where objects are.
    nodes
        Where manifests are.
    locate
        Finds a blob among the packs; may do what it takes (catch up with the ledger) before it answers None.
    known
        Like `locate`, but answers from what is at hand. Writers ask it for every small blob; without it they do not
        look for blobs that other packs hold already.
    names
        Returns the hashes of all blobs that `known` would find, or None if they are more than the number it is given.
    locate_many
        Like `known`, for many at once, and how many will be asked for in all.
    recheck
        Catches up with the ledger: called where a pack is gone that was known a moment ago.
    cutting
        How large files are cut by what they hold; None: at each 16 MiB.
    """

    def __init__(
        self,
        backend: Backend,
        nodes: NodeStore,
        *,
        locate: Locate | None = None,
        known: Locate | None = None,
        names: Names | None = None,
        locate_many: LocateMany | None = None,
        recheck: Callable[[], object] | None = None,
        cutting: ContentDefined | None = None,
    ) -> None:
        self.backend = backend
        self.cutting = cutting
        self.nodes = nodes
        self.locate: Locate = locate or _nowhere
        self.known: Locate = known or _nowhere
        self.known_names: Names = names or _no_names
        self._locate_many = locate_many
        self._recheck = recheck
        self._lock = threading.Lock()
        self._pending: tuple[PackBuilder, ...] = ()
        self._recent: tuple[Locate, ...] = ()
        self._compresses = False
        """Whether a large blob was found to be packed."""

    # --- reading ---

    def read(self, value: Value, start: int | None = None, end: int | None = None) -> bytes:
        """Return the content of `value`, or its bytes [start, end) as slicing would.

        Raises
        ------
        NotFoundError
            The store does not hold the content.
        CorruptError
            It holds something else under that name.
        """
        match value:
            case Inline(data):
                return data[start:end]
            case Whole(size, name):
                data = self.get_blob(Digest(name), size)
                return data if start is None and end is None else data[start:end]
            case Pieces(size):
                low, high, _ = slice(start, end).indices(size)
                return b"".join(self._read_pieces(value, low, high))
            case External():
                return read_external(value, start, end)

    def read_many(self, values: Sequence[Value], *, asked: int = 0) -> list[bytes]:
        """Return the content of each value, in order.

        Parameters
        ----------
        values
            What to read.
        asked
            How many values will be read in all, if this is one call of several.

        Notes
        -----
        Blobs that lie near each other in one pack are fetched as one range; all ranges are fetched together. The
        result is held in memory: ask for what fits there.
        """
        wanted: dict[Digest, int] = {}
        for value in values:
            if isinstance(value, Whole):
                wanted[Digest(value.hash)] = value.size
        blobs = self.get_blobs(wanted, asked=asked)
        return [blobs[Digest(value.hash)] if isinstance(value, Whole) else self.read(value) for value in values]

    def get_blob(self, name: Digest, size: int | None = None) -> bytes:
        """Return the blob `name`, verified.

        Parameters
        ----------
        name
            Its hash.
        size
            Its size in bytes if known: tells where to look first.
        """
        places = (self._from_pack, self._from_loose)
        for attempt in places if self._packed_first(name, size) else reversed(places):
            data = attempt(name)
            if data is not None:
                return data
        raise NotFoundError(f"blob {short(name)} is missing: no pack holds it and {object_key(name)} does not exist")

    def expect(self, value: Value, asked: int) -> None:
        """Get ready to find `asked` values, `value` among them: before processes fork that would each do so."""
        if self._locate_many is not None and isinstance(value, Whole):
            self._locate_many([Digest(value.hash)], asked)

    def get_blobs(self, sizes: Mapping[Digest, int], *, asked: int = 0) -> dict[Digest, bytes]:
        """Return blobs by hash, given their sizes in bytes; fetched together, each verified."""
        return {name: bytes(data) for name, data in self.each_blob(sizes, asked=asked)}

    def each_blob(self, sizes: Mapping[Digest, int], *, asked: int = 0) -> Iterator[tuple[Digest, Data]]:
        """Yield hash and content of blobs, given their sizes in bytes, in any order; fetched together, each verified.

        A content may be a view: it holds the bytes of all that were fetched together.
        """
        packed: list[tuple[Digest, Location]] = []
        loose: list[Digest] = []
        if self._locate_many is not None and not self._pending and not self._recent:
            small = [name for name, size in sizes.items() if _likely_packed(size)]
            places = self._locate_many(small, max(asked, len(small)))
            packed = [(name, at) for name, at in zip(small, places, strict=True) if at is not None]
        there = {name for name, _ in packed}
        for name, size in sizes.items():
            if name in there:
                continue
            pending = self._from_pending(name)
            at = self._find(name) if pending is None and self._packed_first(name, size) else None
            if pending is not None:
                yield name, pending
            elif at is not None:
                packed.append((name, at))
            else:
                loose.append(name)
        groups = plan_coalesced(packed)
        requests = [(group[0][1].key, group[0][1].offset, _end(group)) for group in groups]
        try:
            bodies = self.backend.get_many(requests) if requests else []
        except NotFoundError:
            # A pack that died or was packed anew since it was looked up: each blob finds its own way.
            for name, _ in packed:
                yield name, self.get_blob(name, sizes[name])
            groups, bodies = [], []
        for group, body in zip(groups, bodies, strict=True):
            view, base = memoryview(body), group[0][1].offset
            for name, at in group:
                start = at.offset - base
                yield name, _unpack_checked(name, at, view[start : start + at.stored])
        yield from zip(loose, self._get_loose(loose), strict=True)

    def _packed_first(self, name: Digest, size: int | None) -> bool:
        """Whether to look among the packs first: small blobs are there, and large ones that compress well."""
        if _likely_packed(size):
            return True
        # The index of a remote store may have to be fetched: not for what is most likely an object.
        look = self._compresses or not self.backend.properties.remote
        return look and self.known(name) is not None

    def _get_loose(self, names: Sequence[Digest]) -> Sequence[bytes]:
        if not names:
            return []
        try:
            bodies = self.backend.get_many([(object_key(name), None, None) for name in names])
        except NotFoundError:
            # One is packed, or missing: says which. Where one was, others may be.
            self._compresses = True
            return [self.get_blob(name, WHOLE_MAX_BYTES) for name in names]
        for name, body in zip(names, bodies, strict=True):
            check_blob(name, body, object_key(name))
        return bodies

    def get_pieces(self, pieces: Sequence[Piece]) -> Sequence[bytes]:
        """Return pieces of a large file, verified, fetched together; those of zeros are at hand."""
        zeros = {zero_digest(): zero_piece()}
        if self.cutting is not None:
            zeros[zero_digest(self.cutting.max)] = zero_piece(self.cutting.max)
        fetched = self.get_blobs({Digest(piece.hash): piece.size for piece in pieces if piece.hash not in zeros})
        found = fetched | zeros
        return [found[Digest(piece.hash)] for piece in pieces]

    def open(self, value: Value) -> BinaryIO:
        """Return `value` as a seekable binary file; of a large one only the pieces that are read are fetched."""
        if isinstance(value, Pieces):
            return io.BufferedReader(_PieceReader(self, value), 1 << 16)
        if isinstance(value, External):
            return open_external(value)
        return io.BytesIO(self.read(value))

    def copy_to(self, value: Value, path: Path) -> None:
        """Write the content of `value` to the new file `path`. On failure the file is removed.

        Raises
        ------
        FileExistsError
            There is something at `path`.
        """
        with open(path, "xb") as file:
            try:
                if isinstance(value, Pieces):
                    self._copy_pieces(value, file)
                elif isinstance(value, External):
                    copy_external(value, file)
                else:
                    data = self.read(value)
                    if not (isinstance(value, Whole) and self._clone_out(Digest(value.hash), data, file, 0)):
                        file.write(data)
            except BaseException:
                path.unlink(missing_ok=True)
                raise

    def _copy_pieces(self, value: Pieces, file: BinaryIO) -> None:
        at = 0
        for piece, part in zip(self.manifest(value).pieces, self._read_pieces(value, 0, value.size), strict=True):
            if self._clone_out(Digest(piece.hash), part, file, at):
                file.seek(at + len(part))
            else:
                write_piece(file, part)
            at += len(part)
        end_file(file, value.size)

    def _clone_out(self, name: Digest, data: bytes, file: BinaryIO, at: int) -> bool:
        """Let a blob that was read, and verified, appear in a file without a copy of its bytes."""
        if len(data) < PACK_BELOW_BYTES or data is zero_piece():
            return False
        file.flush()
        return self.backend.clone_out(object_key(name), file.fileno(), at)

    def parts(self, value: Whole | Pieces) -> list[Part]:
        """Return what a file is verified by: its pieces in order, or all of it as one."""
        if isinstance(value, Whole):
            return [Part(0, 0, value.size, Digest(value.hash))]
        found, offset = [], 0
        for number, piece in enumerate(self.manifest(value).pieces):
            found.append(Part(number, offset, piece.size, Digest(piece.hash)))
            offset += piece.size
        return found

    def read_part(self, part: Part) -> bytes:
        """Return the verified bytes of a part."""
        return self.get_blob(part.hash, part.size)

    def manifest(self, value: Pieces) -> Manifest:
        """Return the list of a large file's pieces."""
        try:
            manifest = msgspec.msgpack.decode(self.nodes.get(Digest(value.manifest)), type=Manifest)
        except msgspec.DecodeError as err:
            raise CorruptError(f"node {short(Digest(value.manifest))} is no list of pieces: {err}") from err
        return manifest

    def _read_pieces(self, value: Pieces, start: int, end: int) -> Iterable[bytes]:
        """Yield the content [start, end) in order, a few pieces ahead in memory."""
        needed: list[tuple[Piece, int, int]] = []
        offset = 0
        for piece in self.manifest(value).pieces:
            low, high = max(start - offset, 0), min(end - offset, piece.size)
            if low < high:
                needed.append((piece, low, high))
            offset += piece.size
        ahead = _PIECE_BYTES_AHEAD_REMOTE if self.backend.properties.remote else _PIECE_BYTES_AHEAD
        for batch in _batches(needed, ahead):
            bodies = self.get_pieces([piece for piece, _, _ in batch])
            for (piece, low, high), body in zip(batch, bodies, strict=True):
                yield body if high - low == piece.size else body[low:high]

    def _from_pack(self, name: Digest) -> bytes | None:
        pending = self._from_pending(name)
        if pending is not None:
            return pending
        at = self._find(name)
        if at is None:
            return None
        try:
            stored = self.backend.get(at.key, at.offset, at.offset + at.stored)
        except NotFoundError:
            if self._recheck is None:
                raise
            self._recheck()
            newer = self._find(name)
            if newer is None:
                return None
            if newer == at:
                raise
            at, stored = newer, self.backend.get(newer.key, newer.offset, newer.offset + newer.stored)
        return bytes(_unpack_checked(name, at, stored))

    def _from_loose(self, name: Digest) -> bytes | None:
        key = object_key(name)
        try:
            data = self.backend.get(key)
        except NotFoundError:
            beside = self._from_displaced(key)
            if beside is None:
                return None
            data = beside
        check_blob(name, data, key)
        return data

    def _from_displaced(self, key: str) -> bytes | None:
        for found in displaced(self.backend, key):
            try:
                return self.backend.get(found)
            except NotFoundError:
                continue
        return None

    def _from_pending(self, name: Digest) -> bytes | None:
        for builder in self._pending:
            data = builder.get(name)
            if data is not None:
                return data
        return None

    # --- writing ---

    def exists_loose(self, name: Digest, size: int) -> bool:
        """Whether the loose object of blob `name` is there in full, and no open sweep names it. One request."""
        key = object_key(name)
        if self.backend.size(key) == size and not self.nodes.condemned.doomed(key):
            return True
        return any(not self.nodes.condemned.doomed(found) for found in displaced(self.backend, key))

    def is_sound(self, name: Digest, size: int) -> bool:
        """Whether a blob is where no open sweep will take it."""
        at = self.known(name)
        if at is not None and at.size == size and not self.nodes.condemned.is_dead(at.key):
            return True
        return self.exists_loose(name, size)

    def put_loose(self, name: Digest, body: Data | Draft) -> tuple[str, bool]:
        """Make the loose object of blob `name`, unless it is there in full; return its key, and whether it was made.

        Parameters
        ----------
        name, body
            Hash and content.
        """
        key = place_for(self.backend, self.nodes.condemned, object_key(name))
        if self.backend.size(key) == len(body):
            return key, False
        # What is there, yet of another size, was left by a power cut before anything published it.
        if isinstance(body, Data):
            if not self.backend.put_if_absent(key, body):
                self.backend.put(key, body)
        elif not body.put_if_absent(key):
            self.backend.put(key, body.read())
        return key, True

    # A writer's blobs can be read back before the ledger names the index that says where they are.

    def watch(self, builder: PackBuilder) -> None:
        """Let readers find the blobs of a pack that is being built (`unwatch` ends it)."""
        with self._lock:
            self._pending = (*self._pending, builder)

    def unwatch(self, builder: PackBuilder) -> None:
        """Undo `watch`."""
        with self._lock:
            self._pending = tuple(other for other in self._pending if other is not builder)

    def remember(self, find: Locate) -> None:
        """Let readers find packed blobs that this process stored, by `find`. The oldest of many are forgotten."""
        with self._lock:
            self._recent = (find, *self._recent[: _MAX_RECENT - 1])

    def forget(self, find: Locate) -> None:
        """Undo `remember`."""
        with self._lock:
            self._recent = tuple(other for other in self._recent if other != find)

    def _find(self, name: Digest) -> Location | None:
        for find in self._recent:
            at = find(name)
            if at is not None and not self.nodes.condemned.is_dead(at.key):
                return at
        return self.locate(name)


def _batches(needed: Sequence[tuple[Piece, int, int]], most: int) -> Iterator[list[tuple[Piece, int, int]]]:
    """Group pieces, in order, into runs of at most `most` bytes, or of one."""
    batch: list[tuple[Piece, int, int]] = []
    size = 0
    for each in needed:
        if batch and size + each[0].size > most:
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += each[0].size
    if batch:
        yield batch


class _PieceReader(io.RawIOBase):
    """A large file, a piece in memory; a few where small pieces are read one after the other."""

    def __init__(self, objects: Content, value: Pieces) -> None:
        self._objects = objects
        self._value = value
        self._pieces = objects.manifest(value).pieces
        self._ends = list(itertools.accumulate(piece.size for piece in self._pieces))
        self._position = 0
        self._first = 0
        self._held: Sequence[bytes] = ()
        """Pieces from number `_first` on."""
        self._ahead = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._value.size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # RawIOBase promises a writable buffer
        number = bisect.bisect_right(self._ends, self._position)
        if number == len(self._pieces):
            return 0
        if not self._first <= number < self._first + len(self._held):
            self._fetch(number)
        piece = self._held[number - self._first]
        part = memoryview(piece)[self._position - self._ends[number] :][: len(view)]
        view[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _fetch(self, number: int) -> None:
        """Fetch a piece, and more of them each time that reading goes on behind those at hand."""
        goes_on = self._held and number == self._first + len(self._held)
        self._ahead = min(2 * self._ahead or 1 << 20, COALESCE_MAX_BYTES) if goes_on else 0
        stop, start = number + 1, self._ends[number] - self._pieces[number].size
        while stop < len(self._pieces) and self._ends[stop] - start <= self._ahead:
            stop += 1
        self._held = ()  # not both in memory
        self._held = self._objects.get_pieces(self._pieces[number:stop])
        self._first = number


def plan_coalesced(
    blobs: Iterable[tuple[Digest, Location]],
    *,
    gap_bytes: int = COALESCE_GAP_BYTES,
    max_bytes: int = COALESCE_MAX_BYTES,
) -> list[list[tuple[Digest, Location]]]:
    """Group blobs so that each group is one range of one pack.

    Pure. Neighbours join if at most `gap_bytes` lie between them and the range stays within `max_bytes`.
    """
    groups: list[list[tuple[Digest, Location]]] = []
    group: list[tuple[Digest, Location]] = []
    key, first, end = "", 0, 0
    # Locations sort by key and offset.
    for blob in sorted(blobs, key=itemgetter(1)):
        here, offset, stored, _, _ = blob[1]
        stop = offset + stored
        if group and here == key and offset - end <= gap_bytes and max(end, stop) - first <= max_bytes:
            group.append(blob)
            end = stop
            continue
        group = [blob]
        groups.append(group)
        key, first, end = here, offset, stop
    return groups


def _end(group: Sequence[tuple[Digest, Location]]) -> int:
    # Blobs of a pack do not overlap, so the last one ends last.
    last = group[-1][1]
    return last.offset + last.stored


def _unpack_checked(name: Digest, at: Location, stored: Data) -> Data:
    """Return the content of a packed blob, verified: where it is stored as it is, the stored bytes themselves."""
    if len(stored) != at.stored:
        raise CorruptError(
            f"blob {short(name)} is corrupt: stored size {at.stored} bytes, read {len(stored)} "
            f"({at.key}, offset {at.offset})"
        )
    data = stored if at.codec == CODEC_RAW else unpack(stored, at.codec, name)
    if digest(data) != name:
        check_blob(name, data, f"{at.key}, offset {at.offset}")
    return data


def _likely_packed(size: int | None) -> bool:
    return size is None or size < PACK_BELOW_BYTES


def _no_names(at_most: int) -> frozenset[bytes] | None:
    del at_most
    return None


def _nowhere(name: Digest) -> Location | None:
    del name
    return None
