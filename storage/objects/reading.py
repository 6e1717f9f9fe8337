"""Reading content through this machine's file cache.

What was fetched over a network once is read from the disk after that. Cached are whole blobs of up to 16 MiB; of larger
files only the parts that are asked for are fetched, and none is kept.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from .cache import FileCache
from .content import Content
from .value import Value, Whole

BATCH_BYTES = 64 << 20
"""Content that is in memory at once while many files are read."""


@dataclass(frozen=True, slots=True)
class Range:
    """The bytes [start, end) of a file, as slicing means them."""

    value: Value
    start: int | None = None
    end: int | None = None


class Reader:
    """Reads content of a store. Safe for use by many threads.

    Parameters
    ----------
    objects
        The store's content.
    cache
        Where fetched blobs are kept; None keeps none.
    """

    def __init__(self, objects: Content, cache: FileCache | None = None) -> None:
        self.objects = objects
        self._cache = cache

    def read(self, value: Value, start: int | None = None, end: int | None = None) -> bytes:
        """Return the content of `value`, or its bytes [start, end) as slicing would."""
        if self._cache is None or not isinstance(value, Whole):
            return self.objects.read(value, start, end)
        data = self._read_whole([value])[0]
        return data if start is None and end is None else data[start:end]

    def read_ranges(self, ranges: Sequence[Range]) -> Iterator[bytes]:
        """Yield ranges in order; what lies close together in the store is fetched together."""
        for batch in _batches(ranges):
            whole = {part.value: b"" for part in batch if isinstance(part.value, Whole)}
            whole = dict(zip(whole, self._read_whole(list(whole)), strict=True))
            for part in batch:
                if isinstance(part.value, Whole):
                    data = whole[part.value]
                    yield data if part.start is None and part.end is None else data[part.start : part.end]
                else:
                    yield self.objects.read(part.value, part.start, part.end)

    def open(self, value: Value) -> BinaryIO:
        """Return `value` as a seekable binary file."""
        return io.BytesIO(self.read(value)) if isinstance(value, Whole) else self.objects.open(value)

    def _read_whole(self, values: Sequence[Whole]) -> list[bytes]:
        if self._cache is None:
            return self.objects.read_many(values)
        found = {value: self._read_cached(self._cache, value) for value in values}
        missing = [value for value, data in found.items() if data is None]
        for value, data in zip(missing, self.objects.read_many(missing), strict=True):
            found[value] = data
            self._cache.put(value, data)
        return [data for data in (found[value] for value in values) if data is not None]

    @staticmethod
    def _read_cached(cache: FileCache, value: Whole) -> bytes | None:
        if not cache.is_unchanged(value):
            return None
        try:
            data = cache.path_of(value).read_bytes()
        except FileNotFoundError:
            return None  # trimmed meanwhile
        return data if len(data) == value.size else None


def _batches(ranges: Iterable[Range]) -> Iterator[list[Range]]:
    batch: list[Range] = []
    total = 0
    for part in ranges:
        size = part.value.size if isinstance(part.value, Whole) else 0
        if batch and total + size > BATCH_BYTES:
            yield batch
            batch, total = [], 0
        batch.append(part)
        total += size
    if batch:
        yield batch
