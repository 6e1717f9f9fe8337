"""Writing content: decide by size, deduplicate, pack what is small."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from ..backend import Backend, Draft
from ..digest import Data, Digest, digest
from ..errors import ConflictError, ErrorCode, NotFoundError
from .compression import own_compressor
from .content import Content, Piece, encode_manifest, object_key
from .cutting import ContentDefined
from .file_pieces import piece_digest, read_pieces, split, unchanged
from .index import BlobIndex, decode_records, encode_records, index_key
from .pack import PACK_TARGET_BYTES, Location, PackBuilder, pack_key, parse_footer
from .value import INLINE_MAX_BYTES, PACK_BELOW_BYTES, WHOLE_MAX_BYTES, Inline, Pieces, Value, Whole


class Written(msgspec.Struct, frozen=True):
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
        self._packs: dict[str, bytes] = {}
        self._unread: list[str] = []
        self.stored_bytes = 0
        """Bytes of content that were stored anew, as they lie; what waits in the open pack is not among them."""
        self.cloned_bytes = 0
        """Those of them that share their blocks with the files that were put."""
        self._keys: dict[str, None] = {}
        self._loose: set[Digest] = set()
        self._relied: dict[str, int] = {}
        self._relied_blobs: dict[Digest, int] = {}
        self._oldest = objects.nodes.condemned.begin()
        objects.watch(self._builder)

    def put(self, data: Data) -> Value:
        """Store content and return its value."""
        if len(data) <= INLINE_MAX_BYTES:
            return Inline(bytes(data))
        if len(data) <= WHOLE_MAX_BYTES:
            return Whole(len(data), self.add_blob(data))
        return self._put_pieces(split(data, self.cutting))

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
                return self._put_stream(read_pieces(file.fileno(), self.cutting))
        return self._put_stream(read_pieces(source, self.cutting))

    @property
    def cutting(self) -> ContentDefined | None:
        """How large files are cut by what they hold; None: at each 16 MiB."""
        return self._objects.cutting

    def add_blob(self, data: Data, name: Digest | None = None) -> Digest:
        """Store up to 16 MiB as one blob and return its hash: packed if it is small or compresses well, else loose.

        Parameters
        ----------
        data
            Content.
        name
            Its hash, if that is known.
        """
        name = name or digest(data)
        if len(data) < PACK_BELOW_BYTES:
            self._pack(name, data)
        else:
            self.add_large(name, data)
        return name

    def add_large(self, name: Digest, data: Data | None, draft: Draft | None = None) -> bool:
        """Store 1 to 16 MiB as one blob: packed if it compresses well, else loose; return whether it is a new object.

        Parameters
        ----------
        name
            Its hash.
        data
            Content; None: it stands in the draft, and is taken not to compress.
        draft
            Has the same content, and can become the object.
        """
        with self._lock:
            if name in self._loose or name in self.packed or name in self._builder:
                return False
        # In a segment the large ones stand apart: they are stored before it, it lists them.
        frame = own_compressor().frame(data) if self._owns_packs and data is not None else None
        if data is not None and frame is not None:
            self._pack(name, data, frame)
            return False
        body = draft if draft is not None else data
        assert body is not None
        return self._put_loose(name, body)

    def add_piece(self, data: Data, name: Digest) -> Digest:
        """Store one piece of a large file, given its hash, and return that.

        In a segment small pieces stand apart, as large ones do: a file of any size must not gather in memory.
        """
        if self._owns_packs or len(data) >= PACK_BELOW_BYTES or self.cutting is None:
            return self.add_blob(data, name)
        if not self._rely_on_known(name, len(data), self.begin()):
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
            packs = self._packs
            self._packs, self._packed, self._unread = {}, {}, []
        if not packs:
            return Written()
        body = BlobIndex.build_packs(list(packs.items()))
        index = index_key(body)
        version = self._objects.nodes.condemned.begin()
        self._objects.backend.put_if_absent(index, body)
        with self._lock:
            self._relied[index] = version
        self._objects.remember(BlobIndex(body, index).find)
        self._objects.forget(self._find)
        with self._lock:
            self._keys[index] = None
        return Written(tuple(packs), index)

    def take_keys(self) -> list[str]:
        """Return the keys of the objects that were put since the last call, written or found: what to sync."""
        with self._lock:
            keys = list(self._keys)
            self._keys.clear()
        return keys

    def rely_on_blobs(self, names: Iterable[bytes], since: int) -> None:
        """`rely` for many whole blobs of a commit that was alive at version `since`; nothing is looked up."""
        with self._lock:
            self._oldest = min(self._oldest, since)
            for name in names:
                self._relied_blobs.setdefault(Digest(name), since)

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
                version = self.begin() if since is None else since
                self._oldest = min(self._oldest, version)
                name = Digest(value.manifest)
                for piece in self._objects.manifest(value).pieces:
                    self._rely_on(Digest(piece.hash), piece.size, since)
                with self._lock:
                    self._relied.setdefault(self._objects.nodes.place_of(name), version)
            case _:
                return

    def _rely_on(self, name: Digest, size: int, since: int | None) -> None:
        with self._lock:
            if name in self.packed or name in self._builder or name in self._relied_blobs:
                return
        condemned = self._objects.nodes.condemned
        version = condemned.begin() if since is None else since
        self._oldest = min(self._oldest, version)
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
            if condemned.version == self._oldest:
                return  # no sweep since
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

    def _pack(self, name: Digest, data: Data, frame: bytes | None = None) -> None:
        """Add a blob to the open pack, unless it is packed already; `frame` is what it was compressed to."""
        full: PackBuilder | None = None
        version = self.begin()
        if self._rely_on_known(name, len(data), version):
            return
        with self._lock:
            if name in self.packed or name in self._builder:
                return
        frame = frame or own_compressor().frame(data)
        with self._lock:
            self._builder.add(name, data, frame)
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
                self._add_pack(key, encode_records(blob.row for blob in parse_footer(body, key).blobs), version)
        self._objects.unwatch(builder)

    def _add_pack(self, key: str, records: bytes, version: int) -> None:
        """Note a pack that was stored, given its blobs' records. Called with the lock."""
        self._relied[key] = version
        if not self._packs:
            self._objects.remember(self._find)
        self._packs[key] = records
        self.stored_bytes += sum(stored for _, _, stored, _, _ in decode_records(records))
        self._unread.append(key)
        self._keys[key] = None

    @property
    def packed(self) -> Mapping[Digest, Location]:
        """Where the blobs are that this writer packed since the last flush. Called with the lock."""
        # A put of many files asks for it once, or never.
        for key in self._unread:
            for name, offset, stored, size, codec in decode_records(self._packs[key]):
                self._packed.setdefault(Digest(name), Location(key, offset, stored, size, codec))
        self._unread = []
        return self._packed

    def _find(self, name: Digest) -> Location | None:
        with self._lock:
            return self.packed.get(name)

    def _rely_on_known(self, name: Digest, size: int, version: int) -> bool:
        """Note that a blob is relied on if a published pack has it; return whether one does."""
        known = self._objects.known(name)
        if known is None or known.size != size or self._objects.nodes.condemned.is_dead(known.key):
            return False
        with self._lock:
            self._keys[known.key] = None
            self._relied_blobs.setdefault(name, version)
        return True

    # --- for whoever packs by itself ---

    @property
    def backend(self) -> Backend:
        """Where objects go."""
        return self._objects.backend

    def begin(self) -> int:
        """Return the version of the registry of sweeps to note before looking."""
        return self._objects.nodes.condemned.begin()

    def known_names(self, at_most: int) -> frozenset[bytes] | None:
        """Return the hashes of all published packed blobs; None if they are more than `at_most`, or nobody knows."""
        return self._objects.known_names(at_most)

    def is_known(self, name: Digest) -> bool:
        """Whether a published pack, which no sweep names, has a blob."""
        at = self._objects.known(name)
        return at is not None and not self._objects.nodes.condemned.is_dead(at.key)

    def adopt(
        self,
        packs: Sequence[tuple[str, bytes]],
        known: Sequence[bytes],
        rest: Sequence[tuple[bytes, bytes, int, int]],
        version: int,
    ) -> None:
        """Take over what somebody else packed on this writer's behalf.

        Parameters
        ----------
        packs
            Keys of packs that are stored, and the records of their blobs.
        known
            Blobs that published packs have.
        rest
            (hash, stored bytes, size, codec) of blobs that go into the open pack.
        version
            What `begin` returned before any of it.
        """
        with self._lock:
            for key, records in packs:
                self._add_pack(key, records, version)
        for name in known:
            at = self._objects.known(Digest(name))
            if at is not None:
                self._rely_on_known(Digest(name), at.size, version)
        full: list[PackBuilder] = []
        with self._lock:
            for name, stored, size, codec in rest:
                self._builder.add_stored(Digest(name), stored, size, codec)
                if self._owns_packs and self._builder.size >= PACK_TARGET_BYTES:
                    full.append(self._builder)
                    self._builder = PackBuilder()
                    self._objects.watch(self._builder)
        for builder in full:
            self._store_pack(builder)

    def join(self, pieces: Sequence[Piece]) -> Pieces:
        """Store the list of a large file's pieces, which are stored, and return its value."""
        version = self.begin()
        manifest = self._objects.nodes.put(encode_manifest(pieces))
        with self._lock:
            self._relied.setdefault(self._objects.nodes.place_of(manifest), version)
        return Pieces(sum(piece.size for piece in pieces), manifest)

    def _put_loose(self, name: Digest, body: Data | Draft) -> bool:
        with self._lock:
            if name in self._loose:
                return False
        version = self._objects.nodes.condemned.begin()
        key, made = self._objects.put_loose(name, body)
        cloned = not isinstance(body, Data) and body.shares_blocks
        with self._lock:
            self.stored_bytes += len(body) if made else 0
            self.cloned_bytes += len(body) if made and cloned else 0
            self._relied.setdefault(key, version)
            self._loose.add(name)
            self._keys[key] = None
        return made

    def _put_pieces(self, parts: Iterator[bytes]) -> Value:
        return self.join([Piece(self.add_piece(part, piece_digest(part)), len(part)) for part in parts])

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
