"""A file on its way into the cache: parts come in any order, are verified, and written at their offset.

The file being filled stands beside its place in the cache. A filling that was interrupted (a crash, a store that went
away) is taken up again: what stands in the file is hashed, and only parts that are not there yet are missing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path
from typing import NamedTuple, Protocol

from ..digest import Data, Digest, digest

_TOGETHER = 4
"""Parts read from the store at a time; so many are in memory."""


class Part(NamedTuple):
    """A part of a file that is verified by itself: a piece of a large file, or the whole of a smaller one."""

    number: int
    offset: int
    size: int
    hash: Digest


class PartReader(Protocol):
    """Reads parts from where they always are: the store."""

    def read_part(self, part: Part) -> bytes:
        """Return the verified bytes of `part`. Safe for use by many threads.

        Raises
        ------
        NotFoundError, CorruptError, BackendError
            The store does not give it.
        """
        ...


class PartSource(Protocol):
    """Where a cache gets the parts of files that it lacks: the store, or other caches and then the store."""

    def fill(self, filling: Filling, origin: PartReader) -> None:
        """Put every missing part into `filling`.

        Raises
        ------
        NotFoundError, CorruptError, BackendError
            Nobody has a part; what the store said of it.
        """
        ...


class Filling:
    """A file with parts yet to come. Safe for use by many threads.

    Parameters
    ----------
    name
        What the file is called in the cache.
    parts
        All of them, in order.
    path, fd
        The file, and a descriptor of it open for reading and writing; the caller closes it.
    """

    def __init__(self, name: Digest, parts: Sequence[Part], path: Path, fd: int) -> None:
        self.name = name
        self.parts = tuple(parts)
        self.path = path
        self._fd = fd
        self._lock = threading.Lock()
        self._have = 0
        self.inode = os.fstat(fd).st_ino
        """Of the file: another one may stand at `path` later."""
        self.resumed_bytes = 0
        """What an interrupted filling had left."""
        if os.fstat(fd).st_size:
            self._resume()
        os.ftruncate(fd, self.size)

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.parts[-1].offset + self.parts[-1].size if self.parts else 0

    @property
    def have(self) -> int:
        """The parts that are there: bit n is part n."""
        return self._have

    def missing(self) -> list[Part]:
        """The parts that are not there yet, in order."""
        have = self._have
        return [part for part in self.parts if not have >> part.number & 1]

    def put(self, part: Part, data: Data) -> bool:
        """Write a part, unless `data` is not what it should be: then False.

        Raises
        ------
        OSError
            It cannot be written: the disk is full.
        """
        if len(data) != part.size or digest(data) != part.hash:
            return False
        view, offset = memoryview(data), part.offset
        while view:
            written = os.pwrite(self._fd, view, offset)
            view, offset = view[written:], offset + written
        with self._lock:
            self._have |= 1 << part.number
        return True

    def holds(self, start: int, stop: int) -> bool:
        """Whether the bytes [start, stop) are there, verified."""
        have = self._have
        return all(have >> p.number & 1 for p in self.parts if p.offset < stop and start < p.offset + p.size)

    def _resume(self) -> None:
        for part in self.parts:
            data = os.pread(self._fd, part.size, part.offset)
            if len(data) == part.size and digest(data) == part.hash:
                self._have |= 1 << part.number
                self.resumed_bytes += part.size


class FromStore:
    """The source of a cache that knows no other: the store, a few parts at a time."""

    def fill(self, filling: Filling, origin: PartReader) -> None:
        """See `PartSource.fill`."""
        missing = filling.missing()
        if len(missing) == 1:
            filling.put(missing[0], origin.read_part(missing[0]))
            return
        with futures.ThreadPoolExecutor(_TOGETHER, thread_name_prefix="dmlpipe-fill") as pool:
            # Reading and writing stay in one task, so that no more than `_TOGETHER` parts are in memory.
            tasks = [pool.submit(lambda part: filling.put(part, origin.read_part(part)), part) for part in missing]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
