"""The content that the leaves of each kind of tree refer to."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from ..objects.value import Value, decode_value
from .codetree import code_value

ValuesOf = Callable[[bytes], Iterable[Value]]
"""From a leaf's encoded value to the contents that it refers to."""

_success = msgspec.msgpack.Decoder(tuple[bytes, list[tuple[str, bytes]]])


def file_values(raw: bytes) -> Iterable[Value]:
    """Of a commit's tree, or an output tree: the file."""
    return (decode_value(raw),)


def code_values(raw: bytes) -> Iterable[Value]:
    """Of a code tree: the file."""
    return (decode_value(code_value(raw)),)


def success_values(raw: bytes) -> Iterable[Value]:
    """Of a context's tree S: the outputs of a datum."""
    return [decode_value(value) for _, value in _success.decode(raw)[1]]


def no_values(raw: bytes) -> Iterable[Value]:
    """Of trees that refer to no content."""
    del raw
    return ()
