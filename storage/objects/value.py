"""What a commit tree says of one path: where its content is and how large.

A value is a function of the content alone (and of the store's fixed parameters), so equal content has equal
value bytes, and the encoded value serves as the *content id* of a file.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..digest import DIGEST_SIZE, Digest

INLINE_MAX_BYTES = 128
"""Content up to this size stands in the tree itself."""

PACK_BELOW_BYTES = 1 << 20
"""Content below this size is packed; from it on it is a loose object."""

WHOLE_MAX_BYTES = 16 << 20
"""Content above this size is cut into pieces."""


class Whole(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=0):
    """One blob, loose or packed."""

    size: int
    hash: bytes


class Pieces(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """A large file: `manifest` names a node that lists its pieces."""

    size: int
    manifest: bytes


class Inline(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """Content that stands here."""

    data: bytes

    @property
    def size(self) -> int:
        """Bytes of content."""
        return len(self.data)


class External(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """Content that stays where it is (`put --link`)."""

    url: str
    size: int
    etag: str


Value = Whole | Pieces | Inline | External

_WHOLE = 0
_INLINE = 2
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Value] = msgspec.msgpack.Decoder(Value)


def encode_value(value: Value) -> bytes:
    """Return the bytes that stand in a tree node."""
    return _encoder.encode(value)


def decode_value(data: bytes) -> Value:
    """Parse the bytes of a tree node."""
    return _decoder.decode(data)


def is_inline(data: bytes) -> bool:
    """Whether an encoded value is an `Inline`, without decoding it."""
    return data[1] == _INLINE


class Sizes:
    """Reads what encoded values say of sizes: of many faster than one by one."""

    def __init__(self) -> None:
        self._by_head = _SizeByHead()

    def sum(self, values: Sequence[bytes]) -> int:
        """Return the bytes of content of all."""
        whole = sum(map(self._by_head.__getitem__, [value[:-DIGEST_SIZE] for value in values if value[1] == _WHOLE]))
        return whole + sum(decode_value(value).size for value in values if value[1] != _WHOLE)


class _SizeByHead(dict[bytes, int]):
    # Nearly all are whole blobs, and many are of one size: what stands before the hash is parsed once for each size.
    def __missing__(self, head: bytes) -> int:
        size = self[head] = decode_value(head + bytes(DIGEST_SIZE)).size
        return size


def blob_of(value: Value) -> Digest | None:
    """The blob that holds the whole content, or None where there is no single one."""
    return Digest(value.hash) if isinstance(value, Whole) else None
