"""Packs of small files, built in one buffer that files are read into: the fast lane beside `PackBuilder`.

What comes out is an ordinary pack. There is no object per file: a blob is a row of its footer.
"""

from __future__ import annotations

import mmap
import secrets
from collections.abc import Callable, Container

import msgspec
from blake3 import blake3

from ..backend import Backend
from ..digest import DIGEST_SIZE, Digest
from ..objects.compression import compress, own_compressor
from ..objects.index import PackRow
from ..objects.pack import CODEC_RAW, CODEC_ZSTD, MAGIC, NONCE_BYTES, PACK_TARGET_BYTES, VERSION, pack_key
from ..objects.value import PACK_BELOW_BYTES

ROWS_MAX = 1 << 16
_FOOTER_ROOM = 6 << 20
_ROW_BYTES = DIGEST_SIZE + 20


class Packed(msgspec.Struct, array_like=True):
    """A pack that was stored."""

    key: str
    rows: list[PackRow]


class Packer:
    """Builds and stores packs. For one thread.

    Parameters
    ----------
    backend
        Where packs go.
    is_known
        Whether the store has a packed blob already; asked once for each new one.
    packed
        Blobs that were packed before, by whoever else.
    """

    def __init__(self, backend: Backend, is_known: Callable[[Digest], bool] | None, packed: Container[bytes]) -> None:
        self._backend = backend
        self._is_known = is_known
        self._before = packed
        # Pages of an anonymous map cost nothing until they are used.
        self.view = memoryview(mmap.mmap(-1, PACK_TARGET_BYTES + PACK_BELOW_BYTES + _FOOTER_ROOM))
        """Read the next file into it, from `position` on: there is room for the largest that is packed."""
        self.position = 0
        self._rows: list[PackRow] = []
        self._seen: set[bytes] = set()
        self._compressor = own_compressor()
        self.stored: list[Packed] = []
        """What was stored so far."""
        self.known: list[bytes] = []
        """Blobs that the store had before."""

    def take(self, size: int, kind: str) -> bytes:
        """Take the `size` bytes at `position` as a blob; return its hash.

        Parameters
        ----------
        size
            Below `PACK_BELOW_BYTES`.
        kind
            Files of one kind are taken to compress alike.
        """
        at = self.position
        part = self.view[at : at + size]
        name = blake3(part).digest()
        if name in self._seen or name in self._before:
            return name
        self._seen.add(name)
        if self._is_known is not None and self._is_known(Digest(name)):
            self.known.append(name)
            return name
        frame = self._compressor.frame(part, kind)
        if frame is None:
            self._rows.append((name, at, size, size, CODEC_RAW))
            self.position = at + size
        else:
            stored = len(frame)
            self.view[at : at + stored] = frame
            self._rows.append((name, at, stored, size, CODEC_ZSTD))
            self.position = at + stored
        if self.position >= PACK_TARGET_BYTES or len(self._rows) >= ROWS_MAX:
            self.flush()
        return name

    def rest(self) -> list[tuple[bytes, bytes, int, int]]:
        """Give away what is not in a stored pack: hash, stored bytes, size and codec of each blob."""
        found = [
            (name, bytes(self.view[offset : offset + stored]), size, codec)
            for name, offset, stored, size, codec in self._rows
        ]
        self._rows = []
        self.position = 0
        return found

    def flush(self) -> None:
        """Store the pack that is being built, if there is anything in it."""
        if not self._rows:
            return
        self._rows.sort()
        footer = {"v": VERSION, "nonce": secrets.token_bytes(NONCE_BYTES), "blobs": self._rows}
        frame = compress(msgspec.msgpack.encode(footer))
        end = b"".join([frame, len(frame).to_bytes(4, "little"), MAGIC])
        stop = self.position + len(end)
        self.view[self.position : stop] = end
        body = self.view[:stop]
        key = pack_key(body)
        self._backend.put_if_absent(key, body)
        self.stored.append(Packed(key, self._rows))
        self._rows = []
        self.position = 0


assert ROWS_MAX * _ROW_BYTES < _FOOTER_ROOM
