"""What large stores cost, counted: nodes, bytes, ledger entries, requests. Seconds are in benchmarks/storage.py."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.digest import digest
from dmlpipe.storage.objects.node import NodeStore
from dmlpipe.storage.objects.value import Whole, encode_value
from dmlpipe.storage.sessions.session import Session
from dmlpipe.storage.store import Store
from dmlpipe.storage.testing import CountingBackend
from dmlpipe.storage.trees.operations import ListedFiles
from dmlpipe.storage.trees.prolly import Tree, build

MILLION = 1_000_000
_HEAD = encode_value(Whole(2000, bytes(32)))[:-32]


def entry(number: int) -> tuple[bytes, bytes]:
    # A thousand files a folder; hashes that do not compress, cheaply made.
    return b"train/class_%05d/img_%09d.jpg" % (number // 1000, number), _HEAD + digest(number.to_bytes(4, "big"))


def entries(count: int) -> Iterator[tuple[bytes, bytes]]:
    return map(entry, range(count))


def height(nodes: NodeStore, tree: Tree) -> int:
    reader = NodeStore(nodes.backend)
    assert Tree(reader, tree.root).get(entry(0)[0]) is not None
    return reader.reads


def check_tree(nodes: NodeStore, tree: Tree, count: int, *, deeper: int = 0) -> int:
    """Edit, compare and list; assert what each reads and writes, and what the tree takes; return the height.

    A tree that is `deeper` by so many levels has so many nodes more on the way to each of ten entries.
    """
    sizes = [size for _, size in nodes.backend.list("nodes/")]
    assert len(sizes) <= 1200 * count // MILLION
    assert sum(sizes) <= 40 * count
    built = nodes.writes
    numbers = sorted(random.Random(1).sample(range(count), 10))
    newer = tree.update([(entry(number)[0], encode_value(Whole(number, bytes(32)))) for number in numbers])
    assert nodes.writes - built <= 15 + 10 * deeper
    reader = NodeStore(nodes.backend)
    found = list(Tree(reader, tree.root).diff(Tree(reader, newer.root)))
    assert [key for key, _, _ in found] == [entry(number)[0] for number in numbers]
    assert reader.reads <= 30 + 20 * deeper
    lister = NodeStore(nodes.backend)
    names = [name for name, _, _ in Tree(lister, tree.root).list_dir(b"train/class_00007/")]
    assert len(names) == 1000
    assert lister.reads <= 5 + deeper
    return height(nodes, tree)


@pytest.mark.slow
def test_a_tree_of_ten_million_is_at_most_one_level_higher() -> None:
    nodes = NodeStore(MemoryBackend("scale-10"))
    tree = build(nodes, entries(10 * MILLION))
    assert len(tree) == 10 * MILLION
    assert check_tree(nodes, tree, 10 * MILLION, deeper=1) <= 3 + 1


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store whose repo has a million files in its tree (of which no content is stored) and two commits."""
    store = Store.init("memory://a-million-files", cache_dir=tmp_path_factory.mktemp("million"))
    with store.commit("r") as session:
        session.write("first", "1")
    with store.commit("r") as session:
        assert isinstance(session, Session)
        pairs = list(entries(MILLION))
        session._edits.put_many(ListedFiles([path for path, _ in pairs], [value for _, value in pairs]))
    assert store["r"].files == MILLION + 1
    return store


def test_a_tree_of_a_million_entries_costs_what_changes(million: Store) -> None:
    nodes = NodeStore(million.backend)
    assert check_tree(nodes, Tree(nodes, million["r"].tree.root), MILLION) <= 3


def counted(store: Store, cache: Path) -> tuple[Store, CountingBackend]:
    backend = CountingBackend(store.backend)
    other = Store(backend, store.info, cache_dir=cache)
    other.refresh()
    return other, backend


@pytest.mark.parametrize("what", ["branch", "tag", "revert"])
def test_naming_a_commit_of_a_million_files_appends_one_entry_and_reads_no_tree(
    million: Store, tmp_path: Path, what: str
) -> None:
    store, backend = counted(million, tmp_path / what)
    before, reads = store.state.n, store.nodes.reads
    backend.counts.clear()
    if what == "branch":
        store.create_branch("r", "topic", "r@master")
    elif what == "tag":
        store.create_tag("r", "v1", "r@master")
    else:
        store.create_branch("r", "back", "r@master")
        before, reads = store.state.n, store.nodes.reads
        backend.counts.clear()
        store.set_branch("r", "back", "r@master^")
    assert store.state.n == before + 1
    assert backend.counts["put_if_absent"] == 1
    # At most commit bodies, for the ancestor.
    assert store.nodes.reads - reads <= 2


def test_one_file_more_in_a_million_reads_and_writes_the_path_to_the_root(million: Store, tmp_path: Path) -> None:
    store, _ = counted(million, tmp_path / "one")
    store.put("r", ("train/class_00500/new", b"x" * 200))
    assert store.nodes.reads <= 12
    assert store.nodes.writes <= 6
