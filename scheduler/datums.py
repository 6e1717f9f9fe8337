"""From inputs to datums, and from two sets of commits to the datums that differ.

A `Bound` is a pipeline's varying inputs bound to commits, in the order of the datum key. Rules:

1. A combination's key is its pieces' keys joined by NUL, which no key contains; so keys sort as tuples do.
2. `enumerate` and `delta` yield in key order and hold no more than what the inner inputs of a cross yield.
3. `delta` reads what changed of each input; of a cross, the changed side times the other.

Constant inputs stand in the context K; here they count only as present or not.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, cast

import msgspec

from ..storage.prolly import Tree
from ..worker.job import Datum
from .fingerprint import datum_fingerprint
from .inputs import Array, Files, Input, Leaf, Values, is_constant, leaves
from .items import FileSource, Piece, PieceChange, Source, ValueSource
from .regions import ArraySource

__all__ = ["SEPARATOR", "Bound", "Combination", "DatumChange", "bind"]

SEPARATOR = b"\0"
_REPLAY_MAX = 1 << 16
"""Pieces of an inner input that are kept for the next round; more are read again."""

_T = TypeVar("_T")


class Combination(NamedTuple):
    """A datum that has no fingerprint yet."""

    key: bytes
    pieces: tuple[Piece, ...]
    """One per varying input, in the order of the key."""


class DatumChange(NamedTuple):
    """A datum that differs between two sets of commits; None: not there."""

    key: bytes
    old: Combination | None
    new: Combination | None


class Bound:
    """Varying inputs bound to commits, in the order of the datum key.

    Parameters
    ----------
    sources
        The varying inputs in the order of the key.
    declared
        Their names in declared order, which is the order in fingerprints.
    complete
        Whether every constant input has a commit. If not there is no datum.
    """

    def __init__(self, sources: Sequence[Source], declared: Sequence[str], *, complete: bool = True) -> None:
        self.sources = tuple(sources)
        self.complete = complete
        self.order = tuple(source.name for source in sources)
        self._declared = [(name, self.order.index(name)) for name in declared]

    def enumerate(self) -> Iterator[Combination]:
        """Every datum, sorted by key."""
        if self.complete:
            repeats = [_Replay(source.pieces) for source in self.sources]
            yield from (_combination(pieces) for pieces in _product(repeats))

    def get(self, key: bytes) -> Combination | None:
        """Return the datum with that key."""
        parts = key.split(SEPARATOR) if self.sources else []
        if not self.complete or len(parts) != len(self.sources) or (not self.sources and key):
            return None
        pieces = [source.get(part) for source, part in zip(self.sources, parts, strict=True)]
        return _combination(tuple(piece for piece in pieces if piece)) if all(pieces) else None

    def count(self) -> int:
        """Number of datums, from each input's own count."""
        total = int(self.complete)
        for source in self.sources:
            total = total and total * source.count()
        return total

    def grown(self, new: Bound, total: int) -> int:
        """Number of datums of `new`, if here there are `total`.

        Lists all inputs but the first of the order, and counts the first from what changed.
        """
        if not self.sources or not total or self.complete != new.complete:
            return new.count()
        inner = 1
        for source in self.sources[1:]:
            inner *= source.count()
        first, remainder = divmod(total, inner)
        if remainder:
            return new.count()
        for change in self.sources[0].changes(new.sources[0]):
            first += (change.new is not None) - (change.old is not None)
        for source in new.sources[1:]:
            first *= source.count()
        return first

    def delta(self, new: Bound) -> Iterator[DatumChange]:
        """Datums that differ in `new`, sorted by key.

        `new` has the same inputs in the same order. Reads the nodes in which the trees differ; where a side of a
        cross changed that is not first in the order, also lists the sides before it.
        """
        if self.complete and new.complete:
            yield from (_change(pairs) for pairs in _Delta(self.sources, new.sources).changed(0))
        else:
            yield from (DatumChange(found.key, found, None) for found in self.enumerate())
            yield from (DatumChange(found.key, None, found) for found in new.enumerate())

    def fingerprint(self, context: bytes, found: Combination) -> bytes:
        """Fingerprint of a datum under the context K."""
        pieces = found.pieces
        return datum_fingerprint(
            context, [(name, [(pieces[at].key, pieces[at].content)]) for name, at in self._declared]
        )

    def datum(self, context: bytes, found: Combination) -> Datum:
        """Return a datum as workers see it."""
        return Datum(found.key, self.fingerprint(context, found), tuple(piece.item for piece in found.pieces))

    def record(self) -> dict[str, str]:
        """What a context remembers of these inputs."""
        return {source.name: source.record() for source in self.sources}


def bind(
    node: Input,
    trees: Mapping[str, Tree | None],
    *,
    order: Sequence[str] = (),
    read: Callable[[bytes], bytes],
) -> Bound:
    """Bind an expression to commits.

    Parameters
    ----------
    trees
        Root tree of the commit of each input that has a repo, by name; None: there is no commit.
    order
        Varying inputs in the order of the key; empty: the one that yields most first, else as declared. (Then a
        change of a small side touches keys everywhere, and one of the large side a run of them.)
    read
        Content of a file, given its encoded tree value (array inputs need their metadata).
    """
    found = leaves(node)
    varying = [leaf for leaf in found if not is_constant(leaf)]
    complete = all(trees[leaf.name] is not None for leaf in found if is_constant(leaf))
    sources = [_source(leaf, trees, read) for leaf in varying]
    return _ordered(sources, order, complete=complete)


def rebind(
    node: Input,
    inputs: Mapping[str, str],
    bound: Bound,
    *,
    open_tree: Callable[[str], Tree],
    read: Callable[[bytes], bytes],
) -> Bound:
    """Bind an expression to what a context remembers (`Bound.record`), with constants and order as in `bound`."""
    trees: dict[str, Tree | None] = {}
    sources: list[Source] = []
    for leaf in leaves(node):
        if is_constant(leaf):
            continue
        recorded = inputs.get(leaf.name, "")
        if isinstance(leaf, Values):
            sources.append(ValueSource.bind(leaf.name, tuple(msgspec.json.decode(recorded or "[]"))))
        else:
            trees[leaf.name] = open_tree(recorded) if recorded else None
            sources.append(_source(leaf, trees, read))
    return _ordered(sources, bound.order, complete=bound.complete)


def _source(leaf: Leaf, trees: Mapping[str, Tree | None], read: Callable[[bytes], bytes]) -> Source:
    match leaf:
        case Files():
            return FileSource.bind(leaf.name, leaf.glob, trees[leaf.name])
        case Array():
            return ArraySource.bind(leaf.name, leaf.path, leaf.halo, trees[leaf.name], read)
        case Values():
            return ValueSource.bind(leaf.name, leaf.values)


def _ordered(sources: list[Source], order: Sequence[str], *, complete: bool) -> Bound:
    declared = [source.name for source in sources]
    if order:
        by_name = {source.name: source for source in sources}
        arranged = [by_name[name] for name in order]
    elif len(sources) > 1:
        arranged = sorted(sources, key=lambda source: -source.count())
    else:
        arranged = sources
    return Bound(arranged, declared, complete=complete)


def _combination(pieces: tuple[Piece, ...]) -> Combination:
    return Combination(SEPARATOR.join([piece.key for piece in pieces]), pieces)


def _change(pairs: tuple[PieceChange, ...]) -> DatumChange:
    key = SEPARATOR.join([pair.key for pair in pairs])
    old = tuple(pair.old for pair in pairs if pair.old is not None)
    new = tuple(pair.new for pair in pairs if pair.new is not None)
    return DatumChange(
        key,
        Combination(key, old) if len(old) == len(pairs) else None,
        Combination(key, new) if len(new) == len(pairs) else None,
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


def _product(repeats: Sequence[_Replay[Piece]]) -> Iterator[tuple[Piece, ...]]:
    # itertools.product would hold every side in memory.
    if not repeats:
        yield ()
    elif len(repeats) == 1:
        yield from ((piece,) for piece in repeats[0])
    else:
        for piece in repeats[0]:
            for rest in _product(repeats[1:]):
                yield (piece, *rest)


class _Delta:
    """The difference of two products, side by side."""

    def __init__(self, old: Sequence[Source], new: Sequence[Source]) -> None:
        self._changes = [_Replay(functools.partial(_changes, *pair)) for pair in zip(old, new, strict=True)]
        self._all = [
            _Replay(functools.partial(_merged, after, changes))
            for after, changes in zip(new, self._changes, strict=True)
        ]
        self._later = [self._any_change_after(at) for at in range(len(new))]

    def changed(self, at: int) -> Iterator[tuple[PieceChange, ...]]:
        """Combinations of the sides from `at` on that differ."""
        if at == len(self._changes):
            return
        for pair in self._all[at] if self._later[at] else self._changes[at]:
            for rest in self.changed(at + 1) if _same(pair) else self.every(at + 1):
                if _lives((pair, *rest)):
                    yield (pair, *rest)

    def every(self, at: int) -> Iterator[tuple[PieceChange, ...]]:
        """All combinations of the sides from `at` on, in either product."""
        if at == len(self._changes):
            yield ()
            return
        for pair in self._all[at]:
            for rest in self.every(at + 1):
                yield (pair, *rest)

    def _any_change_after(self, at: int) -> bool:
        return any(next(iter(changes), None) is not None for changes in self._changes[at + 1 :])


def _same(pair: PieceChange) -> bool:
    return pair.old is pair.new


def _lives(pairs: tuple[PieceChange, ...]) -> bool:
    """Whether a combination is in one of the products at all: an added piece times a removed one is in neither."""
    return all(pair.old is not None for pair in pairs) or all(pair.new is not None for pair in pairs)


def _changes(old: Source, new: Source) -> Iterator[PieceChange]:
    # Both come from one expression, so they are of one kind, which is what the protocol asks for.
    return old.changes(cast("Any", new))


def _merged(source: Source, changes: Iterable[PieceChange]) -> Iterator[PieceChange]:
    """All pieces of both sides: those of the new side, with the changes in their places."""
    same = (PieceChange(piece.key, piece, piece) for piece in source.pieces())
    # Where both have a key, the change comes first: merge is stable.
    merged = heapq.merge(changes, same, key=_key)
    for _, found in itertools.groupby(merged, key=_key):
        yield next(found)


_key = operator.attrgetter("key")
