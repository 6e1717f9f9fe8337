"""Joins and groups bound to commits: combinations that agree in a key.

The parts of their keys begin with those of the key: one for each capture, or one for a spec's templates.

1. A join: then, if it is outer, which inputs are there (``10``: the first of two); then the parts of these inputs.
2. A group: nothing more.

A change of one file forms the combinations of its key anew and no others: what else has the key is sought by the
captures (`LeafStream.matching`). Listing all of a join or group holds what its inputs yield.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence, Set

import msgspec

from ...storage.digest import digest
from ...worker.job import Item
from .items import Piece
from .streams import ANY_TEMPLATE, SEPARATOR, Combination, DatumChange, Stream, Wanted, records_of

__all__ = ["GroupStream", "JoinStream", "Key", "group_variable", "join_variable"]

Text = tuple[str, ...]
"""A key: a text for each capture."""

_Table = dict[Text, list[Combination]]

_encode = msgspec.msgpack.Encoder().encode


def join_variable(slot: str) -> str:
    """Name of the variable that tells a command what an input was joined on."""
    return f"PACH_DATUM_{slot}_JOIN_ON"


def group_variable(slot: str) -> str:
    """Name of the variable that tells a command what an input was grouped by."""
    return f"PACH_DATUM_{slot}_GROUP_BY"


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """What makes the key of a combination."""

    captures: tuple[str, ...]
    template: str = ""
    """One of `ANY_TEMPLATE`: the key is the text of each file's template, one after the other; no captures then."""

    @property
    def parts(self) -> int:
        """Number of texts in a key."""
        return 1 if self.template else len(self.captures)

    def of(self, row: Combination, slots: Sequence[str]) -> Text:
        """Return the key of a combination."""
        if not self.template:
            return tuple([row.capture(name) or "" for name in self.captures])
        variable = join_variable if self.template == ANY_TEMPLATE[0] else group_variable
        texts = []
        for slot, piece in zip(slots, row.pieces, strict=True):
            for file in () if piece is None else piece.members or (piece,):
                texts.append(file.item.captures.get(variable(slot), ""))
        return ("".join(texts),)

    def wanted(self, text: Text) -> Mapping[str, str]:
        """What a leaf is asked for to find combinations of a key."""
        return {self.template: text[0]} if self.template else dict(zip(self.captures, text, strict=True))


class _Keyed:
    """What joins and groups share."""

    def __init__(self, children: Sequence[Stream], key: Key) -> None:
        self.children = tuple(children)
        self.key = key
        self.slots = tuple(slot for child in self.children for slot in child.slots)

    def form(self, key: Text, sides: Sequence[Sequence[Combination]]) -> Iterator[Combination]:
        """Combinations of one key, sorted, from what each input has of it."""
        raise NotImplementedError

    def rows(self) -> Iterator[Combination]:
        """Every combination."""
        return self._formed([self._table(child, child.rows(), None) for child in self.children])

    def get(self, key: bytes) -> Combination | None:
        """Return the combination with that key."""
        parts = key.split(SEPARATOR)
        try:
            text = tuple(part.decode() for part in parts[: self.key.parts])
        except UnicodeDecodeError:
            return None
        if len(text) < self.key.parts:
            return None
        return next((row for row in self.of_keys({text}) if row.key == key), None)

    def count(self) -> int:
        """Number of combinations."""
        return sum(1 for _ in self.rows())

    def changes(self, new: _Keyed) -> Iterator[DatumChange]:
        """Combinations that differ: those of keys of which an input changed."""
        keys: set[Text] = set()
        for before, after in zip(self.children, new.children, strict=True):
            for _, left, came in before.changes(after):
                keys.update(self.key.of(row, before.slots) for row in (left, came) if row is not None)
        if not keys:
            return
        olds, news = ({row.key: row for row in side.of_keys(keys)} for side in (self, new))
        for key in sorted(olds.keys() | news.keys()):
            old, came = olds.get(key), news.get(key)
            if old is None or came is None or not _same(old, came):
                yield DatumChange(key, old, came)

    def matching(self, wanted: Wanted) -> Iterator[Combination]:
        """Combinations of what matches in each input."""
        if any(name in ANY_TEMPLATE for one in wanted for name in one):
            return self.rows()
        asked = self.asked(wanted)
        return self._formed([self._table(child, child.matching(asked), None) for child in self.children])

    def asked(self, wanted: Wanted) -> Wanted:
        """What of `wanted` may be asked of the inputs, so that what it yields is whole."""
        return wanted

    def record(self) -> dict[str, str]:
        """What a context remembers."""
        return records_of(self.children)

    def of_keys(self, keys: Set[Text]) -> Iterator[Combination]:
        """Combinations of some keys, sorted."""
        wanted = [self.key.wanted(text) for text in sorted(keys)]
        return self._formed([self._table(child, child.matching(wanted), keys) for child in self.children])

    def _table(self, child: Stream, rows: Iterator[Combination], keys: Set[Text] | None) -> _Table:
        table: _Table = {}
        for row in rows:
            text = self.key.of(row, child.slots)
            if keys is None or text in keys:
                table.setdefault(text, []).append(row)
        return table

    def _formed(self, tables: Sequence[_Table]) -> Iterator[Combination]:
        for text in sorted(set().union(*tables), key=_encoded):
            yield from self.form(text, [table.get(text, []) for table in tables])


class JoinStream(_Keyed):
    """Combinations of datums, one of each input, that agree in their key."""

    def __init__(self, children: Sequence[Stream], key: Key, outer: Sequence[int]) -> None:
        super().__init__(children, key)
        self._outer = frozenset(outer)

    def form(self, key: Text, sides: Sequence[Sequence[Combination]]) -> Iterator[Combination]:
        """Every choice of one of each input; where one has none, of those that stay all the same."""
        chosen = [at for at, side in enumerate(sides) if side]
        if len(chosen) < len(sides):
            chosen = [at for at in chosen if at in self._outer]
        if not chosen:
            return
        head = _encoded(key)
        if self._outer:
            head += ("".join("1" if at in chosen else "0" for at in range(len(sides))).encode(),)
        blank = [(None,) * len(child.slots) for child in self.children]
        for rows in itertools.product(*(sides[at] for at in chosen)):
            filled: list[tuple[Piece | None, ...]] = list(blank)
            for at, row in zip(chosen, rows, strict=True):
                filled[at] = row.pieces
            yield Combination(
                SEPARATOR.join([*head, *(row.key for row in rows)]), tuple(itertools.chain.from_iterable(filled))
            )

    def span(self, parts: Sequence[bytes], at: int) -> int:
        """The key, who is there, and their parts."""
        at += self.key.parts
        there = b"1" * len(self.children)
        if self._outer:
            if at >= len(parts) or len(parts[at]) != len(there):
                return len(parts) + 1
            there = parts[at]
            at += 1
        for child, flag in zip(self.children, there.decode("latin-1"), strict=True):
            if flag == "1":
                if at >= len(parts):
                    return len(parts) + 1
                at = child.span(parts, at)
        return at


class GroupStream(_Keyed):
    """One datum per key, with all files of all inputs that have it."""

    def form(self, key: Text, sides: Sequence[Sequence[Combination]]) -> Iterator[Combination]:
        """One, unless no input has the key."""
        pieces: list[Piece | None] = []
        for child, side in zip(self.children, sides, strict=True):
            for at, slot in enumerate(child.slots):
                found = [piece for row in side if (piece := row.pieces[at]) is not None]
                pieces.append(self._all(key, slot, found))
        if any(pieces):
            yield Combination(SEPARATOR.join(_encoded(key)), tuple(pieces))

    def span(self, parts: Sequence[bytes], at: int) -> int:
        """The key."""
        return at + self.key.parts

    def asked(self, wanted: Wanted) -> Wanted:
        """The key's captures: by others, a group would lose some of its files."""
        return [{name: text for name, text in one.items() if name in self.key.captures} for one in wanted]

    def _all(self, key: Text, slot: str, found: Sequence[Piece]) -> Piece | None:
        """One piece that holds many, each once; None if there is none."""
        files = {(file.key, file.mark, file.content): file for piece in found for file in piece.members or (piece,)}
        if not files:
            return None
        members = tuple(file for _, file in sorted(files.items()))
        captures = dict(zip(self.key.captures, key, strict=True)) if not self.key.template else {}
        for file in members:
            captures |= {name: text for name, text in file.item.captures.items() if name in _told(slot)}
        value = _encode([(file.item.path, file.item.kind, file.item.value) for file in members])
        content = digest(_encode([(file.key, file.mark, file.content) for file in members]))
        return Piece(b"", Item("/".join(key), "l", value, captures), content, members=members)


def _told(slot: str) -> tuple[str, ...]:
    return (join_variable(slot), group_variable(slot), f"{slot}_COMMIT")


def _encoded(key: Text) -> tuple[bytes, ...]:
    return tuple(text.encode() for text in key)


def _same(old: Combination, new: Combination) -> bool:
    return all(
        (a is None) == (b is None) and (a is None or b is None or a.content == b.content)
        for a, b in zip(old.pieces, new.pieces, strict=True)
    )
