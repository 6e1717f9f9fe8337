"""Prolly trees: immutable sorted maps whose shape, and so whose root hash, follows from their content alone.

Equal content has an equal root whatever the history of edits, so comparing and diffing cost what differs, and
unchanged nodes are shared between commits.

Rules
-----
- A level is one sorted sequence of entries, cut into nodes from left to right. Leaves (level 0) hold (key, value);
  above, an entry is (last key below the child, [child, number of entries below it]).
- Whether a node ends after an entry depends on the entry's key, the level, and how many entries the node has: never
  before t/4 of them, always at 4t; between, if the key's hash falls below a threshold that is low until t and high
  after it. So an edit changes cuts only until the next one that falls together with an old one.
- The root is the lowest level that is a single node.
- A node is msgpack ``[1, level, [key...], [value...]]``; its hash names it.

References
----------
Dolt's prolly trees and key splitter; CASync/Noms; FastCDC's normalised chunking for the two thresholds. Parameters are
measured in `docs/format.md`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from ..digest import Digest
from ..objects.node import Nodes, OverlayNodes
from .tree_build import build_root, build_root_of_lists
from .tree_diff import diff_roots
from .tree_node import BATCH, EMPTY, Node, batches, load, load_many
from .tree_proof import prove
from .tree_update import Edit, check_edits, update_root

REBUILD_FROM = 4
"""A tree is made anew from its entries when one of so many changes: that costs less than as many edits."""

UPDATE_TOGETHER = 1 << 14
"""Edits in memory at a time, of those that come one after the other."""


class Tree:
    """An immutable sorted map from bytes to bytes.

    Parameters
    ----------
    nodes
        Where its nodes are.
    root
        Its name; `EMPTY` needs no stored node.
    """

    __slots__ = ("nodes", "root")

    def __init__(self, nodes: Nodes, root: Digest = EMPTY) -> None:
        self.nodes = nodes
        self.root = root

    def __repr__(self) -> str:
        return f"Tree({self.root.hex()[:12]})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tree) and self.root == other.root

    def __hash__(self) -> int:
        return hash(self.root)

    def __len__(self) -> int:
        return load(self.nodes, self.root).count

    def __bool__(self) -> bool:
        return self.root != EMPTY

    def __contains__(self, key: bytes) -> bool:
        return self.get(key) is not None

    def is_empty(self) -> bool:
        """Whether there is no entry. Reads nothing."""
        return self.root == EMPTY

    def first(self) -> tuple[bytes, bytes] | None:
        """Return the entry with the smallest key, or None."""
        return next(self.scan(), None)

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, or None."""
        node = load(self.nodes, self.root)
        while True:
            position = node.position(key)
            if position == len(node.keys):
                return None
            if node.level == 0:
                value: bytes = node.values[position]
                return value if node.keys[position] == key else None
            node = load(self.nodes, node.child(position))

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value, or None, of each of the sorted `keys`.

        Notes
        -----
        Each node is read once; a level's nodes are fetched together.
        """
        if self.root == EMPTY or not keys:
            return [None] * len(keys)
        found: list[bytes | None] = []
        for leaf, wanted in self._leaves_of(keys):
            low = leaf.position(wanted[0])
            high = low + len(wanted)
            if leaf.keys[low:high] == wanted:
                found += leaf.values[low:high]
            else:
                here = dict(zip(leaf.keys, leaf.values, strict=True))
                found += map(here.get, wanted)
        # What lies past the last key leads to no leaf.
        found += [None] * (len(keys) - len(found))
        return found

    def _leaves_of(self, keys: Sequence[bytes]) -> Iterator[tuple[Node, Sequence[bytes]]]:
        """Yield each leaf that some of the sorted `keys` lead to, with those keys."""
        level: list[tuple[Node, Sequence[bytes]]] = [(load(self.nodes, self.root), keys)]
        while level and level[0][0].level > 0:
            wanted = [
                (node.child(position), part) for node, part in level for position, part in _distribute(node, part)
            ]
            if level[0][0].level == 1:
                for batch in batches(wanted):
                    loaded = load_many(self.nodes, [name for name, _ in batch])
                    yield from zip(loaded, (part for _, part in batch), strict=True)
                return
            loaded = load_many(self.nodes, [name for name, _ in wanted])
            level = list(zip(loaded, (part for _, part in wanted), strict=True))
        yield from level

    def differing(self, keys: Sequence[bytes], values: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield those of the sorted `keys`, with their `values`, that have another value here, or none.

        Notes
        -----
        Reads the nodes that the keys lead to. Where a run of keys stands here as it is given, lists are compared, not
        entries.
        """
        if self.root == EMPTY or not keys:
            yield from zip(keys, values, strict=True)
            return
        done = 0
        for leaf, wanted in self._leaves_of(keys):
            stop = done + len(wanted)
            low = leaf.position(wanted[0])
            high = low + len(wanted)
            theirs = values[done:stop]
            if leaf.keys[low:high] != wanted or leaf.values[low:high] != theirs:
                here = dict(zip(leaf.keys, leaf.values, strict=True))
                for key, value in zip(wanted, theirs, strict=True):
                    if here.get(key) != value:
                        yield key, value
            done = stop
        yield from zip(keys[done:], values[done:], strict=True)

    def lacking(self, keys: Sequence[bytes]) -> Iterator[bytes]:
        """Yield those of the sorted `keys` that are not here.

        Notes
        -----
        Reads what `get_many` does. Where a run of keys stands here as it is given, lists are compared, not keys.
        """
        done = 0
        if self.root != EMPTY and keys:
            for leaf, wanted in self._leaves_of(keys):
                low = leaf.position(wanted[0])
                if leaf.keys[low : low + len(wanted)] != wanted:
                    here = set(leaf.keys)
                    yield from (key for key in wanted if key not in here)
                done += len(wanted)
        yield from keys[done:]

    def scan(self, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) for start <= key < stop, sorted; `stop` None means to the end.

        Notes
        -----
        Reads only nodes of that range, some ahead of what was yielded.
        """
        for leaf in self._leaves(start, stop):
            low = leaf.position(start) if start else 0
            high = len(leaf.keys) if stop is None else leaf.position(stop)
            yield from zip(leaf.keys[low:high], leaf.values[low:high], strict=True)

    def _leaves(self, start: bytes, stop: bytes | None) -> Iterator[Node]:
        root = load(self.nodes, self.root)
        if root.level == 0:
            yield root
            return
        stack: list[Iterator[Digest]] = [_children(root, start, stop)]
        levels = [root.level]
        ahead = 1  # The first leaf is often all that is wanted.
        while stack:
            if levels[-1] == 1:
                children = stack.pop()
                levels.pop()
                while batch := list(islice(children, ahead)):
                    yield from load_many(self.nodes, batch)
                    ahead = min(BATCH, ahead * 4)
                continue
            name = next(stack[-1], None)
            if name is None:
                stack.pop()
                levels.pop()
                continue
            node = load(self.nodes, name)
            stack.append(_children(node, start, stop))
            levels.append(node.level)

    def keys(self) -> Iterator[bytes]:
        """Yield all keys, sorted."""
        return (key for key, _ in self.scan())

    def prefix(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) of the keys that begin with `prefix`, sorted."""
        return self.scan(prefix, _after_prefix(prefix))

    def list_dir(self, prefix: bytes = b"", begins: bytes = b"") -> Iterator[tuple[bytes, bool, bytes | None]]:
        """Yield (name, whether it is a folder, value or None) of what is right in the folder `prefix`.

        Parameters
        ----------
        prefix
            Path of the folder, with or without a slash at its end; empty: the root.
        begins
            Only names that begin so.

        Notes
        -----
        Reads nodes in proportion to what is yielded: the inside of a subfolder is skipped.
        """
        folder = prefix.rstrip(b"/") + b"/" if prefix.strip(b"/") else b""
        stop = _after_prefix(folder + begins)
        start = folder + begins
        while True:
            skipped = None
            for key, value in self.scan(start, stop):
                name, slash, _ = key[len(folder) :].partition(b"/")
                if slash:
                    yield name, True, None
                    skipped = folder + name + b"0"  # the byte after the slash
                    break
                yield name, False, value
            if skipped is None:
                return
            start = skipped

    def subtree(self, prefix: bytes) -> Tree:
        """Return the tree that holds only the folder `prefix`, with that prefix stripped from its keys.

        Its root is the folder's content id. Its nodes stay in memory: nothing is written.
        """
        folder = prefix.rstrip(b"/") + b"/" if prefix.strip(b"/") else b""
        if not folder:
            return self
        return build(OverlayNodes(self.nodes), ((key[len(folder) :], value) for key, value in self.prefix(folder)))

    # --- changing ---

    def update(self, edits: Iterable[Edit]) -> Tree:
        """Return the tree with `edits` applied; same as building it from scratch.

        Parameters
        ----------
        edits
            (key, new value, or None to remove it), sorted by key, each key once. Removing what is not there is fine.

        Raises
        ------
        InvalidInputError
            Edits are not sorted, or a key or value is too long.

        Notes
        -----
        Reads and writes O(edits * height) nodes, at most all of them once.
        """
        pending = list(edits)
        if not pending:
            return self
        if self.root == EMPTY:
            return build(self.nodes, ((key, value) for key, value in pending if value is not None))
        check_edits(pending)
        for batch in batches([key for key, _ in pending], BATCH * self.nodes.tree_target):
            # Fetch what will be read in few round trips; get it from the cache below.
            for _ in self._leaves_of(batch):
                pass
        return Tree(self.nodes, update_root(self.nodes, self.root, pending))

    def updated(self, edits: Iterable[Edit], about: int) -> Tree:
        """Return what `update` returns, for edits that need not be in memory together.

        Parameters
        ----------
        edits
            As of `update`.
        about
            How many they are, roughly: many are worked into all entries, few one after the other.
        """
        if self.root == EMPTY:
            return build(self.nodes, ((key, value) for key, value in edits if value is not None))
        if about * REBUILD_FROM >= len(self):
            return build(self.nodes, _edited(self.scan(), edits))
        tree, source = self, iter(edits)
        while part := list(islice(source, UPDATE_TOGETHER)):
            tree = tree.update(part)
        return tree

    def diff(self, other: Tree) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
        """Yield (key, value here, value in `other`) of each key whose values differ, sorted; None: not there.

        Notes
        -----
        Reads only nodes that are in one of the trees and not in the other.
        """
        return diff_roots(self.nodes, self.root, other.nodes, other.root)

    def prove(self, key: bytes) -> list[bytes]:
        """Return the nodes, from the root down, that show what the tree has under `key`; see `check_proof`."""
        return prove(self.nodes, self.root, key)

    def walk_nodes(self, *, skip: set[Digest] | None = None) -> Iterator[Digest]:
        """Yield the name of each node of the tree, parents first; nodes in `skip` are left out with all below them.

        Every name that is yielded is added to `skip`. Leaves are named, not read.
        """
        seen = set() if skip is None else skip
        if self.root == EMPTY or self.root in seen:
            return
        seen.add(self.root)
        yield self.root
        stack = [self.root] if load(self.nodes, self.root).level else []
        while stack:
            node = load(self.nodes, stack.pop())
            for position in range(len(node.keys)):
                name = node.child(position)
                if name not in seen:
                    seen.add(name)
                    yield name
                    if node.level > 1:
                        stack.append(name)


def empty(nodes: Nodes) -> Tree:
    """Return the empty tree."""
    return Tree(nodes, EMPTY)


def build(nodes: Nodes, items: Iterable[tuple[bytes, bytes]]) -> Tree:
    """Return the tree of `items`, sorted by key, each key once.

    Streams: memory is in proportion to the number of nodes.

    Raises
    ------
    InvalidInputError
        Items are not sorted, or a key or value is too long.
    """
    return Tree(nodes, build_root(nodes, items))


def build_of_lists(nodes: Nodes, keys: Sequence[bytes], values: Sequence[bytes]) -> Tree:
    """`build`, given all keys and the value of each."""
    return Tree(nodes, build_root_of_lists(nodes, keys, values))


def _children(node: Node, start: bytes, stop: bytes | None) -> Iterator[Digest]:
    for position in range(node.position(start) if start else 0, len(node.keys)):
        if stop is not None and position and node.keys[position - 1] >= stop:
            return
        yield node.child(position)


def _distribute(node: Node, keys: Sequence[bytes]) -> Iterator[tuple[int, Sequence[bytes]]]:
    """Yield (child's position, those of the sorted `keys` that lead to it); keys past the last child are dropped."""
    done = 0
    while done < len(keys):
        position = node.position(keys[done])
        if position == len(node.keys):
            return
        stop = bisect_right(keys, node.keys[position], done)
        yield position, keys[done:stop]
        done = stop


def _edited(entries: Iterator[tuple[bytes, bytes]], edits: Iterable[Edit]) -> Iterator[tuple[bytes, bytes]]:
    """Yield sorted entries with sorted edits applied."""
    end = (None, b"")
    key, value = next(entries, end)
    for place, new in edits:
        while key is not None and key < place:
            yield key, value
            key, value = next(entries, end)
        if key == place:
            key, value = next(entries, end)
        if new is not None:
            yield place, new
    if key is not None:
        yield key, value
        yield from entries


def _after_prefix(prefix: bytes) -> bytes | None:
    """The smallest key above all keys with `prefix`; None if there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None
