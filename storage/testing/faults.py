"""Backends that count what they are asked, or stop where a crash would."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from ..backend import Backend, Properties, Request
from ..digest import Data

T = TypeVar("T")


class WrappedBackend(Backend):
    """Passes everything on to another backend, item by item; to be overridden."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner

    @property
    def url(self) -> str:
        """That of the other."""
        return self.inner.url

    @property
    def properties(self) -> Properties:
        """Those of the other."""
        return self.inner.properties

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.inner,))

    def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
        """See `Backend.put_if_absent`."""
        return self.inner.put_if_absent(key, data, durable=durable)

    def put(self, key: str, data: Data) -> None:
        """See `Backend.put`."""
        self.inner.put(key, data)

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """See `Backend.get`."""
        return self.inner.get(key, start, end)

    def size(self, key: str) -> int | None:
        """See `Backend.size`."""
        return self.inner.size(key)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """See `Backend.list`."""
        return self.inner.list(prefix)

    def list_written(self, prefix: str = "") -> Iterator[tuple[str, int, float | None]]:
        """See `Backend.list_written`."""
        return self.inner.list_written(prefix)

    def list_folders(self, prefix: str = "") -> Sequence[str]:
        """See `Backend.list_folders`."""
        return self.inner.list_folders(prefix)

    def delete_many(self, keys: Iterable[str]) -> None:
        """See `Backend.delete_many`."""
        self.inner.delete_many(keys)

    def sync(self, keys: Iterable[str]) -> None:
        """See `Backend.sync`."""
        self.inner.sync(keys)


class CountingBackend(WrappedBackend):
    """Counts requests by the name of the method; a batch counts once under its own name, and each of its parts.

    Examples
    --------
    >>> from dmlpipe.storage.backend import open_backend
    >>> backend = CountingBackend(open_backend("memory://counting-example"))
    >>> backend.put_if_absent("a", b"1")
    True
    >>> backend.counts["put_if_absent"]
    1
    """

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def _count(self, name: str) -> None:
        with self._lock:
            self.counts[name] += 1

    def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
        """Count, then pass on."""
        self._count("put_if_absent")
        return super().put_if_absent(key, data, durable=durable)

    def put_many_if_absent(self, items: Sequence[tuple[str, Data]]) -> Sequence[bool]:
        """Count, then pass on."""
        self._count("put_many_if_absent")
        return super().put_many_if_absent(items)

    def put(self, key: str, data: Data) -> None:
        """Count, then pass on."""
        self._count("put")
        super().put(key, data)

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """Count, then pass on."""
        self._count("get")
        return super().get(key, start, end)

    def get_many(self, requests: Sequence[Request]) -> Sequence[bytes]:
        """Count, then pass on."""
        self._count("get_many")
        return super().get_many(requests)

    def size(self, key: str) -> int | None:
        """Count, then pass on."""
        self._count("size")
        return super().size(key)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Count, then pass on."""
        self._count("list")
        return super().list(prefix)

    def sync(self, keys: Iterable[str]) -> None:
        """Count, then pass on."""
        self._count("sync")
        super().sync(keys)


class Stopped(BaseException):
    """The process would be dead here; no `except Exception` may go on."""


class StoppingBackend(WrappedBackend):
    """Dies at a chosen write, as kill -9 would: that one is made or not, none after it.

    Parameters
    ----------
    inner
        What holds the objects; open it again to look at what is left.
    writes
        How many writes succeed before the end.
    after
        The write at which it dies is made, and its caller never learns of it.
    """

    def __init__(self, inner: Backend, writes: int, *, after: bool = False) -> None:
        super().__init__(inner)
        self._left = writes
        self._after = after
        self.dead = False
        """Whether the end came."""
        self._lock = threading.Lock()

    def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
        """Pass on, or stop."""
        with self._lock:
            return self._step(lambda: self.inner.put_if_absent(key, data, durable=durable))

    def put(self, key: str, data: Data) -> None:
        """Pass on, or stop."""
        with self._lock:
            self._step(lambda: self.inner.put(key, data))

    def delete_many(self, keys: Iterable[str]) -> None:
        """Pass on key by key, or stop between two."""
        for key in keys:
            with self._lock:
                self._step(lambda key=key: self.inner.delete_many([key]))  # type: ignore[misc]

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """Pass on, unless stopped."""
        if self.dead:
            raise Stopped
        return super().get(key, start, end)

    def _step(self, write: Callable[[], T]) -> T:
        if self.dead:
            raise Stopped
        if self._left == 0:
            self.dead = True
            if self._after:
                write()
            raise Stopped
        self._left -= 1
        return write()
