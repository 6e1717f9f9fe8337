"""A store as it is, with everything that is written kept in this process: for trying something out.

Nothing below is ever changed. A store opened on a layer sees all that is below and its own writes, and when the layer
is gone, so are they.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..digest import Data
from ..errors import ReadOnlyError
from .base import Backend, Properties, Request
from .memory import MemoryBackend


class LayeredBackend(Backend):
    """Reads what is below, writes to memory.

    Parameters
    ----------
    below
        Is read only.
    name
        Of the memory above; default: a new one.
    """

    def __init__(self, below: Backend, name: str | None = None) -> None:
        self._below = below
        self._name = name or f"layer-{uuid.uuid4().hex}"
        self._above = MemoryBackend(self._name)

    @property
    def url(self) -> str:
        """Where what is below is."""
        return self._below.url

    @property
    def properties(self) -> Properties:
        """Not shared: another process sees nothing of the layer."""
        return Properties(remote=self._below.properties.remote, shared=False, hard_links=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return (LayeredBackend, (self._below, self._name))

    def __repr__(self) -> str:
        return f"LayeredBackend({self._below!r})"

    def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
        """See `Backend.put_if_absent`."""
        return self._below.size(key) is None and self._above.put_if_absent(key, data)

    def put(self, key: str, data: Data) -> None:
        """See `Backend.put`."""
        self._above.put(key, data)

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """See `Backend.get`."""
        return self._of(key).get(key, start, end)

    def get_many(self, requests: Sequence[Request]) -> Sequence[bytes]:
        """See `Backend.get_many`."""
        below = [request for request in requests if self._of(request[0]) is self._below]
        found = iter(self._below.get_many(below))
        return [
            next(found) if self._of(key) is self._below else self._above.get(key, start, end)
            for key, start, end in requests
        ]

    def size(self, key: str) -> int | None:
        """See `Backend.size`."""
        return self._of(key).size(key)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """See `Backend.list`."""
        last = None
        # What stands above comes first of two equal keys: heapq.merge is stable.
        for key, size in heapq.merge(self._above.list(prefix), self._below.list(prefix), key=lambda item: item[0]):
            if key != last:
                yield key, size
            last = key

    def list_folders(self, prefix: str = "") -> Sequence[str]:
        """See `Backend.list_folders`."""
        return sorted({*self._above.list_folders(prefix), *self._below.list_folders(prefix)})

    def delete_many(self, keys: Iterable[str]) -> None:
        """Delete objects of the layer.

        Raises
        ------
        ReadOnlyError
            One stands below.
        """
        for key in keys:
            if self._below.size(key) is not None:
                raise ReadOnlyError(f"{key} stands below the layer")
            self._above.delete_many([key])

    def sync(self, keys: Iterable[str]) -> None:
        """See `Backend.sync`; nothing here is durable."""
        for key in keys:
            if self._above.size(key) is None:
                self._below.sync([key])

    def _of(self, key: str) -> Backend:
        return self._above if self._above.size(key) is not None else self._below
