"""Packs: many small blobs in one object, found by the footer at its end.

::

    blob... | footer: one zstd frame of msgpack | length of the frame: u32 LE | magic: 8 bytes

The footer is a map: ``v``, ``nonce``, ``blobs`` (arrays [hash, offset, stored size, size, codec], sorted by hash) and,
in a segment, ``rows`` and ``meta``. A pack's name is the hash of its footer frame; with the nonce in it no name is ever
used twice, so a late delete cannot hit a newer pack. Blobs stand in the order in which they were added: what was
written together is read together.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from ..backend import Backend
from ..digest import Data, Digest, digest, short
from ..errors import CorruptError, FormatError, NotFoundError
from ..tokens import token_bytes
from .compression import compress, decompress

PACK_PREFIX = "packs"
PACK_TARGET_BYTES = 32 << 20
MAGIC = b"dmlpack1"
VERSION = 1

CODEC_RAW = 0
CODEC_ZSTD = 1

_TRAILER_BYTES = 4 + len(MAGIC)
_FIRST_READ_BYTES = 64 << 10
NONCE_BYTES = 16


class Location(NamedTuple):
    """Where a packed blob is."""

    key: str
    """Of the pack or segment."""
    offset: int
    stored: int
    """Bytes it takes there."""
    size: int
    """Bytes of content."""
    codec: int


class PackedBlob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One line of a footer."""

    hash: bytes
    offset: int
    stored: int
    size: int
    codec: int

    @property
    def row(self) -> tuple[bytes, int, int, int, int]:
        """The same as a plain tuple."""
        return self.hash, self.offset, self.stored, self.size, self.codec


NO_ROWS = msgspec.Raw(b"\xc0")
"""msgpack's nil."""


class Footer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the end of a pack says."""

    v: int
    nonce: bytes
    blobs: tuple[PackedBlob, ...]
    rows: msgspec.Raw = NO_ROWS
    """As they are encoded: most readers of a footer want none of them."""
    meta: Any = None

    def locations(self, key: str) -> Iterator[tuple[Digest, Location]]:
        """Yield where each blob is, given the key of the pack, sorted by hash."""
        for blob in self.blobs:
            yield Digest(blob.hash), Location(key, blob.offset, blob.stored, blob.size, blob.codec)


_decoder = msgspec.msgpack.Decoder(Footer)


class PackBuilder:
    """Collects blobs of one pack, or of one segment. Safe for use by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stored: dict[Digest, bytes] = {}
        self._blobs: dict[Digest, PackedBlob] = {}
        self._offset = 0

    def __len__(self) -> int:
        return len(self._blobs)

    def __contains__(self, name: Digest) -> bool:
        return name in self._blobs

    @property
    def size(self) -> int:
        """Bytes collected so far."""
        return self._offset

    def add(self, name: Digest, data: Data, frame: bytes | None = None) -> bool:
        """Add a blob under its hash; return False if it is there already.

        Parameters
        ----------
        name
            Its hash.
        data
            Its content.
        frame
            What the content was compressed to, if it is stored so.
        """
        if frame is None:
            return self.add_stored(name, bytes(data), len(data), CODEC_RAW)
        return self.add_stored(name, frame, len(data), CODEC_ZSTD)

    def add_stored(self, name: Digest, stored: bytes, size: int, codec: int) -> bool:
        """Add a blob as it is going to be stored; return False if it is there already."""
        with self._lock:
            if name in self._blobs:
                return False
            self._blobs[name] = PackedBlob(name, self._offset, len(stored), size, codec)
            self._stored[name] = stored
            self._offset += len(stored)
        return True

    def blobs(self) -> dict[Digest, PackedBlob]:
        """Return what was added so far, by hash."""
        with self._lock:
            return dict(self._blobs)

    def get(self, name: Digest) -> bytes | None:
        """Return the content of a blob that was added here, or None."""
        with self._lock:
            blob = self._blobs.get(name)
            stored = self._stored.get(name)
        return None if blob is None or stored is None else unpack(stored, blob.codec, name)

    def finish(self, rows: msgspec.Raw = NO_ROWS, meta: Any = None) -> bytes:
        """Return the bytes of the whole object.

        Parameters
        ----------
        rows, meta
            Of a segment: `encode_rows`; a plain msgpack value.
        """
        with self._lock:
            blobs = tuple(self._blobs[name] for name in sorted(self._blobs))
            parts = list(self._stored.values())
        footer = Footer(v=VERSION, nonce=token_bytes(NONCE_BYTES), blobs=blobs, rows=rows, meta=meta)
        frame = compress(msgspec.msgpack.encode(footer))
        return b"".join([*parts, frame, len(frame).to_bytes(4, "little"), MAGIC])


def pack_key(body: Data) -> str:
    """Return the key under which the pack `body` is stored."""
    view = memoryview(body)
    text = digest(view[-_TRAILER_BYTES - _frame_length(view[-_TRAILER_BYTES:], "pack") : -_TRAILER_BYTES]).hex()
    return f"{PACK_PREFIX}/{text[:2]}/{text[2:]}.pack"


def parse_footer(body: Data, what: str) -> Footer:
    """Parse the footer of a pack, given all of its bytes (or enough from its end).

    Raises
    ------
    CorruptError
        `body` does not end in a footer.
    FormatError
        The footer is of a newer format.
    """
    view = memoryview(body)
    length = _frame_length(view[-_TRAILER_BYTES:], what)
    if length + _TRAILER_BYTES > len(view):
        raise CorruptError(f"{what} is corrupt: footer of {length} bytes in {len(view)} bytes")
    return _decode_footer(view[len(view) - length - _TRAILER_BYTES : len(view) - _TRAILER_BYTES], what)


def read_footer(backend: Backend, key: str) -> Footer:
    """Read the footer of a stored pack or segment.

    A pack's footer is checked against its name; a segment's by its checksum alone.

    Raises
    ------
    NotFoundError
        There is no such object.
    CorruptError
        It does not end in a footer, or in another one than its name says.

    Notes
    -----
    One request, two if the footer is larger than 64 KiB.
    """
    tail = backend.get(key, -_FIRST_READ_BYTES)
    length = _frame_length(memoryview(tail)[-_TRAILER_BYTES:], key)
    if length + _TRAILER_BYTES > len(tail) == _FIRST_READ_BYTES:
        tail = backend.get(key, -(length + _TRAILER_BYTES))
    footer = parse_footer(tail, key)
    if key.startswith(f"{PACK_PREFIX}/") and pack_key(tail) != key:
        raise CorruptError(f"{key} is corrupt: its footer belongs to {pack_key(tail)}")
    return footer


def read_rows(backend: Backend, key: str) -> tuple[msgspec.Raw, Any]:
    """Return (rows, meta) of a segment's footer."""
    footer = read_footer(backend, key)
    return footer.rows, footer.meta


def verify_pack(body: Data, key: str) -> Footer:
    """Check every blob of a pack or segment against its hash; return the footer.

    Raises
    ------
    CorruptError
        Names the first blob that is not what its hash says.
    """
    footer = parse_footer(body, key)
    if key.startswith(f"{PACK_PREFIX}/") and pack_key(body) != key:
        raise CorruptError(f"{key} is corrupt: its footer belongs to {pack_key(body)}")
    view = memoryview(body)
    for blob in footer.blobs:
        content = unpack(view[blob.offset : blob.offset + blob.stored], blob.codec, Digest(blob.hash))
        check_blob(Digest(blob.hash), content, f"{key}, offset {blob.offset}")
    return footer


def unpack(stored: Data, codec: int, name: Digest) -> bytes:
    """Return a blob's content from its stored bytes. Does not check the hash."""
    if codec == CODEC_RAW:
        return bytes(stored)
    if codec == CODEC_ZSTD:
        return decompress(stored, f"blob {short(name)}")
    raise FormatError(f"blob {short(name)} is stored with codec {codec}: expected 0 or 1; made by a newer dmlpipe")


def check_blob(name: Digest, content: Data, where: str) -> None:
    """Raise `CorruptError` unless `content` hashes to `name`."""
    actual = digest(content)
    if actual != name:
        raise CorruptError(
            f"blob {short(name)} is corrupt: its {len(content)} stored bytes hash to {short(actual)} ({where})"
        )


def _frame_length(trailer: Data, what: str) -> int:
    if len(trailer) < _TRAILER_BYTES or bytes(trailer[4:]) != MAGIC:
        raise CorruptError(f"{what} is corrupt: it does not end in {MAGIC.decode()}")
    return int.from_bytes(trailer[:4], "little")


def _decode_footer(frame: Data, what: str) -> Footer:
    try:
        footer = _decoder.decode(decompress(frame, what))
    except msgspec.DecodeError as err:
        raise CorruptError(f"{what} is corrupt: bad footer: {err}") from err
    if footer.v != VERSION:
        raise FormatError(f"{what} has pack format {footer.v}: expected {VERSION}; made by a newer dmlpipe")
    return footer


def missing_pack(key: str, name: Digest) -> NotFoundError:
    """The error for a pack that an index names and that is not there."""
    return NotFoundError(f"blob {short(name)} is missing: its pack {key} does not exist")
