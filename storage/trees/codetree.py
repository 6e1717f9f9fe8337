"""Code trees: the exact files of a pipeline's code, with the one bit of mode that matters.

A code tree is a prolly tree like a commit's, whose values are msgpack ``[mode, encoded value]`` with mode 0o644 or
0o755. Data trees carry no modes, so that ids do not depend on who wrote them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import msgspec

from ..digest import Digest, digest
from ..objects.content import Content, Piece, encode_manifest
from ..objects.cutting import ContentDefined
from ..objects.file_pieces import split
from ..objects.value import (
    INLINE_MAX_BYTES,
    WHOLE_MAX_BYTES,
    Inline,
    Pieces,
    Value,
    Whole,
    decode_value,
    encode_value,
)
from .prolly import Tree, build

CODE_MODES = (0o644, 0o755)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, bytes]).decode


class Puts(Protocol):
    """What takes contents: an `ObjectWriter`, or `ValuesOnly`."""

    def put(self, data: bytes) -> Value:
        """Return the value of `data`."""
        ...


class ValuesOnly:
    """Says what values contents would have, and stores nothing.

    Parameters
    ----------
    cutting
        How the store cuts large files by what they hold; None: at each 16 MiB.
    """

    def __init__(self, cutting: ContentDefined | None = None) -> None:
        self._cutting = cutting

    def put(self, data: bytes) -> Value:
        """Return the value that a store would give `data`."""
        if len(data) <= INLINE_MAX_BYTES:
            return Inline(data)
        if len(data) <= WHOLE_MAX_BYTES:
            return Whole(len(data), digest(data))
        pieces = [Piece(digest(part), len(part)) for part in split(data, self._cutting)]
        return Pieces(len(data), digest(encode_manifest(pieces)))


def write_code(writer: Puts, tree: Tree, files: Mapping[str, tuple[bytes, int]]) -> Digest:
    """Store files and their tree; return its root.

    Parameters
    ----------
    writer
        Takes the contents; its caller flushes it and names its packs in the entry that publishes the code.
    tree
        Any tree of the store: says where nodes go.
    files
        Relative path to (content, mode).
    """
    items = []
    for path, (data, mode) in files.items():
        stored = CODE_MODES[1] if mode & 0o111 else CODE_MODES[0]
        items.append((path.encode(), _encode((stored, encode_value(writer.put(data))))))
    return build(tree.nodes, sorted(items)).root


def code_value(raw: bytes) -> bytes:
    """Encoded value of a code tree's entry, without its mode."""
    return _decode(raw)[1]


def read_code(tree: Tree, content: Content) -> Iterator[tuple[str, bytes, int]]:
    """Yield (relative path, content, mode) of a code tree, sorted by path."""
    for key, raw in tree.scan():
        mode, value = _decode(raw)
        yield key.decode(), content.read(decode_value(value)), mode
