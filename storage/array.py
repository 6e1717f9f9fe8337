"""Zarr v3 arrays in commits: a Zarr store over a commit's tree, or over a session that makes the next commit.

A key of the Zarr store is a path below a folder of the commit; each chunk is a blob like any other file. zarr is
imported here and nowhere else in the layer, so that only those who open arrays pay for it.

The methods ending in ``_sync`` are the store; zarr >= 3.4 calls them directly on media without round trips, older
releases go through the asynchronous ones.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.buffer.core import default_buffer_prototype

from .backend import Backend
from .digest import Data, Digest
from .errors import InvalidInputError
from .objects.index import BlobIndex
from .objects.node import NodeStore
from .objects.object_store import Objects, ObjectWriter
from .objects.value import PACK_BELOW_BYTES, Value, Whole, decode_value
from .paths import join_path, normalize_folder
from .trees.prolly import Tree

T = TypeVar("T")

_RANGE_CACHE_BYTES = 64 << 20
_IN_PLACE_BYTES = 256 << 10
"""Up to this size a local read costs less than handing it to a thread."""


class Editor(Protocol):
    """What a writable array needs of a session."""

    @property
    def writer(self) -> ObjectWriter:
        """Stores content."""
        ...

    def value(self, path: str) -> Value | None:
        """Return what stands at a path, edits included, or None."""
        ...

    def put_value(self, path: str, value: Value) -> None:
        """Set a file to content that is in the store."""
        ...

    def delete(self, path: str, *, missing_ok: bool = False) -> None:
        """Delete a file, or a folder with all that is in it."""
        ...

    def entries(self, prefix: bytes = b"") -> Iterator[tuple[bytes, Value]]:
        """Yield (tree path, value) of what begins with `prefix`, sorted, edits included."""
        ...


class _TreeFiles:
    """Files of a commit."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _TreeFiles) and self.tree == other.tree

    def __hash__(self) -> int:
        return hash(self.tree)

    def value(self, path: bytes) -> Value | None:
        raw = self.tree.get(path)
        return None if raw is None else decode_value(raw)

    def entries(self, prefix: bytes) -> Iterator[tuple[bytes, Value]]:
        return ((path, decode_value(raw)) for path, raw in self.tree.prefix(prefix))

    def names(self, folder: bytes) -> Iterator[bytes]:
        return (name for name, _, _ in self.tree.list_dir(folder))


class _SessionFiles:
    """Files of a commit in the making."""

    def __init__(self, session: Editor) -> None:
        self.session = session

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SessionFiles) and self.session is other.session

    def __hash__(self) -> int:
        return id(self.session)

    def value(self, path: bytes) -> Value | None:
        return self.session.value(path.decode())

    def entries(self, prefix: bytes) -> Iterator[tuple[bytes, Value]]:
        return self.session.entries(prefix)

    def names(self, folder: bytes) -> Iterator[bytes]:
        below = folder + b"/" if folder else b""
        paths = (path[len(below) :] for path, _ in self.session.entries(below))
        # Sorted paths keep one folder's files together.
        return (name for name, _ in itertools.groupby(path.partition(b"/")[0] for path in paths))


class ArrayStore(Store):
    """A folder of a commit, or of a session, as a Zarr store. Make one with `of_tree` or `of_session`.

    Parameters
    ----------
    objects
        Where content is.
    files
        A commit's files or a session's.
    folder
        Tree path of the folder; empty: the root.
    read_only
        Refuse writes. Always so over a commit.

    Notes
    -----
    Pickles: one over a commit reaches the same content from any process that reaches the store's medium (the copy
    carries the places of its packed chunks); one over a session only within its process, since nobody else may edit it.
    """

    def __init__(
        self, objects: Objects, files: _TreeFiles | _SessionFiles, folder: bytes = b"", *, read_only: bool = False
    ) -> None:
        super().__init__(read_only=read_only or isinstance(files, _TreeFiles))
        self._objects = objects
        self._files = files
        self._folder = folder
        self._lock = threading.Lock()
        self._remote = objects.backend.properties.remote
        self._supports_sync_io = not self._remote
        self._whole: OrderedDict[bytes, bytes] = OrderedDict()
        self._whole_bytes = 0
        self._pickled: tuple[Any, ...] | None = None

    @classmethod
    def of_tree(cls, objects: Objects, tree: Tree, folder: bytes | str = b"") -> ArrayStore:
        """Return the folder `folder` of a commit's tree as a store, read-only."""
        return cls(objects, _TreeFiles(tree), normalize_folder(folder))

    @classmethod
    def of_session(
        cls, objects: Objects, session: Editor, folder: bytes | str = b"", *, read_only: bool = False
    ) -> ArrayStore:
        """Return the folder `folder` of a session as a store; what is written is published by the session's commit."""
        return cls(objects, _SessionFiles(session), normalize_folder(folder), read_only=read_only)

    def with_read_only(self, read_only: bool = False) -> ArrayStore:
        """Return a store over the same files with another setting.

        Raises
        ------
        InvalidInputError
            Asked to write to a commit.
        """
        if not read_only and isinstance(self._files, _TreeFiles):
            raise InvalidInputError("a commit cannot be written to: open a session and write there")
        return ArrayStore(self._objects, self._files, self._folder, read_only=read_only)

    def __eq__(self, value: object) -> bool:
        return (
            isinstance(value, ArrayStore)
            and self._files == value._files
            and self._folder == value._folder
            and self._objects.backend.url == value._objects.backend.url
        )

    def __hash__(self) -> int:
        return hash((self._files, self._folder))

    def __repr__(self) -> str:
        kind = "commit" if isinstance(self._files, _TreeFiles) else "session"
        return f"ArrayStore({kind} in {self._objects.backend.url}, /{self._folder.decode()})"

    __str__ = __repr__

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self._files, _SessionFiles):
            _views[id(self)] = self
            return (_reopen_session, (self._objects.backend.url, id(self), self.read_only))
        if self._pickled is None:
            index = BlobIndex.build(self._packed(self._files.entries(join_path(self._folder, b""))))
            nodes = self._files.tree.nodes
            parts = (self._objects.backend, nodes.tree_target, self._files.tree.root, index, self._folder)
            self._pickled = (_reopen_tree, parts)
        return self._pickled

    def _packed(self, entries: Iterable[tuple[bytes, Value]]) -> Iterator[tuple[Digest, Any]]:
        for _, value in entries:
            if isinstance(value, Whole):
                find = self._objects.locate if value.size < PACK_BELOW_BYTES else self._objects.known
                at = find(Digest(value.hash))
                if at is not None:
                    yield Digest(value.hash), at

    @property
    def supports_writes(self) -> bool:
        """Over a session."""
        return isinstance(self._files, _SessionFiles)

    @property
    def supports_deletes(self) -> bool:
        """Over a session."""
        return self.supports_writes

    @property
    def supports_listing(self) -> bool:
        """Always."""
        return True

    # --- the store ---

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the value of `key`, or a range of it, or None if there is none."""
        if not (byte_range is None or isinstance(byte_range, (RangeByteRequest, OffsetByteRequest, SuffixByteRequest))):
            raise ValueError(f"Unexpected byte_range, got {byte_range}.")
        value = self._files.value(self._path(key))
        if value is None:
            return None
        data = self._read(value, byte_range)
        return (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Set the value of `key`."""
        session = self._editable()
        if not isinstance(value, Buffer):
            raise TypeError(
                f"ArrayStore.set(): `value` must be a Buffer instance. Got an instance of {type(value)} instead."
            )
        small = len(value) < PACK_BELOW_BYTES
        # Large values are not copied once more.
        data: Data = value.to_bytes() if small else value.as_numpy_array().data.cast("B")
        session.put_value(self._path(key).decode(), session.writer.put(data))

    def delete_sync(self, key: str) -> None:
        """Remove `key`; it need not exist."""
        session = self._editable()
        path = self._path(key).decode()
        if session.value(path) is not None:
            session.delete(path, missing_ok=True)

    def _read(self, value: Value, byte_range: ByteRequest | None) -> bytes:
        match byte_range:
            case None:
                return self._objects.read(value)
            case RangeByteRequest(start, end):
                pass
            case OffsetByteRequest(start):
                end = value.size
            case SuffixByteRequest(suffix):
                start, end = max(0, value.size - suffix), value.size
        if not isinstance(value, Whole):
            return self._objects.read(value, start, end)
        return self._whole_blob(value)[start:end]

    def _whole_blob(self, value: Whole) -> bytes:
        """A blob of which ranges are read (a shard): fetched and verified once, kept for the next range."""
        with self._lock:
            data = self._whole.get(value.hash)
            if data is not None:
                self._whole.move_to_end(value.hash)
                return data
        data = self._objects.read(value)
        with self._lock:
            if value.hash not in self._whole:
                self._whole[value.hash] = data
                self._whole_bytes += len(data)
            while self._whole_bytes > _RANGE_CACHE_BYTES and len(self._whole) > 1:
                _, dropped = self._whole.popitem(last=False)
                self._whole_bytes -= len(dropped)
        return data

    def _editable(self) -> Editor:
        self._check_writable()
        assert isinstance(self._files, _SessionFiles)  # those over commits are read-only
        return self._files.session

    def _path(self, key: str) -> bytes:
        return join_path(self._folder, key.encode())

    # --- what zarr calls ---

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """See `zarr.abc.store.Store.get`."""
        if not self._remote:
            value = self._files.value(self._path(key))
            if value is None or value.size <= _IN_PLACE_BYTES:
                return self.get_sync(key, prototype=prototype, byte_range=byte_range)
        return await asyncio.to_thread(self.get_sync, key, prototype=prototype, byte_range=byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """See `zarr.abc.store.Store.get_partial_values`."""
        return await asyncio.gather(*(self.get(key, prototype, byte_range) for key, byte_range in key_ranges))

    async def exists(self, key: str) -> bool:
        """See `zarr.abc.store.Store.exists`."""
        return await self._call(lambda: self._files.value(self._path(key)) is not None)

    async def getsize(self, key: str) -> int:
        """Return the size of a value in bytes, without reading it."""
        value = await self._call(lambda: self._files.value(self._path(key)))
        if value is None:
            raise FileNotFoundError(key)
        return value.size

    async def set(self, key: str, value: Buffer) -> None:
        """See `zarr.abc.store.Store.set`."""
        self._check_writable()
        if isinstance(value, Buffer) and len(value) > _IN_PLACE_BYTES:
            await asyncio.to_thread(self.set_sync, key, value)
        else:
            await self._call(lambda: self.set_sync(key, value))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Set `key` unless it has a value; atomic among the users of this store object."""
        self._check_writable()

        def set_if_absent() -> None:
            with self._lock:
                if self._files.value(self._path(key)) is None:
                    self.set_sync(key, value)

        await self._call(set_if_absent)

    async def delete(self, key: str) -> None:
        """See `zarr.abc.store.Store.delete`."""
        self._check_writable()
        await self._call(lambda: self.delete_sync(key))

    async def delete_dir(self, prefix: str) -> None:
        """Remove all keys below the folder `prefix`, in one edit."""
        session = self._editable()
        path = join_path(self._folder, prefix.strip("/").encode()).rstrip(b"/").decode()
        await self._call(lambda: session.delete(path, missing_ok=True))

    def list(self) -> AsyncIterator[str]:
        """See `zarr.abc.store.Store.list`."""
        return self.list_prefix("")

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """See `zarr.abc.store.Store.list_prefix`."""
        skip = len(self._path(""))
        for path, _ in await self._call(lambda: list(self._files.entries(self._path(prefix)))):
            yield path[skip:].decode()

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """See `zarr.abc.store.Store.list_dir`."""
        folder = self._path(prefix).strip(b"/")
        for name in await self._call(lambda: list(self._files.names(folder))):
            yield name.decode()

    async def _call(self, call: Callable[[], T]) -> T:
        return await asyncio.to_thread(call) if self._remote else call()


_views: weakref.WeakValueDictionary[int, ArrayStore] = weakref.WeakValueDictionary()
"""Views of sessions that were pickled, for their copies in this process."""


def _reopen_session(url: str, token: int, read_only: bool) -> ArrayStore:
    view = _views.get(token)
    if view is None:
        raise InvalidInputError(
            f"this array is part of a session on {url} in another process",
            hint="commit first and read the commit, or write the array in the process that holds the session",
        )
    return view.with_read_only(read_only)


def _reopen_tree(backend: Backend, tree_target: int, root: Digest, index: bytes, folder: bytes) -> ArrayStore:
    nodes = NodeStore(backend, tree_target=tree_target)
    objects = Objects(backend, nodes, locate=BlobIndex(index).find)
    return ArrayStore(objects, _TreeFiles(Tree(nodes, root)), folder)
