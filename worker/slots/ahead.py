"""Large inputs of a lease's datums, fetched into the cache before their datum is laid out.

While a slot computes, two threads go through the datums that it has not reached, in order. Back-pressure is by bytes:
what was fetched and not yet reached stays below a limit (one file may pass it). What cannot be fetched is left to the
layout of its datum, which says so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence

from ...storage.digest import Digest
from ...storage.errors import DmlpipeError
from ...storage.objects.value import Value, decode_value
from ..job import Datum, Item
from .files import COPIED_MAX_BYTES, ContentStore, files_below

logger = logging.getLogger(__name__)

AHEAD_BYTES = 512 << 20
"""Fetched and not yet reached, of one slot."""
_THREADS = 2


class Ahead:
    """Fetches ahead for one lease. Close it.

    Parameters
    ----------
    max_bytes
        What may be fetched and not yet reached.
    first
        Of the datums to fetch for; those before it are laid out at once, and nothing would be gained.
    """

    def __init__(
        self, store: ContentStore, datums: Sequence[Datum], *, max_bytes: int = AHEAD_BYTES, first: int = 1
    ) -> None:
        self._store = store
        self._datums = datums
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._next = first
        self._reached = first - 1
        self._closed = False
        self._bytes: dict[int, int] = {}
        """Fetched or being fetched, by datum that was not reached."""
        self._waiting: set[int] = set()
        """Datums that wait for room: the first goes first."""
        self._threads: list[threading.Thread] = []
        if any(_may_be_large(item) for datum in datums[first:] for item in datum.items):
            for _ in range(_THREADS):
                thread = threading.Thread(target=self._run, name="dmlpipe-ahead", daemon=True)
                thread.start()
                self._threads.append(thread)

    def reached(self, index: int) -> None:
        """Datum `index`, and all before it, are being laid out."""
        if not self._threads:
            return
        with self._changed:
            self._reached = max(self._reached, index)
            for passed in [each for each in self._bytes if each <= self._reached]:
                del self._bytes[passed]
            self._changed.notify_all()

    def abandon(self) -> None:
        """Begin to fetch nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def close(self) -> None:
        """Fetch no more; returns when what is being fetched is there."""
        self.abandon()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (index := self._take()) is not None:
            try:
                for value in large_inputs(self._store, self._datums[index]):
                    if not self._may_fetch(index, value.size):
                        break
                    self._store.cache.get(value, self._store.objects, ahead=True)
            except DmlpipeError as err:
                logger.debug("an input could not be fetched ahead: %s", err)

    def _take(self) -> int | None:
        with self._changed:
            self._next = max(self._next, self._reached + 1)
            if self._closed or self._next >= len(self._datums):
                return None
            self._next += 1
            return self._next - 1

    def _may_fetch(self, index: int, size: int) -> bool:
        """Wait for room; False when the datum was reached meanwhile."""
        with self._changed:
            self._waiting.add(index)
            try:
                while not self._closed and index > self._reached:
                    room = not self._bytes or sum(self._bytes.values()) + size <= self._max_bytes
                    if room and index == min(self._waiting):
                        self._bytes[index] = self._bytes.get(index, 0) + size
                        return True
                    self._changed.wait()
                return False
            finally:
                self._waiting.discard(index)
                self._changed.notify_all()


def large_inputs(store: ContentStore, datum: Datum) -> Iterator[Value]:
    """Yield the inputs of a datum that go by the cache."""
    for item in datum.items:
        for member in item.members() if item.kind == "l" else [item]:
            if member.kind == "f":
                values = iter([decode_value(member.value)])
            elif member.kind == "d":
                tree = store.tree(Digest(member.value))
                values = (value for _, value in files_below(tree, member.path))
            else:
                continue
            yield from (value for value in values if value.size > COPIED_MAX_BYTES)


def _may_be_large(item: Item) -> bool:
    if item.kind == "f":
        return decode_value(item.value).size > COPIED_MAX_BYTES
    return item.kind in ("d", "l")
