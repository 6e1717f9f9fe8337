"""What datums do to the paths of an output, as edits of P and out; and whether two of them meet.

What each datum does to a path is sorted by path (`sorting.py`), and gone through once.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter, itemgetter

import msgspec

from ...storage.objects.value import decode_value
from ...storage.trees.prolly import Tree
from ...storage.trees.tree_update import Edit
from ..planning.datums import SEPARATOR
from .sorting import SortedRecords

__all__ = ["KNOWN", "LEAVES", "MADE", "Conflict", "PathEdits"]

_encode = msgspec.msgpack.Encoder().encode
_decode_p = msgspec.msgpack.Decoder(tuple[bytes, bytes]).decode


@dataclasses.dataclass(frozen=True, slots=True)
class Conflict:
    """Two datums want the same path, or one wants a file where another wants a folder."""

    path: str
    other_path: str
    key: bytes
    other_key: bytes | None
    """None: not a datum's but the array's own metadata."""


class _Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one datum does to one path of the output."""

    rank: int
    key: bytes
    origin: bytes
    value: bytes


LEAVES, KNOWN, MADE = 0, 1, 2
"""Ranks: the datum's output leaves; it comes from memory; this job made it."""

_TOGETHER = 4096
"""Paths that are looked up at once."""

_decode_event = msgspec.msgpack.Decoder(_Event).decode
_rank = attrgetter("rank")
_SLASH = ord("/")


def _events_of(groups: Iterable[tuple[bytes, Iterable[tuple[bytes, bytes]]]]) -> Iterator[tuple[bytes, list[_Event]]]:
    for name, records in groups:
        events = [_decode_event(raw) for _, raw in records]
        if len(events) > 1:
            events.sort(key=_rank)
        yield name, events


class PathEdits:
    """From what datums do to paths to edits of P and out, path by path, with the checks that two datums do not meet.

    Parameters
    ----------
    shared
        Datums of equal content may share their outputs: P then holds (path, NUL, datum key) for all but one.
    """

    def __init__(self, out: Tree, p: Tree, *, shared: bool) -> None:
        self._old_out = out
        self._old_p = p
        self._shared = shared
        self._fresh = out.is_empty()
        self._events = SortedRecords()
        self._new_names = SortedRecords()
        """Paths that were not there before, where others were."""
        self.out = SortedRecords()
        """Edits of out, empty for what goes: known once those of P are."""
        self._above: list[tuple[bytes, bytes]] = []
        """(path, datum key) of files whose names the present path begins with."""
        self.conflict: Conflict | None = None
        self.size_change = 0

    def note(self, rank: int, path: str, key: bytes, origin: bytes, value: bytes) -> None:
        """Take what a datum does to a path."""
        self._events.add(path.encode(), _encode(_Event(rank, key, origin, value)))

    @property
    def about(self) -> int:
        """How many edits of P there will be at most, without what is shared."""
        return len(self._events)

    def edits(self) -> Iterator[Edit]:
        """Yield the edits of P, sorted; ends early at a conflict."""
        groups = itertools.groupby(self._events, key=itemgetter(0))
        while batch := list(_events_of(itertools.islice(groups, _TOGETHER))):
            names = [name for name, _ in batch]
            there: Sequence[bytes | None] = [None] * len(names)
            owners = there
            if not self._fresh:
                there, owners = self._old_out.get_many(names), self._old_p.get_many(names)
            for (name, events), value, owner in zip(batch, there, owners, strict=True):
                yield from (
                    self._share(name, events, value, owner) if self._shared else self._own(name, events, value, owner)
                )
                if self.conflict is not None:
                    return

    def _own(self, name: bytes, events: list[_Event], there: bytes | None, owner: bytes | None) -> Iterator[Edit]:
        """A path that one datum may have."""
        coming = events if events[0].rank != LEAVES else events[1:]
        leaves = len(coming) < len(events)
        other: bytes | None = None
        for event in coming[1:]:
            other = event.key
        if coming and not leaves and there is not None and other is None:
            other = _decode_p(owner)[0] if owner is not None else None
            if other == coming[0].key:
                other = None
            else:
                self.conflict = _clash(name, name, coming[0].key, other)
                return
        if other is not None:
            self.conflict = _clash(name, name, other, coming[0].key)
            return
        if coming:
            yield name, _encode((coming[0].key, coming[0].origin))
            self._put(name, coming[0].key, coming[0].value, there)
        else:
            yield name, None
            self._take(name, there)

    def _share(self, name: bytes, events: list[_Event], there: bytes | None, owner: bytes | None) -> Iterator[Edit]:
        """A path that datums of equal content may have together."""
        gone = {event.key for event in events if event.rank == LEAVES}
        prefix = name + SEPARATOR
        places = dict(self._old_p.prefix(prefix)) if owner is not None else {}
        first = owner
        edits: dict[bytes, bytes | None] = {prefix + key: None for key in gone if prefix + key in places}
        stay = sorted(place for place in places if place not in edits)
        if owner is not None and _decode_p(owner)[0] in gone:
            first = places[stay[0]] if stay else None
            if stay:
                edits[stay.pop(0)] = None
        value = there if first is not None else None
        for event in events:
            if event.rank == LEAVES:
                continue
            if first is None and (owner is not None or there is None):
                first, value = _encode((event.key, event.origin)), event.value
            elif first is None or value != event.value:
                self.conflict = _clash(name, name, event.key, _decode_p(first)[0] if first is not None else None)
                return
            elif _decode_p(first)[0] == event.key:
                first = _encode((event.key, event.origin))
            else:
                edits[prefix + event.key] = _encode((event.key, event.origin))
        edits[name] = first
        if first is None:
            self._take(name, there)
        elif value is not None:
            self._put(name, _decode_p(first)[0], value, there)
        yield from sorted(edits.items())

    def _put(self, name: bytes, key: bytes, value: bytes, before: bytes | None) -> None:
        self.size_change += decode_value(value).size - (decode_value(before).size if before is not None else 0)
        self.out.add(name, value)
        while self._above and not name.startswith(self._above[-1][0]):
            self._above.pop()
        for path, other in self._above:
            if name[len(path)] == _SLASH:
                self.conflict = _clash(name, path, key, other)
        self._above.append((name, key))
        if before is None and not self._fresh:
            self._new_names.add(name, key)

    def _take(self, name: bytes, before: bytes | None) -> None:
        if before is not None:
            self.size_change -= decode_value(before).size
        self.out.add(name, b"")

    def check_folders(self, p: Tree) -> None:
        """Find a file where another datum has a folder, given the new P: of what is new, beside what was there."""
        fine: set[bytes] = set()
        empty: tuple[bytes, bool] = (b"", False)
        for name, key in self._new_names:
            at = name.rfind(b"/")
            parent = name[: at + 1]
            if parent != empty[0] or not parent:
                fine = set()
                empty = (parent, next(self._old_p.prefix(parent), None) is None)
            while at > 0 and (folder := name[:at]) not in fine:
                owner = p.get(folder)
                if owner is not None:
                    self.conflict = _clash(name, folder, key, _decode_p(owner)[0])
                    return
                fine.add(folder)
                at = name.rfind(b"/", 0, at)
            # Where its folder was empty it was none; what else is new was compared already.
            for below, raw in () if empty[1] else p.prefix(name + b"/"):
                if SEPARATOR not in below:
                    self.conflict = _clash(name, below, key, _decode_p(raw)[0])
                    return

    def close(self) -> None:
        """Give back what was sorted."""
        for records in (self._events, self._new_names, self.out):
            records.close()


def _clash(path: bytes, other_path: bytes, key: bytes, other_key: bytes | None) -> Conflict:
    return Conflict(path.decode(), other_path.decode(), key, other_key)
