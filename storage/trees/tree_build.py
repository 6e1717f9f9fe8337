"""Building a prolly tree from all its entries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from operator import lt
from typing import Any

from ..digest import Digest
from ..errors import InvalidInputError
from ..objects.node import Nodes
from .cuts import find_cuts
from .tree_node import EMPTY, MAX_KEY_BYTES, MAX_VALUE_BYTES, VERSION, Child, Node, batches, check_sizes, store

_BUILD_TOGETHER = 1 << 16
"""Entries in memory beside the nodes while a tree is built."""


Run = tuple[Sequence[bytes], Sequence[bytes]]
"""Keys, and the value of each."""


def build_root(nodes: Nodes, items: Iterable[tuple[bytes, bytes]]) -> Digest:
    """Return the root of the tree of `items`, sorted by key, each key once.

    Streams: memory is in proportion to the number of nodes.

    Raises
    ------
    InvalidInputError
        Items are not sorted, or a key or value is too long.
    """
    return _build(nodes, _runs_of(items))


def build_root_of_lists(nodes: Nodes, keys: Sequence[bytes], values: Sequence[bytes]) -> Digest:
    """`build_root`, given all keys and the value of each."""
    starts = range(0, len(keys), _BUILD_TOGETHER)
    return _build(nodes, ((keys[at : at + _BUILD_TOGETHER], values[at : at + _BUILD_TOGETHER]) for at in starts))


def _runs_of(items: Iterable[tuple[bytes, bytes]]) -> Iterator[Run]:
    source = iter(items)
    while part := list(islice(source, _BUILD_TOGETHER)):
        # Not zip(*part): it would make an iterator for each entry.
        yield [key for key, _ in part], [value for _, value in part]


def _build(nodes: Nodes, runs: Iterable[Run]) -> Digest:
    above: list[tuple[bytes, Child]] = []
    keys: list[bytes] = []
    values: list[Any] = []
    last = b""
    for new_keys, new_values in runs:
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
    return above[0][1].name if above else EMPTY


def _cut_nodes(
    level: int, keys: list[bytes], values: list[Any], target: int, *, is_end: bool
) -> tuple[list[Node], list[bytes], list[Any]]:
    """Cut a run of entries into nodes; return them, and what is left over unless the level ends with the run."""
    made: list[Node] = []
    start = 0
    for stop in find_cuts(keys, level, target):
        made.append(Node(VERSION, level, keys[start:stop], values[start:stop]))
        start = stop
    if is_end and start < len(keys):
        made.append(Node(VERSION, level, keys[start:], values[start:]))
        start = len(keys)
    return made, keys[start:], values[start:]


def _store_batched(nodes: Nodes, made: Sequence[Node]) -> list[tuple[bytes, Child]]:
    return [entry for batch in batches(made) for entry in store(nodes, batch)]


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
            check_sizes(key, value)
