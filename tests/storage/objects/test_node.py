from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.backend import Backend
from dmlpipe.storage.backend.local import LocalBackend
from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.digest import Digest, digest
from dmlpipe.storage.errors import CorruptError, InvalidInputError, NotFoundError
from dmlpipe.storage.objects.node import NodeStore, node_key
from dmlpipe.storage.testing import CountingBackend

_numbers = itertools.count()


def new_backend() -> Backend:
    return MemoryBackend(f"node-{next(_numbers)}")


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_nodes_read_back_under_the_hash_of_their_bytes(raws: list[bytes]) -> None:
    backend = new_backend()
    names = NodeStore(backend).put_many(raws)
    assert names == [digest(raw) for raw in raws]
    assert NodeStore(backend).get_many(names) == raws


def test_a_node_is_written_once() -> None:
    nodes = NodeStore(new_backend())
    first = nodes.put(b"node")
    assert nodes.put(b"node") == first
    assert nodes.writes == 1
    assert NodeStore(nodes.backend).put(b"node") == first
    assert len(list(nodes.backend.list())) == 1


def test_a_cached_node_is_not_read_again() -> None:
    nodes = NodeStore(new_backend())
    name = nodes.put(b"node")
    reader = NodeStore(nodes.backend)
    assert [reader.get(name) for _ in range(3)] == [b"node"] * 3
    assert reader.reads == 1


def test_the_cache_holds_no_more_than_it_may() -> None:
    nodes = NodeStore(new_backend())
    names = nodes.put_many([b"%d" % number for number in range(10)])
    reader = NodeStore(nodes.backend, cache_nodes=3)
    for name in names:
        reader.get(name)
    reader.get_many(names[-3:])
    assert reader.reads == 10
    reader.get(names[0])
    assert reader.reads == 11


def test_missing_nodes_are_fetched_together() -> None:
    nodes = NodeStore(new_backend())
    names = nodes.put_many([b"%d" % number for number in range(10)])
    backend = CountingBackend(nodes.backend)
    NodeStore(backend).get_many(names)
    assert backend.counts["get_many"] == 1


def test_a_missing_node_is_not_found() -> None:
    with pytest.raises(NotFoundError):
        NodeStore(new_backend()).get(digest(b"nothing"))


@given(st.binary(max_size=100), st.data())
def test_any_flipped_bit_of_a_stored_node_is_noticed(raw: bytes, data: st.DataObject) -> None:
    backend = new_backend()
    name = NodeStore(backend).put(raw)
    body = bytearray(backend.get(node_key(name)))
    position = data.draw(st.integers(0, len(body) * 8 - 1))
    body[position // 8] ^= 1 << (position % 8)
    backend.put(node_key(name), body)
    with contextlib.suppress(CorruptError):
        assert NodeStore(backend).get(name) == raw  # a bit of the frame that says nothing


def test_one_node_under_the_name_of_another_is_noticed() -> None:
    backend = new_backend()
    nodes = NodeStore(backend)
    one, two = nodes.put_many([b"one", b"two"])
    backend.put(node_key(one), backend.get(node_key(two)))
    with pytest.raises(CorruptError, match=f"node {one.hex()[:12]} is corrupt"):
        NodeStore(backend).get(one)


@pytest.mark.parametrize("left", [b"", b"half", b"\0" * 200])
def test_a_node_that_a_power_cut_left_torn_is_written_anew(left: bytes) -> None:
    backend = new_backend()
    name = digest(b"content")
    backend.put(node_key(name), left)
    NodeStore(backend).put(b"content")
    assert NodeStore(backend).get(name) == b"content"


def test_take_written_names_what_was_put_written_or_found(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path)
    NodeStore(backend).put(b"found")
    nodes = NodeStore(backend)
    names = nodes.put_many([b"found", b"made"])
    keys = nodes.take_written()
    assert sorted(keys) == sorted(map(node_key, names))
    assert nodes.take_written() == []
    nodes.restore_written(keys)
    nodes.put(b"made")
    assert sorted(nodes.take_written()) == sorted(keys)
    backend.sync(keys)


def test_decoded_nodes_are_shared() -> None:
    nodes = NodeStore(new_backend())
    name = nodes.put(b"1 2")
    first = nodes.load_many([name, name], bytes.split)
    assert first == [[b"1", b"2"]] * 2
    assert nodes.load_many([name], bytes.split)[0] is first[0]


def test_a_target_that_makes_no_tree_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="2 or more"):
        NodeStore(new_backend(), tree_target=1)


def test_keys_spread_over_folders() -> None:
    name = Digest(bytes(range(32)))
    assert node_key(name) == f"nodes/00/{name.hex()[2:]}"
