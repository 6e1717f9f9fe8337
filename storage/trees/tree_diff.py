"""Comparing two prolly trees by the nodes that only one of them has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..digest import Digest
from ..objects.node import Nodes
from .tree_node import batches, load, load_many


def diff_roots(
    one: Nodes, my_root: Digest, two: Nodes, their_root: Digest
) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """Yield (key, value in the first tree, value in the second) of each key whose values differ, sorted."""
    mine, theirs = _differing_leaves(one, my_root, two, their_root)
    return _merge(_entries(one, mine), _entries(two, theirs))


def _differing_leaves(one: Nodes, my_root: Digest, two: Nodes, their_root: Digest) -> tuple[list[Digest], list[Digest]]:
    """Leaves of each tree that the other has not, in order; found level by level, cancelling equal nodes."""
    mine, my_level = [my_root], load(one, my_root).level
    theirs, their_level = [their_root], load(two, their_root).level
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
            mine, my_level = _expand(one, mine), top - 1
        if their_level == top:
            theirs, their_level = _expand(two, theirs), top - 1


def _expand(nodes: Nodes, names: Sequence[Digest]) -> list[Digest]:
    found: list[Digest] = []
    for batch in batches(names):
        for node in load_many(nodes, batch):
            found += [node.child(position) for position in range(len(node.keys))]
    return found


def _entries(nodes: Nodes, leaves: Sequence[Digest]) -> Iterator[tuple[bytes, bytes]]:
    for batch in batches(leaves):
        for leaf in load_many(nodes, batch):
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
