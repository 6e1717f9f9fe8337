"""Indexes: where packed blobs are, in objects that can be searched as they lie.

::

    magic: 8 bytes | length of head: u32 LE | head: msgpack [version, [container key...]] | records, sorted by hash

A record is 53 bytes: hash (32), number of the container (u32), offset (u64), stored size (u32), size (u32), codec (u8),
all little-endian. Nothing is decoded to search: a bisection over the bytes finds a hash. An index's name is the hash of
its bytes; it is derived from the footers of the packs it covers and can be rebuilt from them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, starmap
from operator import eq

import msgspec

from ..digest import DIGEST_SIZE, Data, Digest, digest
from ..errors import CorruptError, FormatError
from .pack import Location

INDEX_PREFIX = "index"
MAGIC = b"dmlindx1"
VERSION = 1

_RECORD = struct.Struct("<32sIQIIB")
_ROW = struct.Struct("<32s4xQIIB")
_WHOLE = struct.Struct(f"{_RECORD.size}s")
_NAME = struct.Struct(f"{DIGEST_SIZE}s{_RECORD.size - DIGEST_SIZE}x")
_REST = struct.Struct("<IQIIB")
_HEAD = len(MAGIC) + 4

PackRow = tuple[bytes, int, int, int, int]
"""A blob in a pack: hash, offset, stored size, size, codec."""


def encode_records(rows: Iterable[PackRow]) -> bytes:
    """Return the records of one pack's blobs, sorted by hash: `BlobIndex.build_packs` puts in which pack it is."""
    return b"".join(sorted(starmap(_ROW.pack, rows)))


def decode_records(records: bytes) -> Iterator[PackRow]:
    """Yield the blobs of `encode_records`."""
    return _ROW.iter_unpack(records)


class BlobIndex:
    """A parsed index: finds hashes by bisection.

    Parameters
    ----------
    data
        The object's bytes (a memory map serves); kept, not copied.
    what
        Its key, for messages.

    Raises
    ------
    CorruptError
        `data` is no index.
    """

    def __init__(self, data: Data, what: str = "index") -> None:
        view = memoryview(data)
        if bytes(view[: len(MAGIC)]) != MAGIC or len(view) < _HEAD:
            raise CorruptError(f"{what} is corrupt: it does not begin with {MAGIC.decode()}")
        start = _HEAD + int.from_bytes(view[len(MAGIC) : _HEAD], "little")
        try:
            version, containers = msgspec.msgpack.decode(view[_HEAD:start], type=tuple[int, list[str]])
        except msgspec.DecodeError as err:
            raise CorruptError(f"{what} is corrupt: bad head: {err}") from err
        if version != VERSION:
            raise FormatError(f"{what} has index format {version}: expected {VERSION}; made by a newer dmlpipe")
        self.containers: tuple[str, ...] = tuple(containers)
        """Keys of the packs and segments it covers."""
        self._records = view[start:]
        self._what = what
        if len(self._records) % _RECORD.size:
            raise CorruptError(f"{what} is corrupt: {len(self._records)} bytes of records of {_RECORD.size} bytes each")

    @staticmethod
    def build_packs(packs: Sequence[tuple[str, bytes]]) -> bytes:
        """Return the bytes of an index over packs, given their keys and their blobs' records, in any order.

        Of two copies of a blob one counts.
        """
        head = msgspec.msgpack.encode([VERSION, [key for key, _ in packs]])
        found: list[bytes] = []
        for number, (_, records) in enumerate(packs):
            mine = bytearray(records)
            for place, digit in enumerate(number.to_bytes(4, "little")):
                mine[DIGEST_SIZE + place :: _RECORD.size] = bytes([digit]) * (len(mine) // _RECORD.size)
            found += [record for (record,) in _WHOLE.iter_unpack(mine)]
        found.sort()
        names = [record[:DIGEST_SIZE] for record in found]
        if any(map(eq, names, islice(names, 1, None))):
            befores = [b"", *names[:-1]]
            found = [record for record, name, before in zip(found, names, befores, strict=True) if name != before]
        return b"".join([MAGIC, len(head).to_bytes(4, "little"), head, *found])

    @staticmethod
    def build_sorted(entries: Iterable[tuple[Digest, Location]], keys: Iterable[str]) -> bytes:
        """Return the bytes of an index over entries sorted by hash, each hash once; `keys` are those they name.

        Memory: that of the index.
        """
        containers = sorted(keys)
        numbers = {key: number for number, key in enumerate(containers)}
        head = msgspec.msgpack.encode([VERSION, containers])
        data = bytearray(b"".join([MAGIC, len(head).to_bytes(4, "little"), head]))
        pack = _RECORD.pack
        for name, at in entries:
            data += pack(name, numbers[at.key], at.offset, at.stored, at.size, at.codec)
        return bytes(data)

    @staticmethod
    def build(entries: Iterable[tuple[Digest, Location]]) -> bytes:
        """Return the bytes of an index over `entries`, in any order; of two for one hash the first counts."""
        found: dict[Digest, Location] = {}
        for name, location in entries:
            found.setdefault(name, location)
        containers = sorted({location.key for location in found.values()})
        numbers = {key: number for number, key in enumerate(containers)}
        head = msgspec.msgpack.encode([VERSION, containers])
        return b"".join(
            [
                MAGIC,
                len(head).to_bytes(4, "little"),
                head,
                *(
                    _RECORD.pack(name, numbers[at.key], at.offset, at.stored, at.size, at.codec)
                    for name, at in sorted(found.items())
                ),
            ]
        )

    def __len__(self) -> int:
        return len(self._records) // _RECORD.size

    def __iter__(self) -> Iterator[tuple[Digest, Location]]:
        for position in range(len(self)):
            start = position * _RECORD.size
            yield Digest(bytes(self._records[start : start + DIGEST_SIZE])), self._location(start)

    def at(self, number: int) -> Location:
        """Return where a blob is, given its place among the sorted hashes."""
        return self._location(number * _RECORD.size)

    def names(self) -> Iterator[bytes]:
        """Yield the hashes, sorted."""
        return chain.from_iterable(_NAME.iter_unpack(self._records))

    def find(self, name: Digest) -> Location | None:
        """Return where the blob `name` is, or None if it is not in this index."""
        low, high = 0, len(self)
        records, size = self._records, _RECORD.size
        while low < high:
            middle = (low + high) // 2
            here = bytes(records[middle * size : middle * size + DIGEST_SIZE])
            if here < name:
                low = middle + 1
            elif here > name:
                high = middle
            else:
                return self._location(middle * size)
        return None

    def _location(self, start: int) -> Location:
        number, offset, stored, size, codec = _REST.unpack_from(self._records, start + DIGEST_SIZE)
        if number >= len(self.containers):
            raise CorruptError(f"{self._what} is corrupt: container {number} of {len(self.containers)}")
        return Location(self.containers[number], offset, stored, size, codec)


def index_key(data: Data) -> str:
    """Return the key under which the index `data` is stored."""
    return f"{INDEX_PREFIX}/{digest(data).hex()}.idx"
