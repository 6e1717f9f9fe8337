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

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from operator import lt
from typing import Any, NamedTuple

import msgspec

from ..digest import Digest, digest
from ..errors import CorruptError, FormatError, InvalidInputError
from ..objects.node import Nodes, OverlayNodes
from .cuts import CutRule, find_cuts

VERSION = 1
MAX_KEY_BYTES = 16 << 10
MAX_VALUE_BYTES = 32 << 20

_BATCH = 32
"""Nodes fetched or written together while streaming."""

_BUILD_TOGETHER = 1 << 16
"""Entries in memory beside the nodes while a tree is built."""

Edit = tuple[bytes, bytes | None]


class _Child(NamedTuple):
    """An inner entry's value."""

    name: Digest
    entries: int


class _Node(msgspec.Struct, frozen=True, array_like=True):
    version: int
    level: int
    keys: list[bytes]
    values: list[Any]
    """`bytes` in leaves, [name, count] above."""

    @property
    def count(self) -> int:
        return len(self.keys) if self.level == 0 else sum(count for _, count in self.values)

    def child(self, position: int) -> Digest:
        return Digest(self.values[position][0])

    def position(self, key: bytes) -> int:
        """First entry whose key is not below `key`."""
        return bisect_left(self.keys, key)


_decoder = msgspec.msgpack.Decoder(_Node)
_encode = msgspec.msgpack.Encoder().encode

_EMPTY_RAW = _encode(_Node(VERSION, 0, [], []))
EMPTY: Digest = digest(_EMPTY_RAW)
"""Root of the empty tree. It need not be stored."""
_EMPTY_NODE = _Node(VERSION, 0, [], [])


def _decode(raw: bytes) -> _Node:
    try:
        node = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise CorruptError(f"not a tree node: {err}") from err
    if node.version != VERSION:
        raise FormatError(f"tree node has format {node.version}: expected {VERSION}; made by a newer dmlpipe")
    return node


def _load_many(nodes: Nodes, names: Sequence[Digest]) -> list[_Node]:
    if EMPTY in names:
        return [_EMPTY_NODE if name == EMPTY else _load(nodes, name) for name in names]
    return nodes.load_many(names, _decode)


def _load(nodes: Nodes, name: Digest) -> _Node:
    return _EMPTY_NODE if name == EMPTY else nodes.load_many([name], _decode)[0]


# --- where nodes end ---


class _Chunker:
    """Cuts one level's entries into nodes."""

    def __init__(self, level: int, target: int) -> None:
        self.level = level
        self.keys: list[bytes] = []
        self.values: list[Any] = []
        self.done: list[_Node] = []
        self._rule = CutRule.of(target)

    def add(self, key: bytes, value: Any) -> None:
        self.keys.append(key)
        self.values.append(value)
        if self._rule.ends(key, self.level, len(self.keys)):
            self.cut()

    def cut(self) -> None:
        if self.keys:
            self.done.append(_Node(VERSION, self.level, self.keys, self.values))
            self.keys, self.values = [], []


def _entry(node: _Node, name: Digest) -> tuple[bytes, _Child]:
    return node.keys[-1], _Child(name, node.count)


# --- reading ---


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
        return _load(self.nodes, self.root).count

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
        node = _load(self.nodes, self.root)
        while True:
            position = node.position(key)
            if position == len(node.keys):
                return None
            if node.level == 0:
                value: bytes = node.values[position]
                return value if node.keys[position] == key else None
            node = _load(self.nodes, node.child(position))

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

    def _leaves_of(self, keys: Sequence[bytes]) -> Iterator[tuple[_Node, Sequence[bytes]]]:
        """Yield each leaf that some of the sorted `keys` lead to, with those keys."""
        level: list[tuple[_Node, Sequence[bytes]]] = [(_load(self.nodes, self.root), keys)]
        while level and level[0][0].level > 0:
            wanted = [
                (node.child(position), part) for node, part in level for position, part in _distribute(node, part)
            ]
            if level[0][0].level == 1:
                for batch in _batches(wanted):
                    loaded = _load_many(self.nodes, [name for name, _ in batch])
                    yield from zip(loaded, (part for _, part in batch), strict=True)
                return
            loaded = _load_many(self.nodes, [name for name, _ in wanted])
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

    def _leaves(self, start: bytes, stop: bytes | None) -> Iterator[_Node]:
        root = _load(self.nodes, self.root)
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
                    yield from _load_many(self.nodes, batch)
                    ahead = min(_BATCH, ahead * 4)
                continue
            name = next(stack[-1], None)
            if name is None:
                stack.pop()
                levels.pop()
                continue
            node = _load(self.nodes, name)
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
        pending: list[tuple[bytes, Any]] = list(edits)
        if not pending:
            return self
        if self.root == EMPTY:
            return build(self.nodes, ((key, value) for key, value in pending if value is not None))
        _check_edits(pending)
        for batch in _batches([key for key, _ in pending], _BATCH * self.nodes.tree_target):
            # Fetch what will be read in few round trips; get it from the cache below.
            for _ in self._leaves_of(batch):
                pass
        return _Rewrite(self).apply(pending)

    def diff(self, other: Tree) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
        """Yield (key, value here, value in `other`) of each key whose values differ, sorted; None: not there.

        Notes
        -----
        Reads only nodes that are in one of the trees and not in the other.
        """
        mine, theirs = _differing_leaves(self, other)
        return _merge(_entries(self.nodes, mine), _entries(other.nodes, theirs))

    def prove(self, key: bytes) -> list[bytes]:
        """Return the nodes, from the root down, that show what the tree has under `key`; see `check_proof`."""
        found: list[bytes] = []
        name = self.root
        while True:
            raw = _EMPTY_RAW if name == EMPTY else self.nodes.get_many([name])[0]
            found.append(raw)
            node = _decode(raw)
            position = node.position(key)
            if node.level == 0 or position == len(node.keys):
                return found
            name = node.child(position)

    def walk_nodes(self, *, skip: set[Digest] | None = None) -> Iterator[Digest]:
        """Yield the name of each node of the tree, parents first; nodes in `skip` are left out with all below them.

        Every name that is yielded is added to `skip`. Leaves are named, not read.
        """
        seen = set() if skip is None else skip
        if self.root == EMPTY or self.root in seen:
            return
        seen.add(self.root)
        yield self.root
        stack = [self.root] if _load(self.nodes, self.root).level else []
        while stack:
            node = _load(self.nodes, stack.pop())
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
    above: list[tuple[bytes, _Child]] = []
    keys: list[bytes] = []
    values: list[Any] = []
    source = iter(items)
    last = b""
    while part := list(islice(source, _BUILD_TOGETHER)):
        new_keys, new_values = map(list, zip(*part, strict=True))
        _check_rising(new_keys, new_values, last if above or keys else None)
        last = new_keys[-1]
        keys += new_keys
        values += new_values
        made, keys, values = _cut_nodes(0, keys, values, nodes.tree_target, is_end=False)
        above += _store_batched(nodes, made)
    made, _, _ = _cut_nodes(0, keys, values, nodes.tree_target, is_end=True)
    above += _store_batched(nodes, made)
    level = 0
    while len(above) > 1:
        level += 1
        keys, children = map(list, zip(*above, strict=True))
        made, _, _ = _cut_nodes(level, keys, children, nodes.tree_target, is_end=True)
        above = _store_batched(nodes, made)
    return Tree(nodes, above[0][1].name if above else EMPTY)


def _cut_nodes(
    level: int, keys: list[bytes], values: list[Any], target: int, *, is_end: bool
) -> tuple[list[_Node], list[bytes], list[Any]]:
    """Cut a run of entries into nodes; return them, and what is left over unless the level ends with the run."""
    made: list[_Node] = []
    start = 0
    for stop in find_cuts(keys, level, target):
        made.append(_Node(VERSION, level, keys[start:stop], values[start:stop]))
        start = stop
    if is_end and start < len(keys):
        made.append(_Node(VERSION, level, keys[start:], values[start:]))
        start = len(keys)
    return made, keys[start:], values[start:]


def _store_batched(nodes: Nodes, made: Sequence[_Node]) -> list[tuple[bytes, _Child]]:
    return [entry for batch in _batches(made) for entry in _store(nodes, batch)]


def check_proof(root: Digest, key: bytes, nodes: Sequence[bytes]) -> bytes | None:
    """Return the value of `key` in the tree `root`, or None if it has none, from `Tree.prove` alone.

    Raises
    ------
    CorruptError
        `nodes` are not exactly those that show it.
    """
    name = root
    for number, raw in enumerate(nodes):
        if digest(raw) != name:
            raise CorruptError(f"node {number} of the proof is not {name.hex()[:12]}")
        node = _decode(raw)
        _check_shape(node, number)
        position = node.position(key)
        is_last = number == len(nodes) - 1
        if node.level == 0 or position == len(node.keys):
            if not is_last:
                raise CorruptError(f"the proof goes on after node {number}, which decides")
            if position == len(node.keys) or node.keys[position] != key:
                return None
            value: bytes = node.values[position]
            return value
        name = node.child(position)
    raise CorruptError("the proof ends before the leaf")


def _check_shape(node: _Node, number: int) -> None:
    # Whoever forges a proof chooses the bytes: elsewhere the hash vouches for them.
    if len(node.keys) != len(node.values) or not all(
        isinstance(value, bytes)
        if node.level == 0
        else isinstance(value, list) and len(value) == 2 and isinstance(value[0], bytes)
        for value in node.values
    ):
        raise CorruptError(f"node {number} of the proof is no tree node")


# --- parts of the above ---


class _LevelCursor:
    """Walks the nodes of one level of a tree from left to right."""

    def __init__(self, tree: Tree, level: int) -> None:
        self._nodes = tree.nodes
        self._root = _load(tree.nodes, tree.root)
        self._level = level
        self._path: list[tuple[_Node, int]] = []
        self.name = tree.root

    def seek(self, key: bytes) -> _Node:
        """Go to the node that holds or would hold `key`."""
        node = self._root
        self._path = []
        while node.level > self._level:
            position = min(node.position(key), len(node.keys) - 1)
            self._path.append((node, position))
            self.name = node.child(position)
            node = _load(self._nodes, self.name)
        return node

    @property
    def is_last(self) -> bool:
        return all(position == len(node.keys) - 1 for node, position in self._path)

    def next(self) -> _Node:
        """Go to the node after this one, which must not be the last."""
        while self._path[-1][1] == len(self._path[-1][0].keys) - 1:
            self._path.pop()
        node, position = self._path.pop()
        position += 1
        while True:
            self._path.append((node, position))
            self.name = node.child(position)
            node = _load(self._nodes, self.name)
            if node.level == self._level:
                return node
            position = 0


class _Rewrite:
    """Applies sorted edits to a tree, level by level from the leaves."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._target = tree.nodes.tree_target
        self._top = _load(tree.nodes, tree.root).level

    def apply(self, edits: list[tuple[bytes, Any]]) -> Tree:
        """Return the new tree."""
        nodes = self._tree.nodes
        new: list[tuple[bytes, _Child]] = []
        pending: list[_Node] = []
        for level in range(self._top + 1):
            old, made = self._rewrite_level(level, edits)
            new = _store(nodes, made) if level < self._top else []
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
                return self._tree
        return self._finish(pending)

    def _finish(self, roots: list[_Node]) -> Tree:
        nodes = self._tree.nodes
        if not roots:
            return Tree(nodes, EMPTY)
        if len(roots) == 1:
            node = roots[0]
            name: Digest | None = None
            while node.level > 0 and len(node.keys) == 1:
                name = node.child(0)
                node = _load(nodes, name)
            return Tree(nodes, name if name is not None else _store(nodes, [node])[0][1].name)
        level = roots[0].level
        while len(roots) > 1:
            level += 1
            chunker = _Chunker(level, self._target)
            for key, child in _store(nodes, roots):
                chunker.add(key, child)
            chunker.cut()
            roots = chunker.done
        return Tree(nodes, _store(nodes, roots)[0][1].name)

    def _rewrite_level(
        self, level: int, edits: list[tuple[bytes, Any]]
    ) -> tuple[list[tuple[bytes, Digest]], list[_Node]]:
        """Return ((last key, name) of each old node that was read over, the nodes that take their place)."""
        cursor = _LevelCursor(self._tree, level)
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
                _feed(chunker, node, edits[position:stop])
                position = stop
                if last:
                    chunker.cut()
                    break
                if not chunker.keys:
                    break  # The new cuts fall together with the old ones again.
                node = cursor.next()
        return old, chunker.done


def _feed(chunker: _Chunker, node: _Node, edits: Sequence[tuple[bytes, Any]]) -> None:
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


def _store(nodes: Nodes, made: Sequence[_Node]) -> list[tuple[bytes, _Child]]:
    names = nodes.put_many([_encode(node) for node in made])
    return [_entry(node, name) for node, name in zip(made, names, strict=True)]


def _children(node: _Node, start: bytes, stop: bytes | None) -> Iterator[Digest]:
    for position in range(node.position(start) if start else 0, len(node.keys)):
        if stop is not None and position and node.keys[position - 1] >= stop:
            return
        yield node.child(position)


def _distribute(node: _Node, keys: Sequence[bytes]) -> Iterator[tuple[int, Sequence[bytes]]]:
    """Yield (child's position, those of the sorted `keys` that lead to it); keys past the last child are dropped."""
    done = 0
    while done < len(keys):
        position = node.position(keys[done])
        if position == len(node.keys):
            return
        stop = bisect_right(keys, node.keys[position], done)
        yield position, keys[done:stop]
        done = stop


def _batches(items: Sequence[Any], size: int = _BATCH) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _after_prefix(prefix: bytes) -> bytes | None:
    """The smallest key above all keys with `prefix`; None if there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


def _differing_leaves(one: Tree, two: Tree) -> tuple[list[Digest], list[Digest]]:
    """Leaves of each tree that the other has not, in order; found level by level, cancelling equal nodes."""
    mine, my_level = [one.root], _load(one.nodes, one.root).level
    theirs, their_level = [two.root], _load(two.nodes, two.root).level
    while True:
        if my_level == their_level:
            common = set(mine) & set(theirs)
            if common:
                mine = [name for name in mine if name not in common]
                theirs = [name for name in theirs if name not in common]
        if my_level == their_level == 0:
            return mine, theirs
        top = max(my_level, their_level)
        if my_level == top:
            mine, my_level = _expand(one.nodes, mine), top - 1
        if their_level == top:
            theirs, their_level = _expand(two.nodes, theirs), top - 1


def _expand(nodes: Nodes, names: Sequence[Digest]) -> list[Digest]:
    found: list[Digest] = []
    for batch in _batches(names):
        for node in _load_many(nodes, batch):
            found += [node.child(position) for position in range(len(node.keys))]
    return found


def _entries(nodes: Nodes, leaves: Sequence[Digest]) -> Iterator[tuple[bytes, bytes]]:
    for batch in _batches(leaves):
        for leaf in _load_many(nodes, batch):
            yield from zip(leaf.keys, leaf.values, strict=True)


def _merge(
    one: Iterator[tuple[bytes, bytes]], two: Iterator[tuple[bytes, bytes]]
) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    mine, theirs = next(one, None), next(two, None)
    while mine is not None or theirs is not None:
        if theirs is None or (mine is not None and mine[0] < theirs[0]):
            assert mine is not None
            yield mine[0], mine[1], None
            mine = next(one, None)
        elif mine is None or theirs[0] < mine[0]:
            yield theirs[0], None, theirs[1]
            theirs = next(two, None)
        else:
            if mine[1] != theirs[1]:
                yield mine[0], mine[1], theirs[1]
            mine, theirs = next(one, None), next(two, None)


def _check_rising(keys: Sequence[bytes], values: Sequence[bytes], before: bytes | None) -> None:
    """Refuse keys that do not rise, from `before` on, and what is too long."""
    if before is not None and keys[0] <= before:
        raise InvalidInputError(f"tree keys must rise: {keys[0]!r} came after {before!r}")
    if not all(map(lt, keys, islice(keys, 1, None))):
        for one, other in pairwise(keys):
            if other <= one:
                raise InvalidInputError(f"tree keys must rise: {other!r} came after {one!r}")
    if max(map(len, keys)) > MAX_KEY_BYTES or max(map(len, values)) > MAX_VALUE_BYTES:
        for key, value in zip(keys, values, strict=True):
            _check_sizes(key, value)


def _check_edits(edits: Sequence[Edit]) -> None:
    before: bytes | None = None
    for key, value in edits:
        if before is not None and key <= before:
            raise InvalidInputError(f"tree edits must rise: {key!r} came after {before!r}")
        _check_sizes(key, value or b"")
        before = key


def _check_sizes(key: bytes, value: bytes) -> None:
    if len(key) > MAX_KEY_BYTES or len(value) > MAX_VALUE_BYTES:
        raise InvalidInputError(
            f"tree entry {key[:40]!r}... is too large: key {len(key)} bytes (at most {MAX_KEY_BYTES}), "
            f"value {len(value)} bytes (at most {MAX_VALUE_BYTES})"
        )
