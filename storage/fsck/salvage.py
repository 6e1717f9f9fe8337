"""The bytes that a damaged object ought to have, from wherever they still are. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..backend import Backend
from ..digest import Digest, from_hex
from ..errors import CorruptError, FormatError, NotFoundError
from ..ledger import checkpoint as ckpt
from ..ledger.ledger import decode_entry, entry_key
from ..objects.compression import compress
from ..objects.condemned import plain_key
from ..objects.index import BlobIndex, index_key
from ..objects.pack import CODEC_ZSTD, Footer, check_blob, read_footer, unpack, verify_pack
from .check import Checked
from .contents import blob_in
from .mirrors import Mirror, find_blob, sound


class Salvaged(NamedTuple):
    """What an object ought to be."""

    body: bytes
    how: str
    """Where it came from, for people."""


class Salvage:
    """Finds bytes.

    Parameters
    ----------
    backend
        The damaged store.
    checked
        What is known of it.
    mirrors
        Other places to look.
    """

    def __init__(self, backend: Backend, checked: Checked, mirrors: Sequence[Mirror]) -> None:
        self._backend = backend
        self._checked = checked
        self._mirrors = mirrors

    def find(self, key: str) -> Salvaged | None:
        """Return what `key` ought to be; None if nobody has it."""
        match key.partition("/")[0]:
            case "nodes":
                return self._twin(key) or self._folded(key) or self._mirrored(key)
            case "objects":
                return self._twin(key) or self._packed(key) or self._mirrored(key) or self._mirrored_blob(key)
            case "packs" | "results":
                return self._mirrored(key) or self._rebuilt(key)
            case "index":
                return self._index(key) or self._mirrored(key)
            case "ledger":
                return self._checkpoint(key)
            case _:
                return self._mirrored(key)

    def _mirrored(self, key: str) -> Salvaged | None:
        for mirror in self._mirrors:
            body = mirror.object(key)
            if body is not None:
                return Salvaged(body, f"from {mirror.backend.url}")
        return None

    def _mirrored_blob(self, key: str) -> Salvaged | None:
        found = find_blob(self._mirrors, _named(key))
        return Salvaged(found[0], f"from {found[1]}") if found is not None else None

    def _twin(self, key: str) -> Salvaged | None:
        """The same content under another key of this store."""
        for place in self._checked.contents.places.get(plain_key(key), []):
            body = sound(self._backend, place) if place != key else None
            if body is not None:
                return Salvaged(body, f"from {place}")
        return None

    def _folded(self, key: str) -> Salvaged | None:
        """A node of a checkpoint's tree, which follows from the ledger."""
        nodes = self._checked.history.nodes
        raw = nodes.own(_named(key)) if nodes is not None else None
        return Salvaged(compress(raw), "made anew from the ledger") if raw is not None else None

    def _packed(self, key: str) -> Salvaged | None:
        body = self._blob_here(_named(key))
        return Salvaged(body, "from a pack") if body is not None else None

    def _blob_here(self, name: Digest) -> bytes | None:
        at = self._checked.contents.locations.get(name)
        if at is None:
            return None
        try:
            content = unpack(self._backend.get(at.key, at.offset, at.offset + at.stored), at.codec, name)
            check_blob(name, content, at.key)
        except (NotFoundError, CorruptError, FormatError):
            return None
        return content

    def _rebuilt(self, key: str) -> Salvaged | None:
        """A pack whose footer is sound: its name follows from that alone, and each blob may come from elsewhere."""
        footer = self._checked.contents.broken.get(key)
        if footer is None:
            return None
        try:
            body = bytearray(self._backend.get(key))
        except NotFoundError:
            return None
        before = bytes(body)
        sources: dict[str, None] = {}
        for name, at in footer.locations(key):
            if blob_in(before, name, at) is not None:
                continue
            found = self._blob(name)
            if found is None:
                return None
            raw = compress(found.body) if at.codec == CODEC_ZSTD else found.body
            if len(raw) != at.stored:
                return None
            body[at.offset : at.offset + at.stored] = raw
            sources[found.how] = None
        try:
            verify_pack(bytes(body), key)
        except (CorruptError, FormatError):
            return None
        return Salvaged(bytes(body), f"rebuilt, {', '.join(sources)}")

    def _blob(self, name: Digest) -> Salvaged | None:
        text = name.hex()
        key = f"objects/{text[:2]}/{text[2:]}"
        body = sound(self._backend, key) if key not in self._checked.findings else None
        if body is not None:
            return Salvaged(body, f"from {key}")
        return self._twin(key) or self._packed(key) or self._mirrored_blob(key)

    def _index(self, key: str) -> Salvaged | None:
        """An index follows from the footers of the packs that its record names with it."""
        for n, named in self._checked.history.state.named_indexes():
            if named != key:
                continue
            try:
                packs = [
                    pack for pack, index in _packs_of(decode_entry(self._backend.get(entry_key(n)), n)) if index == key
                ]
                footers = [(pack, _footer(self._backend, self._checked, pack)) for pack in packs]
            except (NotFoundError, CorruptError, FormatError):
                return None
            body = BlobIndex.build(item for pack, footer in footers for item in footer.locations(pack))
            if index_key(body) == key:
                return Salvaged(body, "made anew from the packs")
        return None

    def _checkpoint(self, key: str) -> Salvaged | None:
        for n, chain, root in self._checked.history.checkpoints:
            if ckpt.checkpoint_key(n) == key:
                body = ckpt.encode_checkpoint(ckpt.Checkpoint(n=n, chain=chain, state=root.hex()))
                return Salvaged(body, "made anew from the ledger")
        return None


def _packs_of(entry: object) -> Iterator[tuple[str, str]]:
    """Yield (pack, index) of the records of an entry."""
    for record in getattr(entry, "recs", ()):
        holder = getattr(record, "end", record)
        index = getattr(holder, "index", "")
        for pack in getattr(holder, "packs", ()):
            yield pack, index


def _footer(backend: Backend, checked: Checked, pack: str) -> Footer:
    broken = checked.contents.broken.get(pack)
    return broken if broken is not None else read_footer(backend, pack)


def _named(key: str) -> Digest:
    return from_hex(plain_key(key).partition("/")[2].replace("/", ""))
