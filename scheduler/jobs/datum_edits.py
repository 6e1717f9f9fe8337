"""What a job does, datum by datum: edits of T. What leaves T goes to S; what comes and goes, to paths."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from ...storage.objects.segment import Outcome
from ...storage.trees.prolly import Tree
from ...storage.trees.tree_update import Edit
from ..planning.memory import memo_key
from ..planning.plan_items import Drop, Hit
from .failures import Failures
from .path_edits import KNOWN, LEAVES, MADE, PathEdits
from .results import Finished
from .sorting import SortedRecords

__all__ = [
    "DatumEdits",
]

_encode = msgspec.msgpack.Encoder().encode
_decode_t = msgspec.msgpack.Decoder(tuple[list[str], bytes]).decode

_TOGETHER = 4096
"""Changes that are looked up at once."""

_Change = tuple[bytes, int, Drop | Hit | Finished]
"""Datum key, rank, what becomes of it."""


def _whole_batches(changes: Iterator[_Change]) -> Iterator[list[_Change]]:
    """Yield what has to be done, some together; what has to be done to one datum is never parted."""
    batch: list[_Change] = []
    while more := list(itertools.islice(changes, _TOGETHER)):
        batch += more
        last = batch[-1][0]
        # What there may be more of waits for the next.
        whole = len(batch)
        while whole and batch[whole - 1][0] == last:
            whole -= 1
        if whole:
            yield batch[:whole]
        batch = batch[whole:]
    if batch:
        yield batch


class DatumEdits:
    """What a job does, datum by datum: edits of T; what leaves T goes to S, what comes and goes to paths."""

    def __init__(self, t: Tree, out: Tree, paths: PathEdits, job: str, *, by_content: bool) -> None:
        self._t = t
        self._out = out
        self._paths = paths
        self._origin = bytes.fromhex(job)
        self._by_content = by_content
        self.s = SortedRecords()
        """Edits of S, empty for what goes; of equal keys the last counts."""
        self._origins: dict[bytes, int] = {}
        self.removed = 0
        self.run = self.finished = 0
        self.failures = Failures()

    def edits(
        self,
        drops: Iterable[Drop],
        hits: Iterable[Hit],
        rows: Iterable[tuple[bytes, Finished, str]],
        lost: Mapping[bytes, bytes],
    ) -> Iterator[Edit]:
        """Yield the edits of T, sorted; what they are made of has to be sorted, too."""
        merged: Iterator[_Change] = heapq.merge(
            ((drop.key, LEAVES, drop) for drop in drops),
            ((hit.key, KNOWN, hit) for hit in hits),
            ((key, MADE, row) for key, row, _ in rows),
        )
        waiting: bytes | None = None
        """Key of a datum that left, if nothing took its place so far."""
        for batch in _whole_batches(merged):
            old = self._leaving([item for _, _, item in batch if isinstance(item, Drop)])
            edits: dict[bytes, bytes | None] = {}
            for key, rank, item in batch:
                if waiting is not None and key != waiting:
                    self.removed += waiting not in lost
                    waiting = None
                if isinstance(item, Drop):
                    waiting = key
                    if key in old:
                        edits[key] = None
                        self._leave(item, *old[key])
                    continue
                waiting = None
                if isinstance(item, Hit):
                    if not self._by_content:
                        self.s.add(key + item.fingerprint, b"")
                    edits[key] = self._come(rank, key, item.origin, item.outputs)
                    continue
                self.finished += 1
                if item.outcome != Outcome.OK:
                    self.failures.add(key, item)
                    continue
                self.run += 1
                origin = self._origin
                if self._by_content:
                    self.s.add(item.fingerprint, _encode((origin, list(item.outputs))))
                edits[key] = self._come(rank, key, origin, item.outputs)
            yield from edits.items()
        if waiting is not None:
            self.removed += waiting not in lost

    def _leaving(self, drops: Sequence[Drop]) -> dict[bytes, tuple[bytes, list[tuple[str, bytes]]]]:
        """(job that made it, outputs) of those that T has."""
        known = [
            (drop.key, *_decode_t(raw))
            for drop, raw in zip(drops, self._t.get_many([drop.key for drop in drops]), strict=True)
            if raw is not None
        ]
        # Together and sorted: one by one, each path would cost a way down the tree.
        names = sorted({path.encode() for _, paths, _ in known for path in paths})
        values = dict(zip(names, self._out.get_many(names), strict=True))
        return {
            key: (made_by, [(path, value) for path in paths if (value := values[path.encode()]) is not None])
            for key, paths, made_by in known
        }

    def _leave(self, drop: Drop, made_by: bytes, outputs: list[tuple[str, bytes]]) -> None:
        self.s.add(memo_key(drop.key, drop.old_fingerprint, self._by_content), _encode((made_by, outputs)))
        self._count(made_by, -1)
        for path, _ in outputs:
            self._paths.note(LEAVES, path, drop.key, made_by, b"")

    def _come(self, rank: int, key: bytes, origin: bytes, outputs: Iterable[tuple[str, bytes]]) -> bytes:
        paths = []
        for path, value in outputs:
            paths.append(path)
            self._paths.note(rank, path, key, origin, value)
        self._count(origin, 1)
        return _encode((paths, origin))

    def _count(self, origin: bytes, change: int) -> None:
        self._origins[origin] = self._origins.get(origin, 0) + change

    def origins(self) -> dict[str, int]:
        """By how much the number of live datums changed, per job that computed them."""
        return {origin.hex(): change for origin, change in self._origins.items() if change}
