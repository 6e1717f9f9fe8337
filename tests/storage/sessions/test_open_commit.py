from __future__ import annotations

import concurrent.futures
import itertools
import multiprocessing
import pickle
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.errors import ConflictError, ErrorCode, InvalidInputError, NotFoundError, ReadOnlyError
from dmlpipe.storage.gc.sweep import Collector
from dmlpipe.storage.sessions.open_commit import OpenCommit
from dmlpipe.storage.sessions.parts import SESSIONS_PREFIX, folder_of, read_parts
from dmlpipe.storage.store import Store

_count = itertools.count()


@pytest.fixture
def store() -> Store:
    made = Store.init(f"memory://open-commit-{next(_count)}")
    made.put("r", ("kept", "1"), ("log", "1\n"), ("d/1", "1"), ("d/2", "1"))
    return made


def read(store: Store, ref: str = "r") -> dict[str, str]:
    return {info.path: store[ref].read_text(info.path) for info in store[ref].ls(recursive=True)}


def leftovers(store: Store) -> list[str]:
    return [key for key, _ in store.backend.list(SESSIONS_PREFIX)]


def _task(opened: OpenCommit, number: int) -> str:
    with opened.writer() as writer:
        writer.write(f"/f/{number}.bin", str(number) * 300)
        writer.write("/same", "everybody writes this " * 20)
    return opened.id


def test_many_processes_write_into_one_commit(tmp_path: Path) -> None:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    opened = store.open_commit("r", message="by many")
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(3, mp_context=context) as pool:
        assert set(pool.map(_task, itertools.repeat(opened, 6), range(6), timeout=60)) == {opened.id}
    assert store.refresh().n == -1
    commit = opened.commit()
    assert store.refresh().n == 0
    fresh = Store.open(tmp_path / "store", cache_dir=tmp_path / "cache")
    expected = {f"/f/{number}.bin": str(number) * 300 for number in range(6)} | {"/same": "everybody writes this " * 20}
    assert read(fresh) == expected
    assert (commit.files, commit.size, commit.message) == (7, sum(map(len, expected.values())), "by many")
    assert fresh.fsck().ok
    assert leftovers(store) == []


@pytest.mark.s3
def test_on_s3(s3_url: str, tmp_path: Path) -> None:
    store = Store.init(s3_url, cache_dir=tmp_path / "cache")
    opened = store.open_commit("r")
    for number in range(3):
        _task(pickle.loads(pickle.dumps(opened)), number)
    assert [info.path for info in opened.commit().ls("/f")] == ["/f/0.bin", "/f/1.bin", "/f/2.bin"]
    assert leftovers(store) == []


def test_an_array_is_written_chunk_by_chunk(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    with store.commit("a") as session:
        zarr.create_array(session.zarr("/x"), shape=(4,), chunks=(1,), dtype="i4", fill_value=0)
    opened = store.open_commit("a")

    def write(number: int) -> None:
        with opened.writer() as writer:
            zarr.open_array(writer.zarr("/x"), mode="r+")[number] = number + 1

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    opened.commit()
    found = store["a"].array("/x")
    assert found[:].tolist() == [1, 2, 3, 4]  # type: ignore[union-attr]  # an array, as asked


def test_it_is_found_by_id_and_by_pickle(store: Store) -> None:
    opened = store.open_commit("r")
    for copy in (store.attach(opened.id), pickle.loads(pickle.dumps(opened)), *store.open_commits()):
        assert (copy.id, copy.info) == (opened.id, opened.info)
    for wrong in ("", "../x", "0" * 16):
        with pytest.raises(NotFoundError, match="no open commit"):
            store.attach(wrong)


def test_a_writer_counts_when_it_finished(store: Store) -> None:
    opened = store.open_commit("r")
    with pytest.raises(RuntimeError), opened.writer() as writer:
        writer.write("/x", "half")
        raise RuntimeError
    unfinished = opened.writer()
    unfinished.write("/y", "1")
    with opened.writer() as writer:
        writer.write("/z", "1")
    commit = opened.commit()
    assert sorted(read(store)) == ["/d/1", "/d/2", "/kept", "/log", "/z"]
    with pytest.raises(ConflictError, match="closed while writer"):
        unfinished.finish()
    with pytest.raises(NotFoundError, match=f"was published as {commit.id[:12]}"):
        opened.writer()
    assert [key for key in leftovers(store) if key.endswith(".mp")] == []


def test_edits_apply_to_the_head_of_the_end(store: Store) -> None:
    opened = store.open_commit("r")
    with opened.writer() as one, opened.writer() as two:
        one.delete("/d")
        one.copy("/kept", "/copied")
        two.write("log", "2\n", append=True)
        two.write("/d/new", "1")
        assert one.exists("/log")
        assert not one.exists("/d/new")
    store.put("r", ("late", "1"), ("d/late", "1"))
    opened.commit()
    assert read(store) == {"/copied": "1", "/kept": "1", "/log": "1\n2\n", "/late": "1", "/d/new": "1"}
    assert store["r"].size == sum(map(len, read(store).values()))


def test_an_append_to_what_changed_is_a_conflict(store: Store) -> None:
    opened = store.open_commit("r")
    with opened.writer() as writer:
        writer.write("log", "2\n", append=True)
    store.put("r", ("log", "other"))
    with pytest.raises(ConflictError, match="/log was changed"):
        opened.commit()


@pytest.mark.parametrize(
    ("one", "two", "what"),
    [
        (("x", "1"), ("x", "2"), "/x: writers first and second left different content there"),
        (("x", "1"), ("x/y", "1"), "/x: writers first and second made a file and a folder of it"),
        (("x/y/z", "1"), ("x", "1"), "/x: writers second and first made a file and a folder of it"),
        (("kept", "2"), ("kept", None), "/kept: writers first and second left different content there"),
    ],
)
def test_writers_that_disagree_are_named(
    store: Store, one: tuple[str, str], two: tuple[str, str | None], what: str
) -> None:
    opened, before = store.open_commit("r"), store.refresh().n
    for name, (path, text) in (("first", one), ("second", two)):
        with opened.writer(name) as writer:
            if text is None:
                writer.delete(path)
            else:
                writer.write(path, text)
    for _ in range(2):
        with pytest.raises(ConflictError, match=what):
            opened.commit()
    assert store.refresh().n == before
    opened.abort()
    opened.abort()
    assert leftovers(store) == []
    with pytest.raises(NotFoundError):
        opened.commit()


def test_of_one_writers_parts_the_later_ones_win(store: Store) -> None:
    opened = store.open_commit("r")
    for text in ("first", "second", "third"):
        with opened.writer("me") as writer:
            writer.write("x", text)
    assert [part.writer for part in read_parts(store.backend, opened.id)] == ["me"] * 3
    assert opened.commit().read_text("x") == "third"


def test_it_is_published_once_whoever_asks(store: Store) -> None:
    opened = store.open_commit("r")
    with opened.writer() as writer:
        writer.write("x", "1" * 500)
    others = [Store.open(store.url).attach(opened.id) for _ in range(4)]
    gate = threading.Barrier(4)

    def commit(each: OpenCommit) -> str:
        gate.wait(timeout=10)
        return each.commit().id

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        ids = set(pool.map(commit, others, timeout=30))
    assert ids == {store["r"].id}
    assert len(list(store.refresh().history("r"))) == 2
    store.put("r", ("x", "newer"))
    assert {opened.commit().id} == ids
    assert store["r"].read_text("x") == "newer"


def test_who_died_while_publishing_is_followed_by_another(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = store.open_commit("r")
    with opened.writer() as writer:
        writer.write("x", "1" * 500)
    with monkeypatch.context() as patch:
        patch.setattr(store.ledger, "try_append", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            opened.commit()
    assert Store.open(store.url).attach(opened.id).commit().read_text("x") == "1" * 500
    # Dead before it cleared away: what is left is cleared by whoever asks.
    assert leftovers(store) == []


def test_what_changes_nothing_makes_no_commit(store: Store) -> None:
    head = store["r"]
    opened = store.open_commit("r")
    with opened.writer() as writer:
        writer.write("kept", "1")
    assert opened.commit() == head
    assert store.open_commit("r").commit() == head


def test_the_branch_may_have_to_be_where_it_was(store: Store) -> None:
    opened = store.open_commit("r", if_head=store["r"].id)
    store.put("r", ("late", "1"))
    with pytest.raises(ConflictError, match="expected"):
        opened.commit()


def test_a_new_repo_is_made_with_it(store: Store) -> None:
    opened = store.open_commit("fresh", "dev")
    assert store.refresh().repo("fresh") is None
    with opened.writer() as writer:
        writer.write("x", "1")
    opened.commit()
    assert read(store, "fresh@dev") == {"/x": "1"}


def _collect(store: Store, grace_s: float, clock: Callable[[], float] = time.time) -> int:
    other = Store.open(store.url)
    return (
        Collector(other.backend, other.nodes, other.objects, other.ledger, grace_s=grace_s, clock=clock)
        .collect()
        .objects
    )


def test_what_writers_left_outlives_a_collection_as_long_as_it_is_alive(store: Store) -> None:
    opened = store.open_commit("r")
    with opened.writer() as writer:
        writer.write("x", "1" * 500)
        writer.write("large", "2" * (2 << 20))
    assert _collect(store, grace_s=0.001) == 0
    assert opened.commit().read_text("x") == "1" * 500


def test_a_collection_that_took_what_a_writer_stored_is_noticed(store: Store) -> None:
    opened = store.open_commit("r")
    with opened.writer() as writer:
        writer.write("x", "1" * 500)
    assert _collect(store, grace_s=0) > 0
    with pytest.raises(ConflictError, match="garbage collection") as caught:
        opened.commit()
    assert caught.value.code == ErrorCode.COLLECTED
    with pytest.raises(ConflictError, match="garbage collection"):
        Store.open(store.url).attach(opened.id).commit()


def test_a_collection_before_a_writer_began_is_no_matter(store: Store) -> None:
    large = random.Random(2).randbytes(2 << 20)
    with pytest.raises(RuntimeError), store.commit("r") as session:
        session.write("large", large)
        raise RuntimeError
    opened = store.open_commit("r")
    assert _collect(store, grace_s=0) > 0
    with opened.writer() as writer:
        writer.write("large", large)
    assert opened.commit().read_bytes("large") == large
    assert Store.open(store.url).fsck().ok


def test_wrong_use_is_refused(store: Store) -> None:
    opened = store.open_commit("r")
    with pytest.raises(InvalidInputError, match="writer"):
        opened.writer("a/b")
    with opened.writer() as writer:
        writer.write("x", "1")
    with pytest.raises(InvalidInputError, match="ended"):
        writer.write("y", "1")
    with pytest.raises(ReadOnlyError):
        Store.open(store.url, read_only=True).open_commit("r")
    with pytest.raises(NotFoundError, match="no repo 'imagse'"):
        store.create_repo("images")
        store.open_commit("imagse")


_paths = st.sampled_from(["a", "b", "c/1", "c/2"])
_edits = st.lists(st.tuples(_paths, st.sampled_from(["1", "2", None])), max_size=3)


@given(st.lists(_edits, min_size=1, max_size=3))
def test_what_writers_agree_on_is_published(writers: list[list[tuple[str, str | None]]]) -> None:
    store = Store.init(f"memory://open-commit-{next(_count)}")
    base = {"a": "0", "c/1": "0"}
    store.put("r", *base.items())
    wanted: dict[str, set[str | None]] = {}
    opened = store.open_commit("r")
    for edits in writers:
        mine: dict[str, str | None] = {}
        with opened.writer() as writer:
            for path, text in edits:
                if text is None:
                    writer.delete(path, missing_ok=True)
                    if mine.get(path, base.get(path)) is not None:
                        mine[path] = None
                else:
                    writer.write(path, text)
                    mine[path] = text
        for path, value in mine.items():
            wanted.setdefault(path, set()).add(value)
    if any(len(values) > 1 for values in wanted.values()):
        with pytest.raises(ConflictError, match="left different content"):
            opened.commit()
        return
    opened.commit()
    final = {**base, **{path: next(iter(values)) for path, values in wanted.items()}}
    assert read(store) == {f"/{path}": value for path, value in final.items() if value is not None}
    assert folder_of(opened.id) not in "".join(leftovers(store))
