"""What one input contributes to datums, and how that differs between two commits.

`Source` is one input bound to a commit. Its pieces come sorted by key, so that plans stream. The key of a folder ends
in ``/``: then sorting by key is sorting as in the tree, a folder that became a file is another piece, and nothing has
to be held back. Array inputs are in `regions.py`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, Self

from ...storage.glob import Glob, count_matches, glob_tree, with_folders
from ...storage.trees.prolly import Tree
from ...worker.job import Item
from .expression import canonical_json

__all__ = ["FileSource", "Piece", "PieceChange", "Source", "ValueSource"]


_SEEKS_MAX = 64
"""Captures that are sought one by one where each costs the listing of folders; for more, all is listed once."""


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """What one input contributes to a datum, and its identity."""

    key: bytes
    """Its part of the datum key: a file's path, a folder's path with a slash behind, a value's JSON, a chunk's key."""
    item: Item
    content: bytes
    """Content id: what of it counts in fingerprints, beside the key."""
    mark: bytes = b""
    """As in `Placed`."""
    members: tuple[Piece, ...] = ()
    """Of a group: its files, sorted by key."""

    def told(self, captures: dict[str, str], mark: bytes) -> Piece:
        """Return the piece with other captures, which tell more than the glob's."""
        item = Item(self.item.path, self.item.kind, self.item.value, captures)
        return Piece(self.key, item, self.content, mark, self.members)


class PieceChange(NamedTuple):
    """A key whose piece differs between two commits; None: not there."""

    key: bytes
    old: Piece | None
    new: Piece | None


class Source(Protocol):
    """An input bound to a commit."""

    @property
    def name(self) -> str:
        """Name of the input."""
        ...

    def pieces(self) -> Iterator[Piece]:
        """Every piece, sorted by key."""
        ...

    def get(self, key: bytes) -> Piece | None:
        """Return the piece with that key."""
        ...

    def count(self) -> int:
        """Number of pieces, without reading their content."""
        ...

    def changes(self, new: Self) -> Iterator[PieceChange]:
        """Pieces that differ in `new`, sorted by key; reads what changed."""
        ...

    def record(self) -> str:
        """What a context remembers of this source: enough to make it again."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class FileSource:
    """Files or folders of a commit that a glob matches."""

    name: str
    glob: Glob
    tree: Tree | None
    """None: the branch has no commit, and there is no piece."""
    reference: bool = False
    """Content does not count: pieces have an empty content id."""

    def pieces(self) -> Iterator[Piece]:
        """Every match; reads the whole content ids of folders, hence all paths below them."""
        if self.tree is None:
            return
        for found in glob_tree(self.tree, self.glob):
            yield self._piece(self.tree, found.path, found.value, found.captures)

    def get(self, key: bytes) -> Piece | None:
        """Return the match with that key."""
        if self.tree is None:
            return None
        if self.glob.is_root:
            return None if key else self._piece(self.tree, "", None, {})
        path = key.removesuffix(b"/").decode()
        captures = self.glob.match(path)
        if captures is None or (key.endswith(b"/") and not self.glob.folders):
            return None
        value = None
        if key.endswith(b"/"):
            if next(iter(self.tree.prefix(key)), None) is None:
                return None
        elif (value := self.tree.get(key)) is None:
            return None
        return self._piece(self.tree, path, value, captures)

    def with_captures(self, wanted: Sequence[Mapping[str, str]]) -> Iterator[Piece]:
        """Matches whose captures are among `wanted`, which all name the same captures; sorted by key.

        They are sought one by one where the captures say where to look, else found by listing everything once.
        """
        if self.tree is None or not wanted:
            return
        names = tuple(wanted[0])
        texts = {tuple(one[name] for name in names) for one in wanted}
        if self._worth_seeking(wanted[0], len(texts)):
            matches = {
                (found.path, found.folder): found
                for text in texts
                for found in glob_tree(self.tree, self.glob.given(dict(zip(names, text, strict=True))))
            }
            found = iter(sorted(matches.values(), key=lambda match: match.path.encode() + b"/" * match.folder))
        else:
            found = glob_tree(self.tree, self.glob)
        for match in found:
            if tuple(match.captures[name] for name in names) in texts:
                yield self._piece(self.tree, match.path, match.value, match.captures)

    def _worth_seeking(self, wanted: Mapping[str, str], number: int) -> bool:
        narrow = self.glob.given(wanted)
        if len(narrow.prefix) > len(self.glob.prefix):
            return True
        if narrow.parts is None or self.glob.parts is None or number > _SEEKS_MAX:
            return False
        # Folders must be listed; it is worth it if inside them there is one file to look for.
        return any(
            new.literal is not None and old.literal is None
            for new, old in zip(narrow.parts, self.glob.parts, strict=True)
        )

    def count(self) -> int:
        """Number of matches; only folder lists are read."""
        if self.tree is None:
            return 0
        if self.glob.pattern == "/**" and not self.glob.folders:
            return len(self.tree)
        return count_matches(self.tree, self.glob)

    def changes(self, new: FileSource) -> Iterator[PieceChange]:
        """Matches that differ, from the nodes in which the two trees differ and the folders that changed."""
        if self.glob.is_root:
            before, after = self.get(b""), new.get(b"")
            if (before and before.content) != (after and after.content):
                yield PieceChange(b"", before, after)
            return
        for key, found in itertools.groupby(self._touched(new), key=lambda touched: touched[0]):
            # Runs of equal keys are all there are: paths below one folder stand together in the tree's order.
            values = next(found)[1]
            if values is None:
                old_piece, new_piece = self.get(key), new.get(key)
            else:
                old_piece, new_piece = self._file(key, values[0]), new._file(key, values[1])
            if old_piece is None and new_piece is None:
                continue
            if old_piece is None or new_piece is None or old_piece.content != new_piece.content:
                yield PieceChange(key, old_piece, new_piece)

    def record(self) -> str:
        """Root of the commit's tree, hex; empty if there is no commit."""
        return self.tree.root.hex() if self.tree is not None else ""

    def _touched(self, new: FileSource) -> Iterator[tuple[bytes, tuple[bytes | None, bytes | None] | None]]:
        """Keys of matches that may differ; of a file with its value on either side, which the difference tells."""
        depth = self.glob.depth
        prefix = self.glob.prefix
        paths = ((path, (before, after)) for path, before, after in _diff(self.tree, new.tree))
        for path, values in with_folders(paths) if depth is None and self.glob.folders else paths:
            key: bytes | None = path if depth is None else _cut(path, depth)
            if (
                key is not None
                and key.startswith(prefix)
                and self.glob.match(key.removesuffix(b"/").decode()) is not None
            ):
                yield key, values if key == path and not key.endswith(b"/") else None

    def _file(self, key: bytes, value: bytes | None) -> Piece | None:
        """The match that is known to have that key, given its value in this commit (None: it is not there)."""
        if self.tree is None or value is None:
            return None
        path = key.decode()
        return self._piece(self.tree, path, value, self.glob.match(path) or {})

    def _piece(self, tree: Tree, path: str, value: bytes | None, captures: dict[str, str]) -> Piece:
        key = path.encode()
        if value is not None:
            return Piece(key, Item(path, "f", value, captures), b"" if self.reference else value)
        folder = key + b"/" if key else b""
        if self.reference:
            return Piece(folder, Item(path, "d", tree.root, captures), b"")
        content = tree.subtree(folder).root if folder else tree.root
        return Piece(folder, Item(path, "d", tree.root, captures), content)


@dataclasses.dataclass(frozen=True, slots=True)
class ValueSource:
    """Values of a grid: canonical JSON, sorted by bytes."""

    name: str
    texts: tuple[str, ...]

    @classmethod
    def bind(cls, name: str, values: tuple[object, ...]) -> ValueSource:
        """Bind plain values."""
        return cls(name, tuple(sorted(map(canonical_json, values), key=str.encode)))

    def pieces(self) -> Iterator[Piece]:
        """Every value."""
        return map(_value_piece, self.texts)

    def get(self, key: bytes) -> Piece | None:
        """Return the value with that key."""
        text = key.decode()
        return _value_piece(text) if text in self.texts else None

    def count(self) -> int:
        """Number of values."""
        return len(self.texts)

    def changes(self, new: ValueSource) -> Iterator[PieceChange]:
        """Values that were added or removed."""
        old_texts, new_texts = set(self.texts), set(new.texts)
        for text in sorted(old_texts ^ new_texts, key=str.encode):
            piece = _value_piece(text)
            yield PieceChange(piece.key, piece if text in old_texts else None, piece if text in new_texts else None)

    def record(self) -> str:
        """The values themselves, as a JSON list: there is no tree that could be named."""
        return f"[{','.join(self.texts)}]"


def _value_piece(text: str) -> Piece:
    return Piece(text.encode(), Item(text, "v"), b"")


def _cut(path: bytes, depth: int) -> bytes | None:
    """The file or folder at `depth` that `path` is or lies in."""
    end = -1
    for _ in range(depth):
        if end == len(path):
            return None
        end = path.find(b"/", end + 1)
        if end == -1:
            end = len(path)
    return path if end == len(path) else path[: end + 1]


def _diff(old: Tree | None, new: Tree | None) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    if old is not None and new is not None:
        yield from old.diff(new)
    elif new is not None:
        yield from ((key, None, value) for key, value in new.scan())
    elif old is not None:
        yield from ((key, value, None) for key, value in old.scan())
