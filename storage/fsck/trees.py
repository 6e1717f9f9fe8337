"""What the leaves of a store's trees name, by the kind of tree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from ..digest import Digest
from ..errors import CorruptError
from ..objects.value import Value, decode_value
from ..trees.codetree import code_value

ValuesOf = Callable[[bytes], Iterable[Value]]


def _file_values(raw: bytes) -> Iterator[Value]:
    yield decode_value(raw)


def _code_values(raw: bytes) -> Iterator[Value]:
    yield decode_value(code_value(raw))


def _success_values(raw: bytes) -> Iterator[Value]:
    _, outputs = msgspec.msgpack.decode(raw, type=tuple[bytes, list[tuple[str, bytes]]])
    for _, value in outputs:
        yield decode_value(value)


def _finished_values(raw: bytes) -> Iterator[Value]:
    for _, value in msgspec.msgpack.decode(raw)[2]:
        yield decode_value(value)


def _no_values(raw: bytes) -> Iterator[Value]:
    del raw
    return iter(())


VALUES: Mapping[str, ValuesOf] = {
    "files": _file_values,
    "code": _code_values,
    "memo": _success_values,
    "done": _finished_values,
    "plain": _no_values,
}
"""Kind of tree to what one entry of its leaves names."""


def decode_tree_node(name: Digest, raw: bytes) -> tuple[int, list[bytes], list[Any]]:
    """Return (level, keys, entries) of a tree node.

    Raises
    ------
    CorruptError
        It is no tree node.
    """
    try:
        _, level, keys, entries = msgspec.msgpack.decode(raw, type=tuple[int, int, list[bytes], list[Any]])
    except msgspec.DecodeError as error:
        raise CorruptError(f"node {name.hex()[:12]} is no tree node: {error}") from error
    return level, keys, entries
