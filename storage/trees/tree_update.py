"""Applying edits to a prolly tree: the nodes they touch are made anew, up to where the old cuts hold again."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from ..digest import Digest
from ..errors import InvalidInputError
from ..objects.node import Nodes
from .cuts import CutRule
from .tree_node import EMPTY, VERSION, Child, Node, check_sizes, load, store

Edit = tuple[bytes, bytes | None]


def update_root(nodes: Nodes, root: Digest, edits: Sequence[Edit]) -> Digest:
    """Return the root of the tree `root`, which is not empty, with sorted `edits` applied."""
    return _Rewrite(nodes, root).apply(edits)


class _LevelCursor:
    """Walks the nodes of one level of a tree from left to right."""

    def __init__(self, nodes: Nodes, root: Digest, level: int) -> None:
        self._nodes = nodes
        self._root = load(nodes, root)
        self._level = level
        self._path: list[tuple[Node, int]] = []
        self.name = root

    def seek(self, key: bytes) -> Node:
        """Go to the node that holds or would hold `key`."""
        node = self._root
        self._path = []
        while node.level > self._level:
            position = min(node.position(key), len(node.keys) - 1)
            self._path.append((node, position))
            self.name = node.child(position)
            node = load(self._nodes, self.name)
        return node

    @property
    def is_last(self) -> bool:
        return all(position == len(node.keys) - 1 for node, position in self._path)

    def next(self) -> Node:
        """Go to the node after this one, which must not be the last."""
        while self._path[-1][1] == len(self._path[-1][0].keys) - 1:
            self._path.pop()
        node, position = self._path.pop()
        position += 1
        while True:
            self._path.append((node, position))
            self.name = node.child(position)
            node = load(self._nodes, self.name)
            if node.level == self._level:
                return node
            position = 0


class _Chunker:
    """Cuts one level's entries into nodes."""

    def __init__(self, level: int, target: int) -> None:
        self.level = level
        self.keys: list[bytes] = []
        self.values: list[Any] = []
        self.done: list[Node] = []
        self._rule = CutRule.of(target)

    def add(self, key: bytes, value: Any) -> None:
        self.keys.append(key)
        self.values.append(value)
        if self._rule.ends(key, self.level, len(self.keys)):
            self.cut()

    def cut(self) -> None:
        if self.keys:
            self.done.append(Node(VERSION, self.level, self.keys, self.values))
            self.keys, self.values = [], []


class _Rewrite:
    """Applies sorted edits to a tree, level by level from the leaves."""

    def __init__(self, nodes: Nodes, root: Digest) -> None:
        self._nodes = nodes
        self._root = root
        self._target = nodes.tree_target
        self._top = load(nodes, root).level

    def apply(self, edits: Sequence[tuple[bytes, Any]]) -> Digest:
        """Return the new root."""
        new: list[tuple[bytes, Child]] = []
        pending: list[Node] = []
        for level in range(self._top + 1):
            old, made = self._rewrite_level(level, edits)
            new = store(self._nodes, made) if level < self._top else []
            pending = made
            # A node that came out as it was is no change above.
            above: dict[bytes, Any] = {key: None for key, _ in old}
            was = dict(old)
            for key, child in new:
                if was.get(key) == child.name:
                    del above[key]
                else:
                    above[key] = child
            edits = sorted(above.items())
            if level < self._top and not edits:
                return self._root
        return self._finish(pending)

    def _finish(self, roots: list[Node]) -> Digest:
        nodes = self._nodes
        if not roots:
            return EMPTY
        if len(roots) == 1:
            node = roots[0]
            name: Digest | None = None
            while node.level > 0 and len(node.keys) == 1:
                name = node.child(0)
                node = load(nodes, name)
            return name if name is not None else store(nodes, [node])[0][1].name
        level = roots[0].level
        while len(roots) > 1:
            level += 1
            chunker = _Chunker(level, self._target)
            for key, child in store(nodes, roots):
                chunker.add(key, child)
            chunker.cut()
            roots = chunker.done
        return store(nodes, roots)[0][1].name

    def _rewrite_level(
        self, level: int, edits: Sequence[tuple[bytes, Any]]
    ) -> tuple[list[tuple[bytes, Digest]], list[Node]]:
        """Return ((last key, name) of each old node that was read over, the nodes that take their place)."""
        cursor = _LevelCursor(self._nodes, self._root, level)
        chunker = _Chunker(level, self._target)
        old: list[tuple[bytes, Digest]] = []
        position = 0
        while position < len(edits):
            node = cursor.seek(edits[position][0])
            while True:
                old.append((node.keys[-1], cursor.name))
                last = cursor.is_last
                stop = position
                while stop < len(edits) and (last or edits[stop][0] <= node.keys[-1]):
                    stop += 1
                mine = edits[position:stop]
                kept = _with_values(node, mine) if not chunker.keys else None
                if kept is not None:
                    chunker.done.append(kept)
                else:
                    _feed(chunker, node, mine)
                position = stop
                if last:
                    chunker.cut()
                    break
                if not chunker.keys:
                    break  # The new cuts fall together with the old ones again.
                node = cursor.next()
        return old, chunker.done


def _with_values(node: Node, edits: Sequence[tuple[bytes, Any]]) -> Node | None:
    """Return a node with other values; None if an edit takes a key away, or brings one.

    Where nodes end follows from their keys: of a node whose keys stay nothing need be cut anew.
    """
    keys, values = node.keys, list(node.values)
    for key, value in edits:
        at = bisect_left(keys, key)
        if value is None or at == len(keys) or keys[at] != key:
            return None
        values[at] = value
    return Node(VERSION, node.level, keys, values)


def _feed(chunker: _Chunker, node: Node, edits: Sequence[tuple[bytes, Any]]) -> None:
    """Add a node's entries, with `edits` applied, to `chunker`."""
    add = chunker.add
    keys, values = node.keys, node.values
    done = 0
    for key, value in edits:
        at = bisect_left(keys, key, done)
        for i in range(done, at):
            add(keys[i], values[i])
        done = at + 1 if at < len(keys) and keys[at] == key else at
        if value is not None:
            add(key, value)
    for i in range(done, len(keys)):
        add(keys[i], values[i])


def check_edits(edits: Sequence[Edit]) -> None:
    """Raise `InvalidInputError` if edits are not sorted, or one is too large."""
    before: bytes | None = None
    for key, value in edits:
        if before is not None and key <= before:
            raise InvalidInputError(f"tree edits must rise: {key!r} came after {before!r}")
        check_sizes(key, value or b"")
        before = key
