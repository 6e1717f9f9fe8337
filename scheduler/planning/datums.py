"""From inputs to datums, and from two sets of commits to the datums that differ.

A `Bound` is a pipeline's varying inputs bound to commits. Its sides are those of the cross that the expression is; they
come in the order of the datum key, whose parts `streams.py` and `keyed.py` describe. `enumerate` and `delta` yield in
key order. `delta` reads what changed of each input; of a cross, the changed side times the other.

Constant inputs stand in the context K; here they count only as present or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from ...storage.glob import compile_glob
from ...storage.trees.prolly import Tree
from ...worker.job import Datum, Item
from ..inputs.expression import Array, Cross, Files, Group, Input, Join, Union, Values
from ..inputs.items import FileSource, Piece, Source, ValueSource
from ..inputs.keyed import GroupStream, JoinStream, Key, group_variable, join_variable
from ..inputs.product import CrossStream
from ..inputs.regions import ArraySource
from ..inputs.streams import ANY_TEMPLATE, SEPARATOR, Combination, DatumChange, LeafStream, Stream, UnionStream
from ..inputs.templates import Template
from ..inputs.walk import Placed, constants, factors, placed
from .fingerprint import datum_fingerprint

__all__ = ["SEPARATOR", "Bound", "Combination", "DatumChange", "bind", "rebind"]


class Bound:
    """Varying inputs bound to commits, in the order of the datum key.

    Parameters
    ----------
    sides
        The sides of the cross, in the order of the key.
    declared
        Names of all that comes in, in declared order, which is the order in fingerprints.
    complete
        Whether every constant input has a commit. If not there is no datum.
    by_content
        Where files stand is not in fingerprints.
    """

    def __init__(
        self, sides: Sequence[Stream], declared: Sequence[str], *, complete: bool = True, by_content: bool = False
    ) -> None:
        self.sides = tuple(sides)
        self.complete = complete
        self._contents = _nameless if by_content else _contents
        self.order = tuple(slot for side in self.sides for slot in side.slots)
        self._cross = CrossStream(self.sides)
        self._declared = [(name, self.order.index(name)) for name in declared]

    def enumerate(self) -> Iterator[Combination]:
        """Every datum, sorted by key."""
        return self._cross.rows() if self.complete else iter(())

    def get(self, key: bytes) -> Combination | None:
        """Return the datum with that key."""
        return self._cross.get(key) if self.complete else None

    def count(self) -> int:
        """Number of datums, from each side's own count."""
        return self._cross.count() if self.complete else 0

    def grown(self, new: Bound, total: int) -> int:
        """Number of datums of `new`, if here there are `total`.

        Lists all sides but the first of the order, and counts the first from what changed.
        """
        if not self.sides or not total or self.complete != new.complete:
            return new.count()
        inner = CrossStream(self.sides[1:]).count()
        first, remainder = divmod(total, inner)
        if remainder:
            return new.count()
        for change in self.sides[0].changes(new.sides[0]):
            first += (change.new is not None) - (change.old is not None)
        return first * CrossStream(new.sides[1:]).count()

    def delta(self, new: Bound) -> Iterator[DatumChange]:
        """Datums that differ in `new`, sorted by key.

        `new` has the same inputs in the same order. Reads the nodes in which the trees differ; where a side of a
        cross changed that is not first in the order, also lists the sides before it.
        """
        if self.complete and new.complete:
            if self.sides:
                yield from self._cross.changes(new._cross)
        else:
            yield from (DatumChange(found.key, found, None) for found in self.enumerate())
            yield from (DatumChange(found.key, None, found) for found in new.enumerate())

    def fingerprint(self, context: bytes, found: Combination) -> bytes:
        """Fingerprint of a datum under the context K."""
        pieces = found.pieces
        return datum_fingerprint(context, [(name, self._contents(pieces[at])) for name, at in self._declared])

    def datum(self, context: bytes, found: Combination) -> Datum:
        """Return a datum as workers see it."""
        items = tuple(_ABSENT if piece is None else piece.item for piece in found.pieces)
        return Datum(found.key, self.fingerprint(context, found), items)

    def record(self) -> dict[str, str]:
        """What a context remembers of these inputs, by label."""
        return self._cross.record()


_ABSENT = Item("", "n")
_NAMED = ("f", "d", "l")
"""Kinds of items whose path is a name, not a value or a place in an array."""


def _contents(piece: Piece | None) -> list[tuple[bytes, bytes]]:
    if piece is None:
        return []
    files = piece.members or (piece,)
    return [(file.key + SEPARATOR + file.mark if file.mark else file.key, file.content) for file in files]


def _nameless(piece: Piece | None) -> list[tuple[bytes, bytes]]:
    """As `_contents`, for datums that are known by content: of files no path counts, and no order."""
    if piece is None or piece.item.kind not in _NAMED:
        return _contents(piece)
    return sorted((b"", file.content) for file in piece.members or (piece,))


def bind(
    node: Input,
    trees: Mapping[str, Tree | None],
    *,
    order: Sequence[str] = (),
    read: Callable[[bytes], bytes],
    commits: Mapping[str, str] | None = None,
    by_content: bool = False,
) -> Bound:
    """Bind an expression to commits.

    Parameters
    ----------
    trees
        Root tree of the commit of each input that has a repo, by label; None: there is no commit.
    order
        Varying inputs in the order of the key (those of one side stand together); empty: the side that yields
        most first, else as declared. (Then a change of a small side touches keys everywhere, and one of the large
        side a run of them.)
    read
        Content of a file, given its encoded tree value (array inputs need their metadata).
    commits
        Commit ids by label: members of a union that share a name tell theirs with each datum.
    by_content
        As in `Bound`.
    """
    whole = constants(node)
    complete = all(trees[name] is not None for name in whole)

    def source(entry: Placed) -> Source:
        return _source(entry, trees, read)

    sides, declared = _ordered(_sides(node, source, commits or {}), order)
    return Bound(sides, declared, complete=complete, by_content=by_content)


def rebind(
    node: Input,
    inputs: Mapping[str, str],
    bound: Bound,
    *,
    open_tree: Callable[[str], Tree],
    read: Callable[[bytes], bytes],
    by_content: bool = False,
) -> Bound:
    """Bind an expression to what a context remembers (`Bound.record`), with constants and order as in `bound`."""

    def source(entry: Placed) -> Source:
        recorded = inputs.get(entry.label, "")
        if isinstance(entry.leaf, Values):
            return ValueSource.bind(entry.leaf.name, tuple(msgspec.json.decode(recorded or "[]")))
        return _source(entry, {entry.label: open_tree(recorded) if recorded else None}, read)

    sides, declared = _ordered(_sides(node, source, {}), bound.order)
    return Bound(sides, declared, complete=bound.complete, by_content=by_content)


def _source(entry: Placed, trees: Mapping[str, Tree | None], read: Callable[[bytes], bytes]) -> Source:
    leaf = entry.leaf
    match leaf:
        case Files():
            glob = compile_glob(leaf.glob, folders=leaf.folders)
            return FileSource(leaf.name, glob, trees[entry.label], leaf.reference)
        case Array():
            return ArraySource.bind(leaf.name, leaf.path, leaf.halo, trees[entry.label], read)
        case Values():
            return ValueSource.bind(leaf.name, leaf.values)


def _sides(node: Input, source: Callable[[Placed], Source], commits: Mapping[str, str]) -> list[Stream]:
    """The varying sides of an expression, in declared order."""
    entries = placed(node)
    names = [entry.leaf.name for entry in entries]
    whole = constants(node)
    remaining = iter(entries)

    def leaf(entry: Placed) -> LeafStream:
        name = entry.leaf.name
        shared = names.count(name) > 1 and commits.get(entry.label)
        return LeafStream(
            source(entry),
            label=entry.label,
            mark=entry.mark,
            variables={f"{name}_COMMIT": commits[entry.label]} if shared else None,
            templates=_templates(entry),
        )

    def stream(part: Input) -> Stream:
        match part:
            case Cross():
                return CrossStream([stream(child) for child in part.inputs])
            case Union():
                return UnionStream([stream(child) for child in part.inputs])
            case Join():
                key = Key(part.on, "" if part.on else ANY_TEMPLATE[0])
                return JoinStream([stream(child) for child in part.inputs], key, part.outer)
            case Group():
                key = Key(part.by, "" if part.by else ANY_TEMPLATE[1])
                return GroupStream([stream(child) for child in part.inputs], key)
            case Files() | Array() | Values():
                return leaf(next(remaining))

    found: list[Stream] = []
    for side in factors(node):
        if isinstance(side, Files) and (side.name or side.repo) in whole:
            next(remaining)
        else:
            found.append(stream(side))
    return found


def _templates(entry: Placed) -> dict[str, tuple[str, Template]]:
    leaf = entry.leaf
    found: dict[str, tuple[str, Template]] = {}
    if isinstance(leaf, Files) and leaf.join_on:
        found[ANY_TEMPLATE[0]] = (join_variable(leaf.name), Template.parse(leaf.join_on))
    if isinstance(leaf, Files) and leaf.group_by:
        found[ANY_TEMPLATE[1]] = (group_variable(leaf.name), Template.parse(leaf.group_by))
    return found


def _ordered(sides: list[Stream], order: Sequence[str]) -> tuple[list[Stream], list[str]]:
    """Arrange the sides in the order of the key; return them, and the names of all that comes in as declared."""
    declared = [slot for side in sides for slot in side.slots]
    if order:
        arranged = sorted(sides, key=lambda side: order.index(side.slots[0]))
    elif len(sides) > 1:
        arranged = sorted(sides, key=lambda side: -side.count())
    else:
        arranged = sides
    return arranged, declared
