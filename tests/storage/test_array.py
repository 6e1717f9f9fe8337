from __future__ import annotations

import asyncio
import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.core.buffer import Buffer, cpu
from zarr.core.buffer.core import default_buffer_prototype
from zarr.testing.store import StoreTests

from dmlpipe.storage.array import ArrayStore
from dmlpipe.storage.backend import Backend, open_backend
from dmlpipe.storage.errors import InvalidInputError
from dmlpipe.storage.objects.index import BlobIndex
from dmlpipe.storage.objects.node import NodeStore
from dmlpipe.storage.objects.object_store import Objects, ObjectWriter
from dmlpipe.storage.objects.value import Value, Whole, decode_value, encode_value
from dmlpipe.storage.trees.edits import Edits
from dmlpipe.storage.trees.prolly import Tree, build
from dmlpipe.storage.trees.tree_node import EMPTY

_numbers = itertools.count()


class EditorOnTree:
    """The smallest session: edits above a tree, without ledger or rules for names."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._edits = Edits(Tree(objects.nodes, EMPTY))
        self._writer = objects.writer()

    @property
    def writer(self) -> ObjectWriter:
        return self._writer

    def value(self, path: str) -> Value | None:
        raw = self._edits.get(path.encode())
        return None if raw is None else decode_value(raw)

    def put_value(self, path: str, value: Value) -> None:
        self._edits.put(path.encode(), encode_value(value))

    def delete(self, path: str, *, missing_ok: bool = False) -> None:
        assert self._edits.delete(path.encode()) or missing_ok

    def entries(self, prefix: bytes = b"") -> Any:
        return ((path, decode_value(raw)) for path, raw in self._edits.entries(prefix))

    def finish(self) -> tuple[Tree, BlobIndex | None]:
        """Store what was put; return the tree and the index over its packs."""
        written = self._writer.flush()
        index = BlobIndex(self._objects.backend.get(written.index)) if written.index else None
        return build(self._objects.nodes, self._edits.entries()), index


def new_objects(backend: Backend | None = None, locate: Any = None) -> Objects:
    backend = backend or open_backend(f"memory://array-{next(_numbers)}")
    return Objects(backend, NodeStore(backend, tree_target=16), locate=locate)


class TestSessionStore(StoreTests[ArrayStore, cpu.Buffer]):
    """zarr's own suite, over a session."""

    store_cls = ArrayStore
    buffer_cls = cpu.Buffer

    @pytest.fixture
    def store_kwargs(self) -> dict[str, Any]:
        objects = new_objects()
        session = EditorOnTree(objects)
        return {"objects": objects, "files": ArrayStore.of_session(objects, session)._files, "folder": b"run/7"}

    async def set(self, store: ArrayStore, key: str, value: Buffer) -> None:
        session = store._files.session  # type: ignore[union-attr]  # it is over a session
        session.put_value(f"run/7/{key}", session.writer.put(value.to_bytes()))

    async def get(self, store: ArrayStore, key: str) -> Buffer:
        value = store._files.value(f"run/7/{key}".encode())
        assert value is not None
        return self.buffer_cls.from_bytes(store._objects.read(value))

    def test_store_repr(self, store: ArrayStore) -> None:
        assert repr(store).startswith("ArrayStore(session in memory://")

    def test_store_supports_writes(self, store: ArrayStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: ArrayStore) -> None:
        assert store.supports_listing


def write_array(backend: Backend | None = None, **kwargs: Any) -> tuple[np.ndarray[Any, Any], Objects, Tree]:
    """Write a small array through a session; return it with the tree that holds it at ``maps/ndvi``."""
    objects = new_objects(backend)
    session = EditorOnTree(objects)
    data = np.arange(6000, dtype="f4").reshape(60, 100)
    store = ArrayStore.of_session(objects, session, "/maps")
    array = zarr.create_array(store, name="ndvi", shape=data.shape, chunks=(30, 40), dtype="f4", **kwargs)
    array[:] = data
    tree, index = session.finish()
    return data, new_objects(objects.backend, index.find if index else None), tree


def test_an_array_written_in_a_session_reads_back_from_its_tree() -> None:
    data, objects, tree = write_array()
    array = zarr.open_array(ArrayStore.of_tree(objects, tree, "/maps/ndvi"), mode="r")
    np.testing.assert_array_equal(array[:], data)
    np.testing.assert_array_equal(array[20:50, 30:90], data[20:50, 30:90])


def test_each_chunk_is_a_file_of_the_tree() -> None:
    _, _, tree = write_array()
    chunks = [f"maps/ndvi/c/{i}/{j}".encode() for i in range(2) for j in range(3)]
    assert [path for path, _ in tree.prefix(b"maps/ndvi/c/")] == chunks


def test_ranges_of_a_shard_are_cut_from_the_verified_whole() -> None:
    data, objects, tree = write_array(shards=(60, 120))
    array = zarr.open_array(ArrayStore.of_tree(objects, tree, "maps/ndvi"), mode="r")
    np.testing.assert_array_equal(array[0:30, 40:80], data[0:30, 40:80])
    np.testing.assert_array_equal(array[:], data)


def test_equal_arrays_have_equal_trees() -> None:
    assert write_array()[2].root == write_array()[2].root


def test_a_commit_refuses_to_be_written() -> None:
    _, objects, tree = write_array()
    store = ArrayStore.of_tree(objects, tree)
    with pytest.raises(ValueError, match="does not support writing"):
        store.set_sync("x", cpu.Buffer.from_bytes(b"1"))
    with pytest.raises(InvalidInputError, match="open a session"):
        store.with_read_only(False)


def test_a_store_over_a_commit_pickles_with_the_places_of_its_packed_chunks(tmp_path: Path) -> None:
    data, objects, tree = write_array(open_backend(str(tmp_path)), compressors=None)
    assert all(isinstance(decode_value(raw), Whole) for _, raw in tree.prefix(b"maps/ndvi/c/"))
    again = pickle.loads(pickle.dumps(ArrayStore.of_tree(objects, tree, "maps/ndvi")))
    np.testing.assert_array_equal(zarr.open_array(again, mode="r")[:], data)
    assert again == ArrayStore.of_tree(objects, tree, "maps/ndvi")


def test_a_pickled_session_is_refused_where_the_session_is_not() -> None:
    objects = new_objects()
    pickled = pickle.dumps(ArrayStore.of_session(objects, EditorOnTree(objects)))
    with pytest.raises(InvalidInputError, match="another process"):
        pickle.loads(pickled)


def test_list_dir_of_a_commit_gives_names_and_not_their_contents() -> None:
    _, objects, tree = write_array()
    store = ArrayStore.of_tree(objects, tree, "maps")

    async def names(prefix: str) -> list[str]:
        return [name async for name in store.list_dir(prefix)]

    assert asyncio.run(names("")) == ["ndvi", "zarr.json"]
    assert asyncio.run(names("ndvi/")) == ["c", "zarr.json"]


@given(st.data())
def test_region_writes_agree_with_numpy(data: st.DataObject) -> None:
    objects = new_objects()
    session = EditorOnTree(objects)
    expected = np.zeros((5, 7), dtype="i2")
    array = zarr.create_array(ArrayStore.of_session(objects, session), shape=(5, 7), chunks=(2, 3), dtype="i2")
    for value in range(1, data.draw(st.integers(1, 4)) + 1):
        rows = sorted(data.draw(st.lists(st.integers(0, 5), min_size=2, max_size=2)))
        columns = sorted(data.draw(st.lists(st.integers(0, 7), min_size=2, max_size=2)))
        region = (slice(*rows), slice(*columns))
        expected[region] = value
        array[region] = value
    tree, index = session.finish()
    read = new_objects(objects.backend, index.find if index else None)
    found = zarr.open_array(ArrayStore.of_tree(read, tree), mode="r")
    np.testing.assert_array_equal(found[:], expected)


async def test_a_missing_key_reads_as_none() -> None:
    _, objects, tree = write_array()
    store = ArrayStore.of_tree(objects, tree)
    assert await store.get("none", default_buffer_prototype()) is None
    assert not await store.exists("none")
