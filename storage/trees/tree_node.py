"""Nodes of a prolly tree: what they hold, their bytes, and how they are read and written."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from ..digest import Digest, digest
from ..errors import CorruptError, FormatError, InvalidInputError
from ..objects.node import Nodes

VERSION = 1
MAX_KEY_BYTES = 16 << 10
MAX_VALUE_BYTES = 32 << 20

BATCH = 32
"""Nodes fetched or written together while streaming."""


class Child(NamedTuple):
    """An inner entry's value."""

    name: Digest
    entries: int


class Node(msgspec.Struct, frozen=True, array_like=True):
    """Entries in order of their keys; a leaf has level 0."""

    version: int
    level: int
    keys: list[bytes]
    values: list[Any]
    """`bytes` in leaves, [name, count] above."""

    @property
    def count(self) -> int:
        """Entries of the leaves below."""
        return len(self.keys) if self.level == 0 else sum(count for _, count in self.values)

    def child(self, position: int) -> Digest:
        """Return the name of a node one level below."""
        return Digest(self.values[position][0])

    def position(self, key: bytes) -> int:
        """First entry whose key is not below `key`."""
        return bisect_left(self.keys, key)


_decoder = msgspec.msgpack.Decoder(Node)
_encode = msgspec.msgpack.Encoder().encode

EMPTY_RAW = _encode(Node(VERSION, 0, [], []))
EMPTY: Digest = digest(EMPTY_RAW)
"""Root of the empty tree. It need not be stored."""
EMPTY_NODE = Node(VERSION, 0, [], [])


def decode_node(raw: bytes) -> Node:
    """Return the node whose bytes these are.

    Raises
    ------
    CorruptError
        It is no node.
    FormatError
        A newer dmlpipe made it.
    """
    try:
        node = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise CorruptError(f"not a tree node: {err}") from err
    if node.version != VERSION:
        raise FormatError(f"tree node has format {node.version}: expected {VERSION}; made by a newer dmlpipe")
    return node


def load_many(nodes: Nodes, names: Sequence[Digest]) -> list[Node]:
    """Return nodes by name, fetched together."""
    if EMPTY in names:
        return [EMPTY_NODE if name == EMPTY else load(nodes, name) for name in names]
    return nodes.load_many(names, decode_node)


def load(nodes: Nodes, name: Digest) -> Node:
    """Return a node by name."""
    return EMPTY_NODE if name == EMPTY else nodes.load_many([name], decode_node)[0]


def store(nodes: Nodes, made: Sequence[Node]) -> list[tuple[bytes, Child]]:
    """Write nodes together; return the entry of each for the level above."""
    names = nodes.put_many([_encode(node) for node in made])
    return [_entry(node, name) for node, name in zip(made, names, strict=True)]


def _entry(node: Node, name: Digest) -> tuple[bytes, Child]:
    return node.keys[-1], Child(name, node.count)


def batches(items: Sequence[Any], size: int = BATCH) -> Iterator[Sequence[Any]]:
    """Yield `items` in runs of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def check_sizes(key: bytes, value: bytes) -> None:
    """Raise `InvalidInputError` if a key or value is too long for a tree."""
    if len(key) > MAX_KEY_BYTES or len(value) > MAX_VALUE_BYTES:
        raise InvalidInputError(
            f"tree entry {key[:40]!r}... is too large: key {len(key)} bytes (at most {MAX_KEY_BYTES}), "
            f"value {len(value)} bytes (at most {MAX_VALUE_BYTES})"
        )
