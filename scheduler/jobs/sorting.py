"""Sorting more than memory should hold: records by key, in files as soon as they are many."""

from __future__ import annotations

import heapq
import os
import tempfile
from collections.abc import Iterator
from operator import itemgetter
from typing import IO

import msgspec

__all__ = ["SortedRecords"]

MEMORY_BYTES = 24 << 20
_RECORD_BYTES = 200
"""What Python adds to a key and a value."""

_BLOCK = 512
"""Records that are read together."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]]).decode
_key = itemgetter(0)


class SortedRecords:
    """Records, iterated by key; those with one key as they were added. May be iterated again, and added to after that.

    Parameters
    ----------
    memory_bytes
        What is held in memory before it is written to a file without a name, in `$TMPDIR`; None: `MEMORY_BYTES`.
    """

    def __init__(self, memory_bytes: int | None = None) -> None:
        self._memory_bytes = MEMORY_BYTES if memory_bytes is None else memory_bytes
        self._held: list[tuple[bytes, bytes]] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._runs: list[list[tuple[int, int]]] = []
        """Of each sorted run the (offset, length) of its blocks."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: bytes, value: bytes) -> None:
        """Add a record."""
        self._held.append((key, value))
        self._count += 1
        self._bytes += len(key) + len(value) + _RECORD_BYTES
        if self._bytes >= self._memory_bytes:
            self._write()

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        self._held.sort(key=_key)
        if not self._runs:
            return iter(self._held)
        # Stable: of equal keys those of earlier runs come first.
        return heapq.merge(*(self._read(run) for run in self._runs), self._held, key=_key)

    def close(self) -> None:
        """Forget everything. Idempotent."""
        self._held, self._runs, self._bytes, self._count = [], [], 0, 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="dmlpipe-sort-")  # noqa: SIM115 - closed by `close` or the end
        self._held.sort(key=_key)
        self._file.seek(0, os.SEEK_END)
        run = []
        for start in range(0, len(self._held), _BLOCK):
            block = _encode(self._held[start : start + _BLOCK])
            run.append((self._file.tell(), len(block)))
            self._file.write(block)
        self._file.flush()
        self._runs.append(run)
        self._held, self._bytes = [], 0

    def _read(self, run: list[tuple[int, int]]) -> Iterator[tuple[bytes, bytes]]:
        assert self._file is not None
        fd = self._file.fileno()
        for offset, length in run:
            yield from _decode(os.pread(fd, length, offset))
