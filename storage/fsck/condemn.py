"""Take out of the store what is damaged and nobody can mend, so that nobody relies on it.

A damaged object of the right size would pass for the content that it once was: a later put of the same content would
find it there and store nothing. So it ends as garbage does: by a sweep (`gc/`), an entry that names it before it goes.
Whoever writes beside that learns of it before the next entry, and stores anew what it relied on. What is still sound in
a damaged pack moves to a new one in the same entry. Copies of all that goes are in ``quarantine/`` before.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..backend import Backend
from ..digest import Digest
from ..errors import CorruptError, FormatError, NotFoundError
from ..gc.checkpoints import write_missing
from ..gc.token import make_token
from ..ledger.ledger import Ledger
from ..objects.condemned import SweepList, encode_list
from ..objects.index import BlobIndex, index_key
from ..objects.node import NodeStore
from ..objects.pack import PACK_TARGET_BYTES, Location, PackBuilder, pack_key, parse_footer
from ..records import GcDone, GcSweep, Record
from ..state import State
from .check import Checked
from .contents import blob_in


@dataclass(slots=True)
class Condemnation:
    """What goes.

    Parameters
    ----------
    objects
        Nodes and loose objects that are there and damaged.
    packs
        Packs and segments that are damaged or missing.
    """

    backend: Backend
    nodes: NodeStore
    ledger: Ledger
    checked: Checked
    objects: Sequence[str]
    packs: Sequence[str]
    moved: dict[Digest, Location] = field(default_factory=dict)
    """Blobs that were sound in a pack that goes, to where they are now."""
    _made: list[str] = field(default_factory=list)
    _dropped: frozenset[str] = frozenset()
    _blobs: frozenset[Digest] = frozenset()
    _keys: tuple[str, ...] = ()

    def carry_out(self) -> tuple[str, ...]:
        """Publish the sweep, delete, close it; return the keys that went."""
        write_missing(self.backend, self.nodes, self.ledger)
        broken = self.checked.contents.broken
        # A segment's rows are of use as long as its footer can be read: it stays, and its lost blobs are forgotten.
        self._dropped = frozenset(
            key for key in self.packs if not (key.endswith(".seg") and broken.get(key) is not None)
        )
        self._move()
        entry = self.ledger.append(self._records, sync=lambda: self._made)
        self.backend.delete_many(self._keys)
        self.ledger.append([GcDone(sweep=entry.n)])
        return self._keys

    def _move(self) -> None:
        """Write what is sound in packs that go into new ones."""
        builder = PackBuilder()
        sound = self.checked.contents.locations
        for key in sorted(self._dropped):
            try:
                body = self.backend.get(key)
            except NotFoundError:
                continue
            for name, at in sorted(self._inside(key).items(), key=lambda item: item[1].offset):
                raw = blob_in(body, name, at)
                if raw is None or sound.get(name, at).key != key:
                    continue
                builder.add_stored(name, raw, at.size, at.codec)
                if builder.size >= PACK_TARGET_BYTES:
                    self._store(builder)
                    builder = PackBuilder()
        self._store(builder)

    def _store(self, builder: PackBuilder) -> None:
        if len(builder):
            body = builder.finish()
            key = pack_key(body)
            self.backend.put_if_absent(key, body)
            self._made.append(key)
            self.moved.update(parse_footer(body, key).locations(key))

    def _inside(self, pack: str) -> dict[Digest, Location]:
        """What a pack holds, by its footer or else by the indexes."""
        footer = self.checked.contents.broken.get(pack)
        if footer is not None:
            return dict(footer.locations(pack))
        found: dict[Digest, Location] = {}
        for _, _, index in self._indexes(self.ledger.state):
            if index is not None and pack in index.containers:
                found |= {name: at for name, at in index if at.key == pack}
        return found

    def _indexes(self, state: State) -> list[tuple[int, str, BlobIndex | None]]:
        found: list[tuple[int, str, BlobIndex | None]] = []
        for n, key in state.named_indexes():
            try:
                body = self.backend.get(key)
                found.append((n, key, BlobIndex(body, key) if index_key(body) == key else None))
            except (NotFoundError, CorruptError, FormatError):
                found.append((n, key, None))
        return found

    def _records(self, state: State) -> Sequence[Record]:
        """Return the sweep on the newest state."""
        indexes = self._indexes(state)
        packs = set(self.packs)
        old = [(n, key) for n, key, index in indexes if index is None or packs.intersection(index.containers)]
        kept = [index for n, key, index in indexes if (n, key) not in old and index is not None]
        entries = [*self.moved.items(), *self._kept_entries(indexes, old, kept)]
        staying = {name for name, _ in entries} | {name for index in kept for name, _ in index}
        gone = {
            name
            for n, key, index in indexes
            if index is not None and (n, key) in old
            for name, at in index
            if at.key in packs and name not in staying
        }
        index_object = ""
        if entries:
            body = BlobIndex.build(entries)
            index_object = index_key(body)
            self.backend.put_if_absent(index_object, body)
            if index_object not in self._made:
                self._made.append(index_object)
        old_keys = [key for _, key in old if key != index_object]
        self._keys = (*self.objects, *sorted(self._dropped), *old_keys)
        listed = SweepList(nonce=secrets.token_bytes(16), keys=self._keys, blobs=tuple(sorted(gone)))
        return [
            GcSweep(
                list=self.nodes.put(encode_list(listed)).hex(),
                token=make_token(),
                packs=tuple(key for key in self._made if key.endswith(".pack")),
                index=index_object,
                drop_packs=tuple(sorted(self._dropped)),
                drop_indexes=tuple((n, key) for n, key in old),
            )
        ]

    def _kept_entries(
        self,
        indexes: Sequence[tuple[int, str, BlobIndex | None]],
        old: Sequence[tuple[int, str]],
        kept: Sequence[BlobIndex],
    ) -> list[tuple[Digest, Location]]:
        """What the indexes that go said of packs that stay; of an index that is lost itself, what those packs say."""
        packs, sound = set(self.packs), self.checked.contents.locations
        found: list[tuple[Digest, Location]] = []
        for n, key, index in indexes:
            if index is not None and (n, key) in old:
                stays = (item for item in index if item[1].key not in self._dropped)
                found += [(name, at) for name, at in stays if at.key not in packs or sound.get(name) == at]
        if any(index is None for _, _, index in indexes):
            covered = {pack for index in kept for pack in index.containers}
            found += [(name, at) for name, at in sound.items() if at.key not in covered | self._dropped]
        return found
