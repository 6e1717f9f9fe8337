"""What may go: everything listed that is not marked, packs of which little is alive, and the indexes over them.

Pure over a listing: reads, and writes nothing. `sweep.py` carries a plan out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..backend import Backend
from ..digest import Digest, from_hex
from ..errors import CorruptError, NotFoundError
from ..objects.condemned import plain_key
from ..objects.content import OBJECT_PREFIX
from ..objects.index import INDEX_PREFIX, BlobIndex
from ..objects.node import NODE_PREFIX
from ..objects.pack import PACK_PREFIX, Location
from ..objects.segment import SEGMENT_PREFIX
from ..state import State
from .mark import Marked

REPACK_BELOW = 0.5
"""A pack of which less is alive is packed anew."""
MAX_CONTAINERS = 500
MAX_KEYS = 200_000
"""What one sweep names at most; more sweeps follow."""


@dataclass(frozen=True, slots=True)
class Aged:
    """An object and when it was written."""

    key: str
    size: int
    written_s: float | None
    """Seconds since the epoch, by the medium's clock; None: it does not tell."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What the published indexes say."""

    indexes: Mapping[str, tuple[int, BlobIndex]]
    """Key to (entry that named it, index)."""

    def entries(self, without: frozenset[str] = frozenset()) -> Iterator[tuple[Digest, Location]]:
        """Yield where each blob is, but for the containers `without`."""
        for _, index in self.indexes.values():
            for name, at in index:
                if at.key not in without:
                    yield name, at

    def touching(self, containers: frozenset[str]) -> list[str]:
        """Keys of the indexes that name one of `containers`."""
        return [key for key, (_, index) in self.indexes.items() if not containers.isdisjoint(index.containers)]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep would take."""

    keys: tuple[tuple[str, int], ...] = ()
    """Objects with their sizes, that nothing refers to and no index names."""
    dead: tuple[tuple[str, int], ...] = ()
    """Published packs of which nothing is alive."""
    repack: tuple[tuple[str, int, int], ...] = ()
    """Published packs with their sizes and the bytes alive in them, to be packed anew."""
    young: int = 0
    """Objects that nothing refers to and that are left for now: somebody may be about to."""
    young_bytes: int = 0
    more: bool = False
    """Not all of it fits into one sweep."""

    @property
    def freed_bytes(self) -> int:
        """Bytes that the sweep gives back."""
        return (
            sum(size for _, size in self.keys)
            + sum(size for _, size in self.dead)
            + sum(size - alive for _, size, alive in self.repack)
        )

    @property
    def objects(self) -> int:
        """Objects that it deletes."""
        return len(self.keys) + len(self.dead) + len(self.repack)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return (objects, bytes) by kind: the first part of the key."""
        counted: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for key, size in (*self.keys, *self.dead, *((key, size - alive) for key, size, alive in self.repack)):
            kind = key.partition("/")[0]
            counted[kind] += 1
            sizes[kind] += size
        return {kind: (counted[kind], sizes[kind]) for kind in sorted(counted)}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with stable keys."""
        return {
            "objects": self.objects,
            "bytes": self.freed_bytes,
            "keys": [key for key, _ in self.keys],
            "dead_packs": [key for key, _ in self.dead],
            "repacked": [key for key, _, _ in self.repack],
            "young": self.young,
            "young_bytes": self.young_bytes,
            "more": self.more,
        }


def read_contents(backend: Backend, state: State) -> Contents:
    """Read all published indexes.

    Raises
    ------
    NotFoundError, CorruptError
        One is missing or damaged: nobody can tell then what it says is alive.
    """
    named = {key: n for n, key in state.named_indexes()}
    keys = sorted(named)
    bodies = backend.get_many([(key, None, None) for key in keys]) if keys else []
    return Contents({key: (named[key], BlobIndex(body, key)) for key, body in zip(keys, bodies, strict=True)})


@dataclass(slots=True)
class _Listing:
    keys: list[tuple[str, int]] = field(default_factory=list)
    young: int = 0
    young_bytes: int = 0


def plan_sweep(
    state: State,
    marked: Marked,
    contents: Contents,
    listed: Iterable[Aged],
    *,
    orphan_indexes: Mapping[str, tuple[str, ...]],
    written_before_s: float,
    only: frozenset[str] | None = None,
) -> Plan:
    """Decide what may go.

    Parameters
    ----------
    state
        What `marked` and `contents` were read from.
    listed
        Objects below ``nodes/``, ``objects/``, ``packs/``, ``results/`` and ``index/``, listed after `state` was read.
    orphan_indexes
        Listed indexes that nothing names, with the containers that they are over.
    written_before_s
        Unpublished objects written later are left; infinite: none are. Of unknown age: left, unless infinite.
    only
        Take nothing but these (a list that was looked at before); None: no such bound.
    """
    sizes: dict[str, int] = {}
    recorded = set(state.packs())
    published = {at for _, index in contents.indexes.values() for at in index.containers} | recorded
    found = _Listing()
    indexes: list[Aged] = []
    for item in listed:
        kind = item.key.partition("/")[0]
        if kind == INDEX_PREFIX:
            indexes.append(item)
            continue
        if kind in (PACK_PREFIX, SEGMENT_PREFIX):
            sizes[item.key] = item.size
        if _is_used(item.key, kind, marked, published):
            continue
        if only is not None and item.key not in only:
            continue
        _take(found, item, written_before_s)
    gone = {key for key, _ in found.keys}
    for item in indexes:
        # An index over packs of which none is left can never be written again: it holds their names.
        over = orphan_indexes.get(item.key)
        unheld = over is not None and all(pack in gone or pack not in sizes for pack in over)
        if unheld and (only is None or item.key in only):
            _take(found, item, written_before_s)
    dead, repack = _containers(marked, contents, recorded, sizes, only)
    keys = found.keys[:MAX_KEYS]
    chosen_dead, chosen_repack = dead[:MAX_CONTAINERS], repack[: max(0, MAX_CONTAINERS - len(dead))]
    return Plan(
        keys=tuple(keys),
        dead=tuple(chosen_dead),
        repack=tuple(chosen_repack),
        young=found.young,
        young_bytes=found.young_bytes,
        more=len(keys) < len(found.keys) or len(chosen_dead) + len(chosen_repack) < len(dead) + len(repack),
    )


def is_alive(key: str, marked: Marked) -> bool:
    """Whether a node or a loose object is marked."""
    kind, _, rest = plain_key(key).partition("/")
    try:
        name = from_hex(rest.replace("/", ""))
    except ValueError:
        return True  # not ours: left alone
    return name in (marked.nodes if kind == NODE_PREFIX else marked.blobs)


def _is_used(key: str, kind: str, marked: Marked, published: set[str]) -> bool:
    if kind in (NODE_PREFIX, OBJECT_PREFIX):
        return is_alive(key, marked)
    if kind == SEGMENT_PREFIX and key.split("/", 2)[1] in marked.running:
        return True
    return key in published


def _take(found: _Listing, item: Aged, written_before_s: float) -> None:
    if written_before_s == float("inf") or (item.written_s is not None and item.written_s < written_before_s):
        found.keys.append((item.key, item.size))
    else:
        found.young += 1
        found.young_bytes += item.size


def _containers(
    marked: Marked,
    contents: Contents,
    recorded: set[str],
    sizes: Mapping[str, int],
    only: frozenset[str] | None,
) -> tuple[list[tuple[str, int]], list[tuple[str, int, int]]]:
    alive: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for name, at in contents.entries():
        total[at.key] += at.stored
        if name in marked.blobs:
            alive[at.key] += at.stored
    dead: list[tuple[str, int]] = []
    repack: list[tuple[str, int, int]] = []
    for key in sorted({*total, *recorded}):
        if key in marked.segments or key not in sizes or (only is not None and key not in only):
            continue
        if key.startswith(f"{SEGMENT_PREFIX}/") and key.split("/", 2)[1] in marked.running:
            continue
        if not alive[key]:
            dead.append((key, sizes[key]))
        elif alive[key] < REPACK_BELOW * total[key]:
            repack.append((key, sizes[key], alive[key]))
    return dead, repack


def read_orphans(backend: Backend, listed: Iterable[Aged], contents: Contents) -> dict[str, tuple[str, ...]]:
    """Return the listed indexes that nothing names, with what they are over; unreadable ones are left out."""
    found = {}
    for item in listed:
        if item.key.startswith(f"{INDEX_PREFIX}/") and item.key not in contents.indexes:
            try:
                found[item.key] = BlobIndex(backend.get(item.key), item.key).containers
            except (NotFoundError, CorruptError):
                continue
    return found
