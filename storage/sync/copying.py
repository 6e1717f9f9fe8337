"""Objects from one place to another: what is there already stays, the rest is verified before it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..backend import MAX_OBJECT_BYTES, Backend
from ..digest import Digest, digest, from_hex
from ..errors import CorruptError, NotFoundError
from ..objects.condemned import plain_key
from ..objects.content import OBJECT_PREFIX, object_key
from ..objects.index import INDEX_PREFIX, index_key
from ..objects.pack import Footer, read_footer, verify_pack
from ..objects.segment import SEGMENT_PREFIX, decode_rows
from ..store import Store
from .reach import Needed, Stored, fetch_displaced

_TOGETHER = 64
_TOGETHER_BYTES = 96 << 20
_ASKED_ONE_BY_ONE = 32

Copied = Callable[[str, int, int], None]
"""Called with what was copied (``nodes``, ``objects``, ``packs``, ``indexes``), how many objects, and their bytes."""


class Holdings:
    """Which objects a place has: a few are asked for one by one, many are listed once.

    Parameters
    ----------
    backend
        The place.
    empty
        It has nothing yet: nothing is asked.
    """

    def __init__(self, backend: Backend, *, empty: bool = False) -> None:
        self._backend = backend
        self._empty = empty
        self._listed: dict[str, dict[str, int]] = {}

    def sizes(self, keys: Sequence[str], *, many: bool = False) -> dict[str, int]:
        """Return the sizes in bytes of those of `keys`, all below one top folder, that are there.

        With `many` more of them will be asked for.
        """
        if self._empty or not keys:
            return {}
        folder = keys[0].partition("/")[0]
        listed = self._listed.get(folder)
        if listed is None and (many or len(keys) > _ASKED_ONE_BY_ONE):
            listed = self._listed[folder] = dict(self._backend.list(f"{folder}/"))
        if listed is not None:
            return {key: listed[key] for key in keys if key in listed}
        asked = {key: self._backend.size(key) for key in keys}
        return {key: size for key, size in asked.items() if size is not None}


@dataclass(slots=True)
class Copier:
    """Copies objects of a store to another place. Memory: about 100 MiB, whatever travels."""

    source: Store
    dest: Backend
    empty: bool
    """The place has no objects yet."""
    copied: Copied
    objects: int = 0
    """Written."""
    found: int = 0
    """There already."""
    size_bytes: int = 0
    """Bytes of what was written."""
    keys: dict[str, None] = field(default_factory=dict)
    """All that are needed, written or found: what to make durable."""
    _logs: dict[Digest, None] = field(default_factory=dict)
    _nodes: int = 0
    _holdings: Holdings = field(init=False)

    def __post_init__(self) -> None:
        self._holdings = Holdings(self.dest, empty=self.empty)

    def nodes(self, batch: Sequence[Stored]) -> None:
        """Write nodes, which are verified already. A few are written without asking whether they are there."""
        self._nodes += len(batch)
        many = self._nodes > _TOGETHER
        held = self._holdings.sizes([stored.key for stored in batch], many=True) if many else {}
        self._write("nodes", self._missing([(stored.key, stored.body) for stored in batch], held))

    def all(self, needed: Needed) -> None:
        """Copy what else is needed.

        Raises
        ------
        CorruptError
            The source's object is not what its name says; nothing of it was written.
        NotFoundError
            The source lacks an object.
        """
        self._many("objects", needed.loose)
        segments = [key for key in needed.packs if key.startswith(f"{SEGMENT_PREFIX}/")]
        self._many("packs", dict.fromkeys((key for key in needed.packs if key not in set(segments)), 0))
        self._many("segments", dict.fromkeys(segments, 0))
        held = self._holdings.sizes(list(needed.indexes))
        self._write("indexes", self._missing(list(needed.indexes.items()), held))
        # Large logs are objects of their own, which only rows name.
        logs = [object_key(name) for name in self._logs if self.source.locate(name) is None]
        self._many("objects", dict.fromkeys(logs, 0), optional=True)

    def _missing(self, items: Sequence[tuple[str, bytes]], held: Mapping[str, int]) -> list[tuple[str, bytes]]:
        missing = []
        for key, body in items:
            if held.get(key) == len(body):
                self.keys[key] = None
                self.found += 1
            else:
                missing.append((key, body))
        return missing

    def _many(self, what: str, sizes: Mapping[str, int], *, optional: bool = False) -> None:
        """Copy objects of one top folder; a size of 0 is not known."""
        keys = list(sizes)
        there = self._there(keys, sizes)
        for key in keys:
            if key in there:
                self.keys[key] = None
                self.found += 1
                if what == "segments":
                    self._note_logs(read_footer(self.dest, key))
        for batch in _batches([key for key in keys if key not in there], sizes):
            fetched = list(self._fetch(batch, optional=optional))
            for stored in fetched:
                footer = verify(stored.key, stored.body)
                if what == "segments" and footer is not None:
                    self._note_logs(footer)
            self._write(what, [(stored.key, stored.body) for stored in fetched])

    def _there(self, keys: Sequence[str], sizes: Mapping[str, int]) -> set[str]:
        held = self._holdings.sizes(keys)
        unknown = [key for key in held if not sizes[key]]
        expected = {**sizes, **(Holdings(self.source.backend).sizes(unknown) if unknown else {})}
        # Of another size: left by a power cut before anything published it. Named by an open sweep: may vanish.
        doomed = self.source.nodes.condemned.doomed
        return {key for key, size in held.items() if size == expected.get(key) and not doomed(key)}

    def _fetch(self, keys: Sequence[str], *, optional: bool) -> Iterator[Stored]:
        condemned = self.source.nodes.condemned
        if not any(condemned.doomed(key) for key in keys):
            try:
                bodies = self.source.backend.get_many([(key, None, None) for key in keys])
            except NotFoundError:
                pass
            else:
                yield from map(Stored, keys, bodies)
                return
        for key in keys:
            found = fetch_displaced(self.source, key)
            if found is not None:
                yield found
            elif not optional and not self._is_packed(key):
                raise NotFoundError(
                    f"{self.source.url} refers to {key}, which does not exist there",
                    hint=f"look: dmlpipe --store {self.source.url} fsck",
                )

    def _is_packed(self, key: str) -> bool:
        return key.startswith(f"{OBJECT_PREFIX}/") and self.source.locate(_named(key)) is not None

    def _write(self, what: str, items: Sequence[tuple[str, bytes]]) -> None:
        if not items:
            return
        made = self.dest.put_many_if_absent(items)
        written = 0
        for (key, body), was_made in zip(items, made, strict=True):
            if not was_made and not self.dest.properties.remote and self.dest.size(key) != len(body):
                self.dest.put(key, body)
                was_made = True
            self.objects += was_made
            self.found += not was_made
            written += len(body) if was_made else 0
            self.keys[key] = None
        self.size_bytes += written
        self.copied(what, len(items), written)

    def _note_logs(self, footer: Footer) -> None:
        packed = {blob.hash for blob in footer.blobs}
        rows = decode_rows(footer.rows)
        self._logs.update((Digest(row.log), None) for row in rows if row.log and row.log not in packed)


def verify(key: str, body: bytes) -> Footer | None:
    """Compare an object with its name; return the footer of a pack or segment.

    Raises
    ------
    CorruptError
        It is something else.
    """
    folder = key.partition("/")[0]
    if folder == OBJECT_PREFIX:
        if digest(body) != _named(key):
            raise CorruptError(f"{key} is corrupt: its {len(body)} bytes hash to {digest(body).hex()[:12]}")
        return None
    if folder == INDEX_PREFIX:
        if index_key(body) != key:
            raise CorruptError(f"{key} is corrupt: its bytes hash to {index_key(body)}")
        return None
    return verify_pack(body, key)


def _named(key: str) -> Digest:
    return from_hex(plain_key(key).partition("/")[2].replace("/", ""))


def _batches(keys: Iterable[str], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Part keys so that what is held in memory stays small; an unknown size counts as what is usual."""
    batch: list[str] = []
    total = 0
    for key in keys:
        size = sizes[key] or (MAX_OBJECT_BYTES // 2 if key.endswith(".pack") else 1 << 20)
        if batch and (len(batch) == _TOGETHER or total + size > _TOGETHER_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(key)
        total += size
    if batch:
        yield batch
