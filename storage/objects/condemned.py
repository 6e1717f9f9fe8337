"""What sweeps have named, as one process has learned it: whether something that was seen may still be relied on.

Rules
-----
1. A sweep is an entry of the ledger that names objects. From then on its collector deletes them, at any time until
   the entry that closes the sweep.
2. Whoever relies on an object (wrote it, or found it) notes this registry's `version` *before* looking. A sweep that
   is learned later and names the object voids that: `voided` says so, and the object is stored again.
3. A key that an open sweep names is not written or relied on at all. Its content goes under the same key with a
   suffix that is never used twice (`displaced`); readers look there when the plain key has nothing.

A process learns of all sweeps before entry `n` before it can append entry `n`. So by the time an entry is visible,
nothing that it refers to is named by a sweep before it, and whoever sweeps later has seen the entry.
"""

from __future__ import annotations

import threading

import msgspec

from ..backend import Backend
from ..digest import Digest
from ..errors import CorruptError
from ..tokens import token_hex

LIST_VERSION = 1


class SweepList(msgspec.Struct, frozen=True, kw_only=True):
    """The node that a sweep names."""

    v: int = LIST_VERSION
    nonce: bytes
    """Random: no two lists are the same node."""
    keys: tuple[str, ...]
    """Objects that are deleted."""
    blobs: tuple[bytes, ...] = ()
    """Hashes of packed blobs of which no copy is left."""


def encode_list(found: SweepList) -> bytes:
    """Return the node of a list."""
    return msgspec.msgpack.encode(found)


def decode_list(raw: bytes) -> SweepList:
    """Parse the node of a list.

    Raises
    ------
    CorruptError
        It is none.
    """
    try:
        return msgspec.msgpack.decode(raw, type=SweepList)
    except msgspec.DecodeError as error:
        raise CorruptError(f"the list of a sweep is unreadable: {error}") from error


class Condemned:
    """Names of sweeps. Only grows; safe for use by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, frozenset[str] | None] = {}
        self._keys: dict[str, int] = {}
        self._blobs: dict[bytes, int] = {}
        self._all = 0
        self.version = 0
        """Sweeps learned so far."""
        self.used = False
        """Whether somebody began to rely on something."""

    def begin(self) -> int:
        """Return the version to note before looking at what will be relied on."""
        self.used = True
        return self.version

    def learn(self, n: int, found: SweepList | None, *, is_open: bool) -> None:
        """Take the sweep of entry `n`; None: nobody knows any more what it named, so it counts as naming all."""
        with self._lock:
            version = self.version + 1
            if found is None:
                self._all = version
            else:
                self._keys.update(dict.fromkeys(found.keys, version))
                self._blobs.update(dict.fromkeys(found.blobs, version))
            if is_open:
                self._open[n] = frozenset(found.keys) if found is not None else None
            # Last: who reads the version first and the rest afterwards errs to the safe side.
            self.version = version

    def close(self, n: int) -> None:
        """The deletions of the sweep of entry `n` are over."""
        with self._lock:
            self._open.pop(n, None)

    def open_sweeps(self) -> frozenset[int]:
        """Entries of the sweeps that are not closed."""
        with self._lock:
            return frozenset(self._open)

    def doomed(self, key: str) -> bool:
        """Whether an open sweep names `key`: it may vanish at any time."""
        with self._lock:
            return any(keys is None or key in keys for keys in self._open.values())

    def voided(self, key: str, version: int) -> bool:
        """Whether a sweep that was learned after `version` names `key`."""
        return self._all > version or self._keys.get(key, 0) > version

    def voided_blob(self, name: Digest, version: int) -> bool:
        """Whether a sweep that was learned after `version` took the last packed copy of a blob."""
        return self._all > version or self._blobs.get(name, 0) > version

    def is_dead(self, pack: str) -> bool:
        """Whether a sweep names a pack, whose name is never used again."""
        return pack in self._keys


def displaced(backend: Backend, key: str) -> list[str]:
    """Return the keys beside `key` that hold the same content. One listing."""
    return [found for found, _ in backend.list(f"{key}.")]


def place_for(backend: Backend, condemned: Condemned, key: str) -> str:
    """Return the key under which the content of `key` may be stored now."""
    if not condemned.doomed(key):
        return key
    for found in displaced(backend, key):
        if not condemned.doomed(found):
            return found
    return f"{key}.{token_hex(8)}"


def found_place(backend: Backend, condemned: Condemned, key: str) -> str:
    """Return the key under which the content of `key` is, as far as can be told; `key` if it is nowhere."""
    if not condemned.doomed(key) and backend.size(key) is not None:
        return key
    return next((found for found in displaced(backend, key) if not condemned.doomed(found)), key)


def plain_key(key: str) -> str:
    """Return a key without the suffix of a displaced object."""
    folder, slash, name = key.rpartition("/")
    return folder + slash + name.partition(".")[0]
