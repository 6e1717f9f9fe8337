"""The cross of streams: all combinations of their rows, and how two such products differ.

No side is held in memory unless it is small: sides are read again for each row of those before them.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from .streams import ANY_TEMPLATE, SEPARATOR, Combination, DatumChange, Stream, Wanted, records_of

__all__ = ["CrossStream"]

_REPLAY_MAX = 1 << 16
"""Combinations of an inner side that are kept for the next round; more are read again."""

_T = TypeVar("_T")


class CrossStream:
    """All combinations. Reads `children` in the order of the key."""

    def __init__(self, children: Sequence[Stream]) -> None:
        self.children = tuple(children)
        self.slots = tuple(slot for child in self.children for slot in child.slots)

    def rows(self) -> Iterator[Combination]:
        """Every combination; holds no more than what the inner sides yield."""
        if len(self.children) == 1:
            return self.children[0].rows()
        return _product([_Replay(child.rows) for child in self.children])

    def span(self, parts: Sequence[bytes], at: int) -> int:
        """The parts of each side."""
        for child in self.children:
            if at >= len(parts):
                return len(parts) + 1
            at = child.span(parts, at)
        return at

    def get(self, key: bytes) -> Combination | None:
        """Return the combination with that key."""
        if not self.children:
            return None if key else Combination(b"", ())
        parts = key.split(SEPARATOR)
        if self.span(parts, 0) != len(parts):
            return None
        found = []
        at = 0
        for child in self.children:
            end = child.span(parts, at)
            row = child.get(SEPARATOR.join(parts[at:end]))
            if row is None:
                return None
            found.append(row)
            at = end
        return _combined(found)

    def count(self) -> int:
        """Number of combinations, from each side's own count."""
        total = 1
        for child in self.children:
            total = total and total * child.count()
        return total

    def changes(self, new: CrossStream) -> Iterator[DatumChange]:
        """Combinations that differ.

        Where a side changed that is not the first, also lists the sides before it.
        """
        if len(self.children) == 1:
            return self.children[0].changes(new.children[0])
        return (_change(pairs) for pairs in _Delta(self.children, new.children).changed(0))

    def matching(self, wanted: Wanted) -> Iterator[Combination]:
        """The product of what matches on each side."""
        return _product([_Replay(functools.partial(child.matching, _captures_only(wanted))) for child in self.children])

    def record(self) -> dict[str, str]:
        """What a context remembers."""
        return records_of(self.children)


def _captures_only(wanted: Wanted) -> Wanted:
    """Without templates' values: only of a single leaf is such a value the whole key."""
    return [{name: text for name, text in one.items() if name not in ANY_TEMPLATE} for one in wanted]


def _combined(rows: Sequence[Combination]) -> Combination:
    if len(rows) == 1:
        return rows[0]
    return Combination(
        SEPARATOR.join([row.key for row in rows]), tuple(itertools.chain.from_iterable(row.pieces for row in rows))
    )


def _change(pairs: Sequence[DatumChange]) -> DatumChange:
    old = [pair.old for pair in pairs if pair.old is not None]
    new = [pair.new for pair in pairs if pair.new is not None]
    return DatumChange(
        SEPARATOR.join([pair.key for pair in pairs]),
        _combined(old) if len(old) == len(pairs) else None,
        _combined(new) if len(new) == len(pairs) else None,
    )


class _Replay(Generic[_T]):
    """An iterable that is made anew for each round, unless it is small enough to be kept."""

    def __init__(self, make: Callable[[], Iterator[_T]]) -> None:
        self._make = make
        self._kept: list[_T] | None = None

    def __iter__(self) -> Iterator[_T]:
        if self._kept is not None:
            return iter(self._kept)
        return self._first()

    def _first(self) -> Iterator[_T]:
        kept: list[_T] | None = []
        for item in self._make():
            if kept is not None:
                kept.append(item)
                if len(kept) > _REPLAY_MAX:
                    kept = None
            yield item
        self._kept = kept


def _product(repeats: Sequence[_Replay[Combination]]) -> Iterator[Combination]:
    if len(repeats) == 1:
        return iter(repeats[0])
    return map(_combined, _choices(repeats)) if repeats else iter([Combination(b"", ())])


def _choices(repeats: Sequence[_Replay[Combination]]) -> Iterator[tuple[Combination, ...]]:
    # itertools.product would hold every side in memory.
    if not repeats:
        yield ()
        return
    for row in repeats[0]:
        for rest in _choices(repeats[1:]):
            yield (row, *rest)


class _Delta:
    """The difference of two products, side by side."""

    def __init__(self, old: Sequence[Stream], new: Sequence[Stream]) -> None:
        self._changes = [
            _Replay(functools.partial(before.changes, after)) for before, after in zip(old, new, strict=True)
        ]
        self._all = [
            _Replay(functools.partial(_merged, after, changes))
            for after, changes in zip(new, self._changes, strict=True)
        ]
        self._later = [self._any_change_after(at) for at in range(len(new))]

    def changed(self, at: int) -> Iterator[tuple[DatumChange, ...]]:
        """Combinations of the sides from `at` on that differ."""
        if at == len(self._changes):
            return
        for pair in self._all[at] if self._later[at] else self._changes[at]:
            for rest in self.changed(at + 1) if pair.old is pair.new else self.every(at + 1):
                if _lives((pair, *rest)):
                    yield (pair, *rest)

    def every(self, at: int) -> Iterator[tuple[DatumChange, ...]]:
        """All combinations of the sides from `at` on, in either product."""
        if at == len(self._changes):
            yield ()
            return
        for pair in self._all[at]:
            for rest in self.every(at + 1):
                yield (pair, *rest)

    def _any_change_after(self, at: int) -> bool:
        return any(next(iter(changes), None) is not None for changes in self._changes[at + 1 :])


def _lives(pairs: tuple[DatumChange, ...]) -> bool:
    """Whether a combination is in one of the products at all: an added piece times a removed one is in neither."""
    return all(pair.old is not None for pair in pairs) or all(pair.new is not None for pair in pairs)


def _merged(stream: Stream, changes: Iterable[DatumChange]) -> Iterator[DatumChange]:
    """All combinations of both sides: those of the new side, with the changes in their places."""
    same = (DatumChange(row.key, row, row) for row in stream.rows())
    # Where both have a key, the change comes first: merge is stable.
    merged = heapq.merge(changes, same, key=_key)
    for _, found in itertools.groupby(merged, key=_key):
        yield next(found)


_key = operator.attrgetter("key")
