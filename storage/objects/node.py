"""Nodes: small immutable objects named by the hash of their content.

Tree nodes, commit and job bodies, pipeline specs, plan blocks and piece lists are nodes. At rest they are
zstd-compressed under ``nodes/<2 hex>/<62 hex>``; the name is that of the uncompressed bytes, and what is read is
checked against it. A node whose key a sweep names stands beside it, see `condemned.py`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from ..backend import Backend
from ..digest import Digest, digest, short
from ..errors import CorruptError, InvalidInputError, NotFoundError
from .compression import compress, decompress
from .condemned import Condemned, displaced, place_for

NODE_PREFIX = "nodes"
TREE_TARGET = 1024
"""Entries that a tree node aims at, unless the store says otherwise."""

_MIN_TREE_TARGET = 2  # with one entry in each node no level would be shorter than the one below
_CACHE_BYTES = 32 << 20
_DECODED_BYTES = 16 << 20

T = TypeVar("T")


class Nodes(Protocol):
    """Where trees read and write their nodes."""

    tree_target: int
    """Entries that a tree node aims at; fixed for a store, or equal trees would have different names."""

    def put_many(self, raws: Sequence[bytes]) -> list[Digest]:
        """Store nodes; return their names."""
        ...

    def get_many(self, names: Sequence[Digest]) -> list[bytes]:
        """Return nodes' bytes, in the order of `names`."""
        ...

    def load_many(self, names: Sequence[Digest], decode: Callable[[bytes], T]) -> list[T]:
        """Return decoded nodes, which may be shared: do not change them."""
        ...


def node_key(name: Digest) -> str:
    """Key of the object that holds a node."""
    text = name.hex()
    return f"{NODE_PREFIX}/{text[:2]}/{text[2:]}"


class _Lru(Generic[T]):
    """The values used last, up to a number and to a total size. Not locked."""

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._bytes = 0
        self._items: OrderedDict[Digest, tuple[T, int]] = OrderedDict()

    def get(self, name: Digest) -> T | None:
        item = self._items.get(name)
        if item is None:
            return None
        self._items.move_to_end(name)
        return item[0]

    def add(self, name: Digest, value: T, size_bytes: int) -> None:
        if name in self._items:
            return
        self._items[name] = (value, size_bytes)
        self._bytes += size_bytes
        while self._items and (self._bytes > self._max_bytes or len(self._items) > self._max_count):
            _, (_, freed) = self._items.popitem(last=False)
            self._bytes -= freed


class NodeStore:
    """Nodes of a store, with a cache of those used last. Safe for use by many threads.

    Parameters
    ----------
    backend
        Where they are.
    cache_nodes
        How many nodes are kept in memory at most.
    tree_target
        See `Nodes.tree_target`.
    """

    def __init__(self, backend: Backend, cache_nodes: int = 4096, *, tree_target: int = TREE_TARGET) -> None:
        if tree_target < _MIN_TREE_TARGET:
            raise InvalidInputError(
                f"a tree node cannot aim at {tree_target} entries: expected {_MIN_TREE_TARGET} or more"
            )
        self.backend = backend
        self.tree_target = tree_target
        self.reads = 0
        """Nodes fetched from the backend so far."""
        self.writes = 0
        """Nodes written to the backend so far."""
        self._lock = threading.Lock()
        self._raw: _Lru[bytes] = _Lru(cache_nodes, _CACHE_BYTES)
        self._decoded: _Lru[object] = _Lru(cache_nodes, _DECODED_BYTES)
        self.condemned = Condemned()
        """What sweeps have named, as this process knows it."""
        self._stored: dict[Digest, tuple[str, int]] = {}
        self._unsynced: dict[str, int] = {}

    def put(self, raw: bytes, *, renew: bool = False) -> Digest:
        """Store a node and return its name. Storing what is there already costs no write.

        With `renew` it is written even so, and counts as new to a collector: for what nothing published refers to.
        """
        if renew:
            name = digest(raw)
            with self._lock:
                self._stored.pop(name, None)
            self.backend.put(place_for(self.backend, self.condemned, node_key(name)), compress(raw))
        return self.put_many([raw])[0]

    def put_many(self, raws: Sequence[bytes]) -> list[Digest]:
        """Store nodes, concurrently on a remote backend; return their names in order."""
        names = [digest(raw) for raw in raws]
        version = self.condemned.begin()
        with self._lock:
            new = {name: raw for name, raw in zip(names, raws, strict=True) if not self._is_stored(name)}
        places = self._write(new) if new else {}
        with self._lock:
            self._stored.update((name, (key, version)) for name, key in places.items())
            # Those stored before too: the session that stored them may not have synced them, or never will. Only now:
            # a thread that publishes meanwhile must not sync what is not there yet.
            self._unsynced.update(self._stored[name] for name in names)
            for name, raw in new.items():
                self._raw.add(name, raw, len(raw))
        return names

    def get(self, name: Digest) -> bytes:
        """Return a node's bytes, checked.

        Raises
        ------
        NotFoundError
            There is no such node.
        CorruptError
            What is stored under the name is something else.
        """
        return self.get_many([name])[0]

    def get_many(self, names: Sequence[Digest]) -> list[bytes]:
        """`get` for each name, fetched together; results in the order of `names`."""
        with self._lock:
            known = {name: self._raw.get(name) for name in names}
        missing = [name for name, raw in known.items() if raw is None]
        if missing:
            fetched = [unpack_node(name, body) for name, body in zip(missing, self._fetch(missing), strict=True)]
            with self._lock:
                self.reads += len(missing)
                for name, raw in zip(missing, fetched, strict=True):
                    self._raw.add(name, raw, len(raw))
                    known[name] = raw
        return [raw for raw in (known[name] for name in names) if raw is not None]

    def load_many(self, names: Sequence[Digest], decode: Callable[[bytes], T]) -> list[T]:
        """Return decoded nodes; each name must always be used with the same `decode`."""
        with self._lock:
            known = {name: self._decoded.get(name) for name in names}
        missing = [name for name, node in known.items() if node is None]
        if missing:
            raws = self.get_many(missing)
            for name, raw in zip(missing, raws, strict=True):
                node = decode(raw)
                known[name] = node
                with self._lock:
                    self._decoded.add(name, node, len(raw))
        return [known[name] for name in names]  # type: ignore[misc]  # the caller's decode made them

    def take_written(self) -> list[str]:
        """Return the keys of the nodes put since the last call, written or found: what an entry needs on disk.

        A caller that then fails to sync them gives them back with `restore_written`.
        """
        with self._lock:
            keys = [key for key, version in self._unsynced.items() if not self.condemned.voided(key, version)]
            self._unsynced.clear()
        return keys

    def restore_written(self, keys: Iterable[str]) -> None:
        """Undo `take_written`."""
        with self._lock:
            self._unsynced.update((key, self.condemned.version) for key in keys)

    def place_of(self, name: Digest) -> str:
        """Key of a node that was put here, else the plain one."""
        with self._lock:
            return self._stored[name][0] if name in self._stored else node_key(name)

    def is_sound(self, name: Digest) -> bool:
        """Whether the node is there under a key that no open sweep names. A request or two."""
        key = node_key(name)
        return any(
            not self.condemned.doomed(found) and self._is_whole(name, found)
            for found in (key, *displaced(self.backend, key))
        )

    def _is_stored(self, name: Digest) -> bool:
        # Whether a sweep took it, or will, since it was seen.
        place = self._stored.get(name)
        return place is not None and not self.condemned.voided(*place)

    def _write(self, new: dict[Digest, bytes]) -> dict[Digest, str]:
        """Store nodes; return where they are."""
        places = {name: place_for(self.backend, self.condemned, node_key(name)) for name in new}
        items = [(places[name], compress(raw)) for name, raw in new.items()]
        made = self.backend.put_many_if_absent(items)
        with self._lock:
            self.writes += sum(made)
        if self.backend.properties.remote:
            return places
        for (key, body), name, was_made in zip(items, new, made, strict=True):
            # After a power cut a file that nothing published may be there and hold nothing.
            if not was_made and self.backend.size(key) != len(body) and not self._is_whole(name, key):
                self.backend.put(key, body)
        return places

    def _fetch(self, names: Sequence[Digest]) -> Sequence[bytes]:
        try:
            return self.backend.get_many([(node_key(name), None, None) for name in names])
        except NotFoundError:
            return [self._fetch_displaced(name) for name in names]

    def _fetch_displaced(self, name: Digest) -> bytes:
        key = node_key(name)
        try:
            return self.backend.get(key)
        except NotFoundError:
            for found in displaced(self.backend, key):
                try:
                    return self.backend.get(found)
                except NotFoundError:
                    continue
            raise

    def _is_whole(self, name: Digest, key: str) -> bool:
        try:
            unpack_node(name, self.backend.get(key))
        except (CorruptError, NotFoundError):
            return False
        return True


class OverlayNodes:
    """Nodes that stay in memory, above those of another store: for trees whose names alone are wanted.

    Parameters
    ----------
    below
        Where nodes are read that were not put here. Never written.
    """

    def __init__(self, below: Nodes) -> None:
        self._below = below
        self._own: dict[Digest, bytes] = {}
        self.tree_target = below.tree_target

    def put_many(self, raws: Sequence[bytes]) -> list[Digest]:
        """Keep nodes in memory; return their names."""
        names = [digest(raw) for raw in raws]
        self._own.update(zip(names, raws, strict=True))
        return names

    def own(self, name: Digest) -> bytes | None:
        """Return the bytes of a node that was put here; None if it was not."""
        return self._own.get(name)

    def get_many(self, names: Sequence[Digest]) -> list[bytes]:
        """Return nodes' bytes, in the order of `names`."""
        below = [name for name in names if name not in self._own]
        found = dict(zip(below, self._below.get_many(below), strict=True)) if below else {}
        return [self._own[name] if name in self._own else found[name] for name in names]

    def load_many(self, names: Sequence[Digest], decode: Callable[[bytes], T]) -> list[T]:
        """Return decoded nodes."""
        below = [name for name in names if name not in self._own]
        found = dict(zip(below, self._below.load_many(below, decode), strict=True)) if below else {}
        return [decode(self._own[name]) if name in self._own else found[name] for name in names]


def unpack_node(name: Digest, body: bytes) -> bytes:
    """Return the node that `body` holds at rest.

    Raises
    ------
    CorruptError
        It is not the one of that name.
    """
    raw = decompress(body, f"node {short(name)}")
    if digest(raw) != name:
        raise CorruptError(f"node {short(name)} is corrupt: its {len(raw)} bytes hash to {short(digest(raw))}")
    return raw
