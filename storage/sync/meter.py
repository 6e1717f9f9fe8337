"""A backend that counts what it is asked and what travels through it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

from ..backend import Backend, Properties, Request
from ..digest import Data

_LISTED_PER_REQUEST = 1000


class Meter(Backend):
    """Passes everything on to another backend and counts it. Safe for use by many threads.

    Parameters
    ----------
    inner
        What does the work.
    """

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self.requests = 0
        """Objects asked for, looked at or written; a listing counts one per thousand objects."""
        self.read_bytes = 0
        self.written_bytes = 0

    def _count(self, requests: int, *, read: int = 0, written: int = 0) -> None:
        with self._lock:
            self.requests += requests
            self.read_bytes += read
            self.written_bytes += written

    @property
    def url(self) -> str:
        """That of the other."""
        return self._inner.url

    @property
    def properties(self) -> Properties:
        """Those of the other."""
        return self._inner.properties

    def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
        """Count, then pass on."""
        made = self._inner.put_if_absent(key, data, durable=durable)
        self._count(1, written=len(data) if made else 0)
        return made

    def put_many_if_absent(self, items: Sequence[tuple[str, Data]]) -> Sequence[bool]:
        """Count, then pass on."""
        made = self._inner.put_many_if_absent(items)
        written = sum(len(data) for (_, data), was_made in zip(items, made, strict=True) if was_made)
        self._count(len(items), written=written)
        return made

    def put(self, key: str, data: Data) -> None:
        """Count, then pass on."""
        self._inner.put(key, data)
        self._count(1, written=len(data))

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """Count, then pass on."""
        self._count(1)
        data = self._inner.get(key, start, end)
        self._count(0, read=len(data))
        return data

    def get_many(self, requests: Sequence[Request]) -> Sequence[bytes]:
        """Count, then pass on."""
        self._count(len(requests))
        found = self._inner.get_many(requests)
        self._count(0, read=sum(map(len, found)))
        return found

    def size(self, key: str) -> int | None:
        """Count, then pass on."""
        self._count(1)
        return self._inner.size(key)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Count, then pass on."""
        for number, found in enumerate(self._inner.list(prefix)):
            if number and number % _LISTED_PER_REQUEST == 0:
                self._count(1)
            yield found
        self._count(1)

    def list_folders(self, prefix: str = "") -> Sequence[str]:
        """Count, then pass on."""
        self._count(1)
        return self._inner.list_folders(prefix)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Count, then pass on."""
        self._count(1)
        self._inner.delete_many(keys)

    def sync(self, keys: Iterable[str]) -> None:
        """Pass on."""
        self._inner.sync(keys)
