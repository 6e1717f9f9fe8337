"""Code trees: the exact files of a pipeline's code, with the one bit of mode that matters.

A code tree is a prolly tree like a commit's, whose values are msgpack ``[mode, encoded value]`` with mode 0o644 or
0o755. Data trees carry no modes, so that ids do not depend on who wrote them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from .content import Content
from .digest import Digest
from .prolly import Tree, build
from .value import decode_value, encode_value
from .writer import ObjectWriter

CODE_MODES = (0o644, 0o755)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, bytes]).decode


def write_code(writer: ObjectWriter, tree: Tree, files: Mapping[str, tuple[bytes, int]]) -> Digest:
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
