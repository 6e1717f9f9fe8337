"""What is remembered of folders: whatever was done to them, a put that trusts it makes what one that reads all does."""

from __future__ import annotations

import itertools
import os
import pickle
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage import listing
from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.digest import digest
from dmlpipe.storage.errors import InvalidInputError
from dmlpipe.storage.local import memory, recall, stats
from dmlpipe.storage.objects.node import NodeStore
from dmlpipe.storage.objects.value import encode_value
from dmlpipe.storage.store import Store
from dmlpipe.storage.trees.codetree import ValuesOnly
from dmlpipe.storage.trees.prolly import build

FOLDERS, EACH = 12, 6


@pytest.fixture(autouse=True)
def aged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files count as old however short ago they were written; who writes one here gives it another time."""
    monkeypatch.setattr(stats, "TICK_NS", -(1 << 60))
    monkeypatch.setattr(stats, "COARSE_TICK_NS", -(1 << 60))


def travel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is listed come as if it came from another process, however few files there are."""

    def share_work(work: Callable[[Iterator[int]], object], units: int, processes: int) -> list[object]:
        return [pickle.loads(pickle.dumps(work(iter(range(units)))))]

    monkeypatch.setattr(listing, "_SHARE_FROM_FILES", 0)
    monkeypatch.setattr(listing, "_SHARE_FROM_FOLDERS", 1)
    monkeypatch.setattr(listing, "share_work", share_work)


_times = itertools.count(1_000_000_000_000_000_000, 1000)


def write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    touch(file)


def touch(file: Path) -> None:
    now = next(_times)
    os.utime(file, ns=(now, now))


def fill(folder: Path) -> dict[str, bytes]:
    made = {f"f{number // EACH:02}/{number}": b"%d" % number * 60 for number in range(FOLDERS * EACH)}
    for name, data in made.items():
        write(folder / name, data)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    store.nodes.tree_target = EACH  # about a leaf for each folder
    return store


class Costs:
    """What is done in this process."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self._store = store
        self.looked: list[str] = []
        self.read: list[str] = []
        self.decoded = 0
        """Values that were remembered."""
        self.saved = 0
        self._nodes = 0
        self.reset()
        real_open, real_stat, real_values, real_replace = os.open, os.stat, memory._decode_values, os.replace

        def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if dir_fd is not None:
                self.read.append(str(path))
            return real_open(path, flags, mode, dir_fd=dir_fd)

        def stat(path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
            if dir_fd is not None:
                self.looked.append(str(path))
            return real_stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

        def decode_values(raw: Any) -> list[bytes]:
            values = real_values(raw)
            self.decoded += len(values)
            return values

        def replace(one: Any, other: Any) -> None:
            self.saved += str(other).endswith(".mp")
            real_replace(one, other)

        monkeypatch.setattr(os, "open", open_)
        monkeypatch.setattr(os, "stat", stat)
        monkeypatch.setattr(os, "replace", replace)
        monkeypatch.setattr(memory, "_decode_values", decode_values)

    def reset(self) -> Store:
        """Begin to count, with a store that has no node in memory."""
        self._store = Store.open(self._store.url, cache_dir=self._store.cache_dir)
        self._store.nodes.tree_target = EACH
        self.looked.clear()
        self.read.clear()
        self.decoded = self.saved = 0
        return self._store

    @property
    def nodes(self) -> int:
        return self._store.nodes.reads


def test_what_is_unchanged_costs_a_look_at_each_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fill(tmp_path / "src")
    first = store.put("r", tmp_path / "src")
    costs = Costs(store, monkeypatch)
    assert costs.reset().put("r", tmp_path / "src").id == first.id
    assert len(costs.looked) == len(made), "each once"
    assert (costs.read, costs.decoded, costs.saved) == ([], 0, 0)
    assert costs.nodes <= 2, "the commit and the root of its tree"
    assert list(costs.reset()["r"].diff(tmp_path / "src")) == []
    assert len(costs.looked) == len(made)
    assert (costs.read, costs.decoded, costs.saved) == ([], 0, 0)
    assert costs.nodes <= 2


def test_what_changed_costs_its_folder(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fill(tmp_path / "src")
    store.put("r", tmp_path / "src")
    height = 4
    costs = Costs(store, monkeypatch)
    write(tmp_path / "src/f03/new", b"new" * 100)
    write(tmp_path / "src/f05/30", b"other" * 100)
    assert [change.path for change in costs.reset()["r"].diff(tmp_path / "src")] == ["/f03/new", "/f05/30"]
    assert sorted(costs.read) == ["30", "new"]
    assert costs.decoded <= 2 * EACH
    costs.reset().put("r", tmp_path / "src")
    assert sorted(costs.read) == ["30", "new"], "what diff has seen is not in the store"
    assert costs.decoded <= 2 * (2 * EACH + 1), "to compare, and to be changed"
    assert costs.nodes <= 2 + 3 * height, "the nodes on the way to both, and to what each comes before"
    assert len(costs.looked) == len(made) + 1
    assert costs.saved == 1
    costs.reset().put("r", tmp_path / "src")
    assert (costs.read, costs.decoded, costs.saved) == ([], 0, 0)


def test_a_touched_file_is_read_and_makes_no_commit(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "src")
    first = store.put("r", tmp_path / "src")
    costs = Costs(store, monkeypatch)
    touch(tmp_path / "src/f05/30")
    assert costs.reset().put("r", tmp_path / "src").id == first.id
    assert (costs.read, costs.saved) == (["30"], 1)
    assert list(costs.reset()["r"].diff(tmp_path / "src")) == []
    assert (costs.read, costs.decoded, costs.saved) == ([], 0, 0)


def test_a_diff_with_another_commit_leaves_what_is_known_of_the_head(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "src")
    store.put("r", tmp_path / "src")
    write(tmp_path / "src/f05/30", b"other" * 100)
    store.put("r", tmp_path / "src")
    costs = Costs(store, monkeypatch)
    assert [change.path for change in costs.reset()["r@master^"].diff(tmp_path / "src")] == ["/f05/30"]
    assert costs.saved == 0
    costs.reset().put("r", tmp_path / "src")
    assert (costs.read, costs.decoded, costs.saved) == ([], 0, 0)


def test_a_diff_finds_out_what_the_head_has(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fill(tmp_path / "src")
    store.put("r", tmp_path / "src")
    store.put("r", ("more", b"of something else"))
    costs = Costs(store, monkeypatch)
    assert [change.path for change in costs.reset()["r"].diff(tmp_path / "src")] == ["/more"]
    assert (costs.decoded, costs.saved) == (len(made), 1)
    costs.reset().put("r", tmp_path / "src")
    assert (costs.read, costs.decoded, costs.saved) == ([], 0, 0)


def test_what_was_deleted_after_it_was_put_is_put_again(store: Store, tmp_path: Path) -> None:
    made = fill(tmp_path / "src")
    with store.commit("r") as session:
        session.put(str(tmp_path / "src"))
        session.delete("/f03")
    assert store["r"].files == len(made) - EACH
    assert store.put("r", tmp_path / "src").files == len(made)
    assert store.fsck().ok


def test_what_another_branch_has_is_not_taken_to_be_in_this_one(store: Store, tmp_path: Path) -> None:
    made = fill(tmp_path / "src")
    whole = store.put("r", tmp_path / "src")
    with store.commit("r") as session:
        session.delete("/f03")
    assert store.put("r", tmp_path / "src").tree == whole.tree
    assert store.put("other", tmp_path / "src").files == len(made)
    with store.commit("r") as session:
        session.put(str(tmp_path / "src"), "/below")
    assert store["r"].files == 2 * len(made)
    assert store.fsck().ok


def test_an_edit_that_was_overtaken_puts_also_what_was_unchanged(store: Store, tmp_path: Path) -> None:
    made = fill(tmp_path / "src")
    first = store.put("r", tmp_path / "src")
    with store.commit("r") as session:
        session.put(str(tmp_path / "src"))
        store.put("r", ("f03/18", b"somebody else's"))
    assert store["r"].tree == first.tree
    opened = store.open_commit("r")
    with opened.writer() as writer:
        writer.put(str(tmp_path / "src"))
    store.put("r", ("f03/18", b"somebody else's again"))
    opened.commit()
    assert store["r"].tree == first.tree
    assert store["r"].files == len(made)


def test_a_name_that_became_a_folder_is_refused_before_anything_is_written(store: Store, tmp_path: Path) -> None:
    fill(tmp_path / "src")
    first = store.put("r", tmp_path / "src")
    (tmp_path / "src/f03/18").unlink()
    write(tmp_path / "src/f03/18/below", b"1")
    with pytest.raises(InvalidInputError, match="cannot be both a file and a folder"):
        store.put("r", tmp_path / "src")
    shutil.rmtree(tmp_path / "src/f03")
    write(tmp_path / "src/f03", b"1")
    with pytest.raises(InvalidInputError, match="cannot be both a file and a folder"):
        store.put("r", tmp_path / "src")
    assert store["r"].id == first.id
    assert store.put("r", tmp_path / "src", mirror=True).files == (FOLDERS - 1) * EACH + 1


def test_a_session_that_changed_the_head_before_is_not_taken_to_have_it(store: Store, tmp_path: Path) -> None:
    made = fill(tmp_path / "src")
    store.put("r", tmp_path / "src")
    with store.commit("r") as session:
        session.delete("/f03")
        session.put(str(tmp_path / "src"))
    assert store["r"].files == len(made)
    with store.commit("r") as session:
        session.delete("/f03")
        session.write("/f03", b"a file")
        with pytest.raises(InvalidInputError, match="cannot be both a file and a folder"):
            session.put(str(tmp_path / "src"))
        session.delete("/f03")


@pytest.mark.parametrize("travels", [False, True])
def test_a_renamed_file_has_its_new_name(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, travels: bool
) -> None:
    if travels:
        travel(monkeypatch)
    made = fill(tmp_path / "src")
    store.put("r", tmp_path / "src")
    (tmp_path / "src/f03/18").rename(tmp_path / "src/f03/1x")
    assert [change.path for change in store["r"].diff(tmp_path / "src")] == ["/f03/18", "/f03/1x"]
    made["f03/1x"] = made.pop("f03/18")
    view = store.put("r", tmp_path / "src", mirror=True)
    assert {info.path[1:]: view.read_bytes(info.path) for info in view.ls(recursive=True)} == made


def test_two_names_that_are_one_are_refused(store: Store, tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        write(tmp_path / "file" / unicodedata.normalize(form, "é"), b"1")
        write(tmp_path / "folder" / unicodedata.normalize(form, "é") / "x", b"1")
    write(tmp_path / "one/x", b"1")
    write(tmp_path / "two/x", b"2")
    for sources in ([tmp_path / "file"], [tmp_path / "folder"], [tmp_path / "one", tmp_path / "two"]):
        with pytest.raises(InvalidInputError, match="would both be"):
            store.put("r", *sources)
    assert store.refresh().n == -1


@pytest.mark.parametrize("looked_up_to", [0, 1 << 20])
def test_a_file_that_is_gone_right_after_the_listing_is_told(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked_up_to: int
) -> None:
    """Whoever looks: he who listed the folder, or, if it is large, somebody later."""
    monkeypatch.setattr(recall, "_LOOK_UP_TO", looked_up_to)
    fill(tmp_path / "src")
    first = store.put("r", tmp_path / "src")
    real = recall.FolderRecall.look

    def look(self: recall.FolderRecall, folder: Any) -> object:
        if folder.inside == "f05":
            (tmp_path / "src/f05/30").unlink()
        return real(self, folder)

    monkeypatch.setattr(recall.FolderRecall, "look", look)
    with pytest.raises(InvalidInputError, match="f05/30 is gone: it was there a moment ago"):
        store.put("r", tmp_path / "src")
    assert store["r"].id == first.id


def test_a_memory_of_an_earlier_version_is_forgotten(store: Store, tmp_path: Path) -> None:
    made = fill(tmp_path / "src")
    store.put("r", tmp_path / "src")
    (file,) = (tmp_path / "cache").glob("stores/*/stats/*.mp")
    first = memory._encode([1, str(tmp_path / "src"), {"f00": [1, b"0", b"\0" * 32, [b""]]}])
    other = memory._encode([0, str(tmp_path / "src"), None, []])
    for raw in (
        first + digest(first),
        digest(other) + memory._LENGTH.pack(len(other)) + other,
        digest(first) + memory._LENGTH.pack(len(first)) + first,
        digest(other) + memory._LENGTH.pack(1 << 60) + other,
    ):
        file.write_bytes(raw)
        assert store.put("r", tmp_path / "src").files == len(made)


def test_of_a_damaged_memory_only_the_damaged_folder_is_forgotten(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "src")
    first = store.put("r", tmp_path / "src")
    (file,) = (tmp_path / "cache").glob("stores/*/stats/*.mp")
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    costs = Costs(store, monkeypatch)
    assert costs.reset().put("r", tmp_path / "src").id == first.id
    assert sorted(costs.read) == sorted(str(number) for number in range(EACH * (FOLDERS - 1), EACH * FOLDERS))
    assert costs.saved == 1
    assert costs.reset().put("r", tmp_path / "src").id == first.id
    assert (costs.read, costs.saved) == ([], 0)
    file.write_bytes(file.read_bytes()[:-1])
    assert costs.reset().put("r", tmp_path / "src").id == first.id
    assert (len(costs.read), costs.saved) == (EACH, 1)


# --- whatever is done -------------------------------------------------------------------------------------------------

NAMES = ["a", "b", "c/a", "c/b", "c/d/a", "e/é", "e/b", "g/a"]
names = st.sampled_from(NAMES)
contents = st.sampled_from([b"", b"1", b"2", b"x" * 200, b"y" * 200])
places = st.sampled_from(["", "to", "to/c"])
repos = st.sampled_from(["r", "q"])
steps = st.one_of(
    st.tuples(st.just("write"), names, contents),
    st.tuples(st.just("touch"), names),
    st.tuples(st.just("remove"), names),
    st.tuples(st.just("swap"), names, names),
    st.tuples(st.just("put"), repos, places, st.booleans(), st.booleans()),
    st.tuples(st.just("put and delete"), repos, names),
    st.tuples(st.just("diff"), repos, places),
    st.tuples(st.just("edit"), repos, names, contents | st.none()),
    st.tuples(st.just("overtaken"), repos, names, contents),
    st.tuples(st.just("forget"), st.integers(0, 1 << 30)),
)

Model = dict[str, bytes]


class Scene:
    """A local folder, two repos, and what each should hold."""

    def __init__(self, folder: Path) -> None:
        self.src = folder / "src"
        self.src.mkdir()
        self.cache = folder / "cache"
        self.store = Store.init(folder / "store", cache_dir=self.cache)
        self.store.nodes.tree_target = 2
        self.local: Model = {}
        self.repos: dict[str, Model] = {"r": {}, "q": {}}
        for name in NAMES:
            self.write(name, name.encode() * 90)

    def do(self, step: tuple[Any, ...]) -> None:
        what, *rest = step
        getattr(self, what.replace(" ", "_"))(*rest)

    def write(self, name: str, data: bytes) -> None:
        write(self.src / name, data)
        self.local[name] = data

    def touch(self, name: str) -> None:
        if name in self.local:
            touch(self.src / name)

    def remove(self, name: str) -> None:
        if self.local.pop(name, None) is not None:
            (self.src / name).unlink()

    def swap(self, one: str, other: str) -> None:
        """Two files change places, and keep their times."""
        if one in self.local and other in self.local and one != other:
            (self.src / one).rename(self.src / "aside")
            (self.src / other).rename(self.src / one)
            (self.src / "aside").rename(self.src / other)
            self.local[one], self.local[other] = self.local[other], self.local[one]

    def placed(self, place: str) -> Model:
        return {f"{place}/{name}".lstrip("/"): data for name, data in self.local.items()}

    def put(self, repo: str, place: str, mirror: bool, rehash: bool) -> None:
        with self.store.commit(repo, create=True) as session:
            session.put(str(self.src), f"/{place}", mirror=mirror, rehash=rehash)
        model = self.repos[repo]
        if mirror:
            self.clear(model, place)
        model |= self.placed(place)
        self.check(repo)

    def put_and_delete(self, repo: str, name: str) -> None:
        with self.store.commit(repo, create=True) as session:
            session.put(str(self.src))
            session.delete(f"/{name}", missing_ok=True)
        self.repos[repo] |= self.local
        self.repos[repo].pop(name, None)
        self.check(repo)

    def diff(self, repo: str, place: str) -> None:
        if self.store.refresh().head(repo, "master") is None:
            return
        below = {name: data for name, data in self.repos[repo].items() if not place or name.startswith(f"{place}/")}
        here = self.placed(place)
        expected = sorted(f"/{name}" for name in below.keys() | here.keys() if below.get(name) != here.get(name))
        found = [change.path for change in self.store[repo].diff(self.src, f"/{place}")]
        assert found == sorted(expected, key=str.encode)

    def edit(self, repo: str, name: str, data: bytes | None) -> None:
        with self.store.commit(repo, create=True) as session:
            if data is None:
                session.delete(f"/{name}", missing_ok=True)
                self.repos[repo].pop(name, None)
            else:
                session.write(f"/{name}", data)
                self.repos[repo][name] = data
        self.check(repo)

    def overtaken(self, repo: str, name: str, data: bytes) -> None:
        """Somebody else commits between the put and its commit."""
        self.put(repo, "", False, False)
        with self.store.commit(repo) as session:
            session.put(str(self.src))
            self.edit(repo, name, data + b"!")
        self.repos[repo] |= self.local
        self.check(repo)

    def forget(self, at: int) -> None:
        """One of the files that remember is damaged."""
        for file in self.cache.glob("stores/*/stats/*.mp"):
            raw = bytearray(file.read_bytes())
            raw[at % len(raw)] ^= 1
            file.write_bytes(raw)

    @staticmethod
    def clear(model: Model, place: str) -> None:
        for name in [name for name in model if not place or name.startswith(f"{place}/")]:
            del model[name]

    def check(self, repo: str) -> None:
        """Assert that a repo has the very tree that its content alone would make."""
        if self.store.refresh().head(repo, "master") is None:
            return
        nodes = NodeStore(MemoryBackend(f"expected-{next(_times)}"), tree_target=2)
        hashed = ValuesOnly()
        items = sorted((name.encode(), encode_value(hashed.put(data))) for name, data in self.repos[repo].items())
        view = self.store[repo]
        assert view.tree.root == build(nodes, items).root
        assert view.size == sum(map(len, self.repos[repo].values()))
        for name, data in self.repos[repo].items():
            assert view.read_bytes(name) == data


@pytest.mark.parametrize("travels", [False, True])
@given(done=st.lists(steps, min_size=3, max_size=20))
def test_a_put_that_trusts_makes_what_one_that_reads_all_makes(travels: bool, done: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if travels:
            travel(patch)
        scene = Scene(Path(folder))
        for step in done:
            scene.do(step)
        assert scene.store.fsck().ok
