"""Input expressions bound to commits, as sorted streams of combinations, and how they differ between commits.

A key is a list of parts without NUL, joined by NUL; so keys sort as lists do. Parts, by kind of node:

1. A leaf: the key of its piece.
2. A cross: the parts of each side.
3. A union: the member's number (two hex digits), then the member's parts.

Joins and groups are in `keyed.py`. Every node has *slots*, the names that come in; a combination has a piece for each,
or None where a name is absent.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from .items import FileSource, Piece, Source
from .templates import Template

__all__ = [
    "ANY_TEMPLATE",
    "SEPARATOR",
    "Combination",
    "CrossStream",
    "DatumChange",
    "LeafStream",
    "Stream",
    "UnionStream",
]

SEPARATOR = b"\0"
ANY_TEMPLATE = ("\0join_on", "\0group_by")
"""Names under which what is wanted gives the value of a file's template instead of a capture."""

_REPLAY_MAX = 1 << 16
"""Combinations of an inner side that are kept for the next round; more are read again."""

_T = TypeVar("_T")

Wanted = Sequence[Mapping[str, str]]
"""Captures and their texts; what agrees with one of them is wanted."""


class Combination(NamedTuple):
    """A datum, or a part of one, that has no fingerprint yet."""

    key: bytes
    pieces: tuple[Piece | None, ...]
    """One per slot."""

    def capture(self, name: str) -> str | None:
        """Text of a capture of the first piece that has it."""
        for piece in self.pieces:
            if piece is not None and name in piece.item.captures:
                return piece.item.captures[name]
        return None


class DatumChange(NamedTuple):
    """A datum that differs between two sets of commits; None: not there."""

    key: bytes
    old: Combination | None
    new: Combination | None


class Stream(Protocol):
    """A node of an expression, bound to commits."""

    @property
    def slots(self) -> tuple[str, ...]:
        """Names that come in."""
        ...

    def rows(self) -> Iterator[Combination]:
        """Every combination, sorted by key."""
        ...

    def span(self, parts: Sequence[bytes], at: int) -> int:
        """Where in a key's parts this node's end, if they begin at `at`; beyond the end: this is no key of it."""
        ...

    def get(self, key: bytes) -> Combination | None:
        """Return the combination with that key."""
        ...

    def count(self) -> int:
        """Number of combinations."""
        ...

    def changes(self, new: Any) -> Iterator[DatumChange]:
        """Combinations that differ in `new`, which is made of the same expression; sorted by key."""
        ...

    def matching(self, wanted: Wanted) -> Iterator[Combination]:
        """At least the combinations that agree with one of `wanted` in every capture both have, sorted by key."""
        ...

    def record(self) -> dict[str, str]:
        """What a context remembers of each leaf, by label."""
        ...


class LeafStream:
    """One input.

    Parameters
    ----------
    label, mark
        As in `Placed`.
    variables
        Given along as captures: what a command is told of this input.
    templates
        Of a spec: name in `ANY_TEMPLATE` to the variable and the template that make it.
    """

    def __init__(
        self,
        source: Source,
        *,
        label: str,
        mark: bytes = b"",
        variables: Mapping[str, str] | None = None,
        templates: Mapping[str, tuple[str, Template]] | None = None,
    ) -> None:
        self.source = source
        self.slots = (source.name,)
        self._label = label
        self._mark = mark
        self._variables = dict(variables or {})
        self._templates = dict(templates or {})
        self._plain = not (mark or self._variables or self._templates)

    def rows(self) -> Iterator[Combination]:
        """Every piece."""
        return map(self._row, self.source.pieces())

    def span(self, parts: Sequence[bytes], at: int) -> int:
        """One part."""
        return at + 1

    def get(self, key: bytes) -> Combination | None:
        """Return the piece with that key."""
        piece = self.source.get(key)
        return None if piece is None else self._row(piece)

    def count(self) -> int:
        """Number of pieces."""
        return self.source.count()

    def changes(self, new: LeafStream) -> Iterator[DatumChange]:
        """Pieces that differ."""
        # Both come from one expression, so they are of one kind, which is what the protocol asks for.
        other: Any = new.source
        for key, before, after in self.source.changes(other):
            yield DatumChange(
                key, None if before is None else self._row(before), None if after is None else new._row(after)
            )

    def matching(self, wanted: Wanted) -> Iterator[Combination]:
        """Pieces with one of the captures: sought one by one where that is faster than listing."""
        bindings = self._bindings(wanted)
        if bindings is None or not isinstance(self.source, FileSource):
            yield from self.rows()
            return
        yield from map(self._row, self.source.with_captures(bindings))

    def record(self) -> dict[str, str]:
        """What a context remembers."""
        return {self._label: self.source.record()}

    def _row(self, piece: Piece) -> Combination:
        return Combination(piece.key, (piece if self._plain else self._told(piece),))

    def _told(self, piece: Piece) -> Piece:
        captures = piece.item.captures
        told = {variable: template.fill(captures) for variable, template in self._templates.values()}
        return piece.told({**captures, **told, **self._variables}, self._mark)

    def _bindings(self, wanted: Wanted) -> list[dict[str, str]] | None:
        """What of `wanted` speaks of this leaf's captures; None if all pieces must be looked at."""
        if not isinstance(self.source, FileSource):
            return None
        names = self.source.glob.captures
        found = []
        for one in wanted:
            bound = {name: text for name, text in one.items() if name in names}
            for name in ANY_TEMPLATE:
                if name in one and name in self._templates:
                    inverted = self._templates[name][1].invert(one[name], names)
                    if inverted is None:
                        return None
                    bound |= inverted
            if not bound:
                return None
            found.append(bound)
        return found


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
        return _records(self.children)


class UnionStream:
    """The combinations of each member, one after the other."""

    def __init__(self, children: Sequence[Stream]) -> None:
        self.children = tuple(children)
        self.slots = tuple(dict.fromkeys(slot for child in self.children for slot in child.slots))
        self._places = [[self.slots.index(slot) for slot in child.slots] for child in self.children]

    def rows(self) -> Iterator[Combination]:
        """Every combination."""
        for at, child in enumerate(self.children):
            yield from (self._row(at, row) for row in child.rows())

    def span(self, parts: Sequence[bytes], at: int) -> int:
        """The member's number, and its parts."""
        member = self._member(parts[at])
        if member is None or at + 1 >= len(parts):
            return len(parts) + 1
        return self.children[member].span(parts, at + 1)

    def get(self, key: bytes) -> Combination | None:
        """Return the combination with that key."""
        number, separator, rest = key.partition(SEPARATOR)
        member = self._member(number)
        if member is None or not separator:
            return None
        row = self.children[member].get(rest)
        return None if row is None else self._row(member, row)

    def count(self) -> int:
        """Number of combinations."""
        return sum(child.count() for child in self.children)

    def changes(self, new: UnionStream) -> Iterator[DatumChange]:
        """Combinations that differ, member by member."""
        for at, (before, after) in enumerate(zip(self.children, new.children, strict=True)):
            for key, old, came in before.changes(after):
                yield DatumChange(
                    self._key(at, key),
                    None if old is None else self._row(at, old),
                    None if came is None else self._row(at, came),
                )

    def matching(self, wanted: Wanted) -> Iterator[Combination]:
        """What matches in each member."""
        for at, child in enumerate(self.children):
            yield from (self._row(at, row) for row in child.matching(wanted))

    def record(self) -> dict[str, str]:
        """What a context remembers."""
        return _records(self.children)

    def _key(self, member: int, key: bytes) -> bytes:
        return b"%02x\0" % member + key

    def _member(self, number: bytes) -> int | None:
        text = number.decode("ascii", "replace")
        members = (at for at in range(len(self.children)) if text == f"{at:02x}")
        return next(members, None)

    def _row(self, member: int, row: Combination) -> Combination:
        pieces: list[Piece | None] = [None] * len(self.slots)
        for place, piece in zip(self._places[member], row.pieces, strict=True):
            pieces[place] = piece
        return Combination(self._key(member, row.key), tuple(pieces))


def _captures_only(wanted: Wanted) -> Wanted:
    """Without templates' values: only of a single leaf is such a value the whole key."""
    return [{name: text for name, text in one.items() if name not in ANY_TEMPLATE} for one in wanted]


def _records(children: Iterable[Stream]) -> dict[str, str]:
    return {label: text for child in children for label, text in child.record().items()}


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
