"""Writing content: decide by size, deduplicate, pack what is small."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..digest import Data, Digest, digest
from ..errors import ConflictError, ErrorCode, NotFoundError
from .content import Content, Piece, encode_manifest, object_key
from .file_pieces import piece_digest, read_pieces, unchanged
from .index import BlobIndex, index_key
from .pack import PACK_TARGET_BYTES, Location, PackBuilder, pack_key, parse_footer
from .value import INLINE_MAX_BYTES, PACK_BELOW_BYTES, WHOLE_MAX_BYTES, Inline, Pieces, Value, Whole


@dataclass(frozen=True, slots=True)
class Written:
    """What `ObjectWriter.flush` stored."""

    packs: tuple[str, ...] = ()
    """Keys of the packs."""
    index: str = ""
    """Key of the index over them; empty if there are none."""


class ObjectWriter:
    """Stores content; small blobs gather in packs until `flush`. Safe for use by many threads.

    Parameters
    ----------
    objects
        The store's content.
    builder
        If given, small blobs go there and the caller stores it (segments): nothing is packed here, and `flush` returns
        nothing. Otherwise the writer makes packs of its own.

    Notes
    -----
    What is put can be read back at once through `objects`, in this process; other processes see packed blobs after
    `flush`, and nothing refers to any of it before a ledger entry does.
    """

    def __init__(self, objects: Content, builder: PackBuilder | None = None) -> None:
        self._objects = objects
        self._lock = threading.Lock()
        self._owns_packs = builder is None
        self._builder = builder if builder is not None else PackBuilder()
        self._packed: dict[Digest, Location] = {}
        self._packs: list[str] = []
        self._keys: dict[str, None] = {}
        self._loose: set[Digest] = set()
        self._relied: dict[str, int] = {}
        self._relied_blobs: dict[Digest, int] = {}
        objects.watch(self._builder)

    def put(self, data: Data) -> Value:
        """Store content and return its value."""
        if len(data) <= INLINE_MAX_BYTES:
            return Inline(bytes(data))
        if len(data) <= WHOLE_MAX_BYTES:
            return Whole(len(data), self.add_blob(data))
        view = memoryview(data)
        return self._put_pieces(
            bytes(view[start : start + WHOLE_MAX_BYTES]) for start in range(0, len(view), WHOLE_MAX_BYTES)
        )

    def put_file(self, source: Path | str | int | BinaryIO) -> Value:
        """Store the content of a file and return its value; at most two pieces are in memory.

        Parameters
        ----------
        source
            A path; or a descriptor or binary file, read from its position and left open.

        Raises
        ------
        OSError
            The file cannot be read.
        ConflictError
            Somebody wrote to the file, given by its path, while it was read.
        """
        if isinstance(source, (str, Path)):
            with open(source, "rb", buffering=0) as file, unchanged(file.fileno(), str(source)):
                return self._put_stream(read_pieces(file.fileno()))
        return self._put_stream(read_pieces(source))

    def add_blob(self, data: Data, *, compressed: bool = False) -> Digest:
        """Store up to 16 MiB as one blob, packed or loose, and return its hash.

        Parameters
        ----------
        data
            Content.
        compressed
            A packed blob may be compressed at rest (logs).
        """
        name = digest(data)
        if len(data) < PACK_BELOW_BYTES:
            self._pack(name, data, compressed)
        else:
            self._put_loose(name, data)
        return name

    @property
    def size(self) -> int:
        """Bytes that wait in the open pack."""
        return self._builder.size

    def swap(self, builder: PackBuilder) -> PackBuilder:
        """Let small blobs go to `builder` from now on; return the one they went to, for the caller to store.

        Raises
        ------
        ConflictError
            The writer makes packs of its own.
        """
        if self._owns_packs:
            raise ConflictError("this writer stores its packs itself: swap needs one that was given a builder")
        with self._lock:
            old, self._builder = self._builder, builder
        self._objects.watch(builder)
        self._objects.unwatch(old)
        return old

    def flush(self) -> Written:
        """Store the open pack, and one index over all packs since the last flush."""
        if not self._owns_packs:
            return Written()
        with self._lock:
            full, self._builder = self._builder, PackBuilder()
        self._objects.watch(self._builder)
        self._store_pack(full)
        with self._lock:
            packs, packed = tuple(self._packs), self._packed
            self._packs, self._packed = [], {}
        if not packs:
            return Written()
        body = BlobIndex.build(packed.items())
        index = index_key(body)
        version = self._objects.nodes.condemned.begin()
        self._objects.backend.put_if_absent(index, body)
        with self._lock:
            self._relied[index] = version
        self._objects.remember(BlobIndex(body, index).find)
        self._objects.forget(self._find)
        with self._lock:
            self._keys[index] = None
        return Written(packs, index)

    def take_keys(self) -> list[str]:
        """Return the keys of the objects that were put since the last call, written or found: what to sync."""
        with self._lock:
            keys = list(self._keys)
            self._keys.clear()
        return keys

    def rely(self, value: Value, since: int | None = None) -> None:
        """Note that content which somebody else stored will be published with what is put here.

        Parameters
        ----------
        value
            What.
        since
            Version of the registry of sweeps from before it was known to be alive (it stood in a commit that the
            ledger then had); None: look now.

        Raises
        ------
        NotFoundError
            The store does not hold it.
        """
        match value:
            case Whole(size, name):
                self._rely_on(Digest(name), size, since)
            case Pieces():
                version = self._objects.nodes.condemned.begin() if since is None else since
                name = Digest(value.manifest)
                for piece in self._objects.manifest(value).pieces:
                    self._rely_on(Digest(piece.hash), piece.size, since)
                with self._lock:
                    self._relied.setdefault(self._objects.nodes.place_of(name), version)
            case _:
                return

    def _rely_on(self, name: Digest, size: int, since: int | None) -> None:
        with self._lock:
            if name in self._packed or name in self._builder or name in self._relied_blobs:
                return
        condemned = self._objects.nodes.condemned
        version = condemned.begin() if since is None else since
        if since is None and not self._objects.is_sound(name, size):
            raise NotFoundError(f"the store does not hold blob {name.hex()[:12]}")
        with self._lock:
            self._relied_blobs.setdefault(name, version)

    def check(self) -> None:
        """Make sure that no sweep took what was put or found since this writer began; call where records are built.

        Raises
        ------
        ConflictError
            One did (code ``collected``). Putting all of it again stores it anew.
        """
        condemned = self._objects.nodes.condemned
        with self._lock:
            gone = any(condemned.voided(key, version) for key, version in self._relied.items()) or any(
                condemned.voided_blob(name, version) or condemned.voided(object_key(name), version)
                for name, version in self._relied_blobs.items()
            )
        if gone:
            raise ConflictError(
                "a garbage collection, or a repair, took content that this commit found in the store",
                code=ErrorCode.COLLECTED,
                hint="do it again: nothing was published",
            )

    def relied_on(self) -> tuple[list[str], list[Digest]]:
        """Return (keys of objects, hashes of packed blobs) that `check` would look for."""
        with self._lock:
            return sorted(self._relied), sorted(self._relied_blobs)

    def close(self) -> None:
        """Forget what was not flushed."""
        self._objects.unwatch(self._builder)
        self._objects.forget(self._find)

    def _pack(self, name: Digest, data: Data, compressed: bool) -> None:
        full: PackBuilder | None = None
        condemned = self._objects.nodes.condemned
        version = condemned.begin()
        known = self._objects.known(name)
        if known is not None and known.size == len(data) and not condemned.is_dead(known.key):
            with self._lock:
                self._keys[known.key] = None
                self._relied_blobs.setdefault(name, version)
            return
        with self._lock:
            if name in self._packed:
                return
            self._builder.add(name, data, compressed=compressed)
            if self._owns_packs and self._builder.size >= PACK_TARGET_BYTES:
                full, self._builder = self._builder, PackBuilder()
                self._objects.watch(self._builder)
        if full is not None:
            self._store_pack(full)

    def _store_pack(self, builder: PackBuilder) -> None:
        if len(builder):
            body = builder.finish()
            key = pack_key(body)
            version = self._objects.nodes.condemned.begin()
            self._objects.backend.put_if_absent(key, body)
            with self._lock:
                self._relied[key] = version
                self._packs.append(key)
                self._keys[key] = None
                first = not self._packed
                self._packed.update(parse_footer(body, key).locations(key))
            if first:
                self._objects.remember(self._find)
        self._objects.unwatch(builder)

    def _find(self, name: Digest) -> Location | None:
        return self._packed.get(name)

    def _put_loose(self, name: Digest, data: Data) -> None:
        with self._lock:
            if name in self._loose:
                return
        version = self._objects.nodes.condemned.begin()
        key = self._objects.put_loose(name, data)
        with self._lock:
            self._relied.setdefault(key, version)
            self._loose.add(name)
            self._keys[key] = None

    def _put_pieces(self, parts: Iterator[bytes]) -> Value:
        pieces: list[Piece] = []
        for part in parts:
            name = piece_digest(part)
            self._put_loose(name, part)
            pieces.append(Piece(name, len(part)))
        version = self._objects.nodes.condemned.begin()
        manifest = self._objects.nodes.put(encode_manifest(pieces))
        with self._lock:
            self._relied.setdefault(self._objects.nodes.place_of(manifest), version)
        return Pieces(sum(piece.size for piece in pieces), manifest)

    def _put_stream(self, parts: Iterator[bytes]) -> Value:
        first = next(parts, b"")
        second = next(parts, None)
        if second is None:
            return self.put(first)

        def chained() -> Iterator[bytes]:
            yield first
            yield second
            yield from parts

        return self._put_pieces(chained())
