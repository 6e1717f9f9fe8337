"""Proofs of what a prolly tree holds under a key: the nodes on the way to it."""

from __future__ import annotations

from collections.abc import Sequence

from ..digest import Digest, digest
from ..errors import CorruptError
from ..objects.node import Nodes
from .tree_node import EMPTY, EMPTY_RAW, Node, decode_node


def prove(nodes: Nodes, root: Digest, key: bytes) -> list[bytes]:
    """Return the nodes, from the root down, that show what a tree has under `key`."""
    found: list[bytes] = []
    name = root
    while True:
        raw = EMPTY_RAW if name == EMPTY else nodes.get_many([name])[0]
        found.append(raw)
        node = decode_node(raw)
        position = node.position(key)
        if node.level == 0 or position == len(node.keys):
            return found
        name = node.child(position)


def check_proof(root: Digest, key: bytes, nodes: Sequence[bytes]) -> bytes | None:
    """Return the value of `key` in the tree `root`, or None if it has none, from `prove` alone.

    Raises
    ------
    CorruptError
        `nodes` are not exactly those that show it.
    """
    name = root
    for number, raw in enumerate(nodes):
        if digest(raw) != name:
            raise CorruptError(f"node {number} of the proof is not {name.hex()[:12]}")
        node = decode_node(raw)
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


def _check_shape(node: Node, number: int) -> None:
    # Whoever forges a proof chooses the bytes: elsewhere the hash vouches for them.
    if len(node.keys) != len(node.values) or not all(
        isinstance(value, bytes)
        if node.level == 0
        else isinstance(value, list) and len(value) == 2 and isinstance(value[0], bytes)
        for value in node.values
    ):
        raise CorruptError(f"node {number} of the proof is no tree node")
