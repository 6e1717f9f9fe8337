"""Where packed blobs are: lookups in all index objects that the ledger names.

Indexes are loaded when first needed, newest first, and kept; many small ones are merged in memory, so that a lookup
searches a handful however many commits there were. Those of a remote store are kept on local disk by name.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, count
from pathlib import Path

from ..backend import Backend
from ..digest import Digest
from ..errors import CorruptError, NotFoundError
from ..leftovers import TEMPORARY, temporary_name
from ..state import State
from .index import BlobIndex, index_key
from .pack import Location

NO_DIGEST = Digest(bytes(32))

_UNFOLD_FOR_ONE_OF = 8
_UNFOLD_MAX = 2_000_000

_MERGE_FROM = 16
_MERGE_COUNT = 12
_LOAD_TOGETHER = 32


class _Table:
    """Finds blobs of several indexes, the first of which counts, without a bisection."""

    def __init__(self, indexes: Sequence[BlobIndex]) -> None:
        self._indexes = tuple(indexes)
        self._starts = list(accumulate(map(len, indexes), initial=0))
        self._numbers: dict[bytes, int] = {}
        for index, start in reversed(list(zip(indexes, self._starts, strict=False))):
            self._numbers.update(zip(index.names(), count(start), strict=False))

    def find(self, name: Digest) -> Location | None:
        number = self._numbers.get(name)
        if number is None:
            return None
        which = bisect_right(self._starts, number) - 1
        return self._indexes[which].at(number - self._starts[which])


class Locator:
    """Finds packed blobs. Safe for use by many threads.

    Parameters
    ----------
    backend
        Where the index objects are.
    state
        Returns the state as it is known.
    refresh
        Catches up with the ledger and returns the state.
    folder
        Local folder for the index objects of a remote store; None keeps none.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        state: Callable[[], State],
        refresh: Callable[[], State],
        folder: Path | None = None,
    ) -> None:
        self._backend = backend
        self._state = state
        self._refresh = refresh
        self._folder = folder
        self._lock = threading.Lock()
        self._indexes: list[BlobIndex] = []
        self._loaded: set[str] = set()
        self._n = -1
        self._table: _Table | None = None
        self._entries = 0
        """Of all indexes."""
        self._asked = 0
        """How often one blob was looked up."""

    def known(self, name: Digest) -> Location | None:
        """Return where a blob is, as far as the state known here says."""
        return self._search(name, self._state())

    def find_many(self, names: Sequence[Digest], asked: int) -> list[Location | None]:
        """Return where blobs are, as far as the state known here says.

        Parameters
        ----------
        names
            Their hashes.
        asked
            How many will be asked for in all: if they are a good part of what there is, the indexes are unfolded once.
        """
        state = self._state()
        if not names:
            return []
        self._search(names[0], state)
        with self._lock:
            self._unfold_for(asked)
            table = self._table
        if table is not None:
            return [table.find(name) for name in names]
        return [self._search(name, state) for name in names]

    def names(self, at_most: int) -> frozenset[bytes] | None:
        """Return the hashes of all packed blobs, as far as the state known here says; None if they are more."""
        self._search(NO_DIGEST, self._state())
        with self._lock:
            if sum(map(len, self._indexes)) > at_most:
                return None
            return frozenset(name for index in self._indexes for name in index.names())

    def find(self, name: Digest) -> Location | None:
        """Return where a blob is; catches up with the ledger before it answers None."""
        state = self._state()
        found = self._search(name, state)
        if found is None:
            newer = self._refresh()
            if newer.n != state.n:
                found = self._search(name, newer)
        return found

    def forget(self) -> None:
        """Read the indexes anew when next asked: a sweep took packs, and what is left stands in other indexes."""
        with self._lock:
            self._indexes = []
            self._loaded = set()
            self._n = -1
            self._table = None

    def _search(self, name: Digest, state: State) -> Location | None:
        while True:
            try:
                return self._search_in(name, state)
            except NotFoundError:
                # An index that a sweep replaced since.
                newer = self._refresh()
                if newer.n == state.n:
                    raise
                state = newer

    def _search_in(self, name: Digest, state: State) -> Location | None:
        with self._lock:
            if state.n > self._n:
                self._load(state)
            self._asked += 1
            self._unfold_for(self._asked)
            if self._table is not None:
                return self._table.find(name)
            for index in self._indexes:
                found = index.find(name)
                if found is not None:
                    return found
        return None

    def _unfold_for(self, asked: int) -> None:
        """Make a table if so many lookups are a good part of what there is."""
        if self._table is None and self._entries <= min(asked * _UNFOLD_FOR_ONE_OF, _UNFOLD_MAX):
            self._table = _Table(self._indexes)

    def _load(self, state: State) -> None:
        self._table = None
        keys = []
        for key in state.indexes():
            if key in self._loaded:
                break  # newest first: what follows was loaded before
            keys.append(key)
        for first in range(0, len(keys), _LOAD_TOGETHER):
            batch = keys[first : first + _LOAD_TOGETHER]
            for key, body in zip(batch, self._read(batch), strict=True):
                self._indexes.append(BlobIndex(body, key))
            self._merge()
        self._entries = sum(map(len, self._indexes))
        self._loaded.update(keys)
        self._n = state.n

    def _merge(self) -> None:
        if len(self._indexes) <= _MERGE_FROM:
            return
        # The smallest go together: each record is copied once per factor of _MERGE_COUNT that its index grows by.
        while len(self._indexes) > _MERGE_FROM // 2:
            self._indexes.sort(key=len)
            part, rest = self._indexes[:_MERGE_COUNT], self._indexes[_MERGE_COUNT:]
            body = BlobIndex.build(entry for index in part for entry in index)
            self._indexes = [*rest, BlobIndex(body, "merged index")]

    def _read(self, keys: Sequence[str]) -> Sequence[bytes]:
        if self._folder is None:
            bodies = self._backend.get_many([(key, None, None) for key in keys])
        else:
            kept = {key: self._read_kept(key) for key in keys}
            missing = [key for key, body in kept.items() if body is None]
            fetched = self._backend.get_many([(key, None, None) for key in missing]) if missing else []
            for key, body in zip(missing, fetched, strict=True):
                kept[key] = body
                self._keep(key, body)
            bodies = [body for body in kept.values() if body is not None]
        for key, body in zip(keys, bodies, strict=True):
            if index_key(body) != key:
                raise CorruptError(f"{key} is corrupt: its bytes hash to {index_key(body)}")
        return bodies

    def _read_kept(self, key: str) -> bytes | None:
        assert self._folder is not None
        try:
            body = (self._folder / key.rpartition("/")[2]).read_bytes()
        except FileNotFoundError:
            return None
        return body if index_key(body) == key else None

    def _keep(self, key: str, body: bytes) -> None:
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / temporary_name(TEMPORARY)
        temporary.write_bytes(body)
        os.replace(temporary, self._folder / key.rpartition("/")[2])
