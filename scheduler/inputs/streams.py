"""Input expressions bound to commits, as sorted streams of combinations, and how they differ between commits.

A key is a list of parts without NUL, joined by NUL; so keys sort as lists do. Parts, by kind of node:

1. A leaf: the key of its piece.
2. A cross: the parts of each side.
3. A union: the member's number (two hex digits), then the member's parts.

Crosses are in `product`, joins and groups in `keyed`. Every node has *slots*, the names that come in; a combination has
a piece for each, or None where a name is absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from .items import FileSource, Piece, Source
from .templates import Template

__all__ = [
    "ANY_TEMPLATE",
    "SEPARATOR",
    "Combination",
    "DatumChange",
    "LeafStream",
    "Stream",
    "UnionStream",
]

SEPARATOR = b"\0"
ANY_TEMPLATE = ("\0join_on", "\0group_by")
"""Names under which what is wanted gives the value of a file's template instead of a capture."""


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
        return records_of(self.children)

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


def records_of(children: Iterable[Stream]) -> dict[str, str]:
    """What a context remembers of all leaves below some nodes."""
    return {label: text for child in children for label, text in child.record().items()}
