"""A collector that dies at any write: nothing is lost, and the next one finishes the work."""

from __future__ import annotations

import itertools
import os
import random
import time
from pathlib import Path

import pytest

from dmlpipe.storage import records as r
from dmlpipe.storage.backend import Backend
from dmlpipe.storage.gc import sweep
from dmlpipe.storage.sessions import editing
from dmlpipe.storage.store import Store
from dmlpipe.storage.testing import Stopped, StoppingBackend
from tests.storage.gc.model import collector, drop, open_on

_names = itertools.count()

CONTENTS = {f"{i}.bin": b"%d" % i * 200 for i in range(10)}
KEPT = {"0.bin", "1.bin"}


def prepare(cache: Path) -> Backend:
    """A store with loose objects and nodes to take, a pack that dies, and one to be packed anew."""
    backend = Store.init(f"memory://gc-crash-{next(_names)}", cache_dir=cache).backend
    store = open_on(backend, cache)
    store.put("images", ("dies.bin", b"d" * 500))
    store.put("images", *CONTENTS.items(), ("big", random.Random(1).randbytes(1 << 20)), mirror=True)
    with store.commit("images") as session:
        for name in (*CONTENTS, "big"):
            if name not in KEPT:
                session.delete(name)
    assert drop(store, "images") == 2
    return backend


def check(backend: Backend, cache: Path) -> None:
    store = open_on(backend, cache)
    report = store.fsck()
    assert report.ok, report.problems
    view = store["images"]
    assert {info.path[1:]: view.read_bytes(info.path) for info in view.ls()} == {name: CONTENTS[name] for name in KEPT}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_collector_may_die_at_any_write(after: bool, tmp_path: Path) -> None:
    for writes in itertools.count():
        backend = prepare(tmp_path)
        stopping = StoppingBackend(backend, writes, after=after)
        try:
            collector(open_on(stopping, tmp_path)).collect()
        except Stopped:
            pass
        check(backend, tmp_path)
        # Whoever comes next puts all of it again, whatever names are still condemned, and the space comes back.
        store = open_on(backend, tmp_path)
        store.put("again", *CONTENTS.items(), ("big", random.Random(1).randbytes(1 << 20)))
        collector(open_on(backend, tmp_path)).collect()
        check(backend, tmp_path)
        again = open_on(backend, tmp_path)["again"]
        assert {info.path[1:]: again.read_bytes(info.path) for info in again.ls()} == {
            **CONTENTS,
            "big": random.Random(1).randbytes(1 << 20),
        }
        if not stopping.dead:
            assert writes > 8
            return


def test_what_is_mostly_dead_is_packed_anew_and_its_index_with_it(tmp_path: Path) -> None:
    backend = prepare(tmp_path)
    before = {key for key, _ in backend.list("packs/")}
    plan = collector(open_on(backend, tmp_path)).plan()
    assert (len(plan.dead), len(plan.repack)) == (1, 1)
    done = collector(open_on(backend, tmp_path)).collect()
    assert done.freed_bytes == plan.freed_bytes > 1 << 20
    after = {key for key, _ in backend.list("packs/")}
    assert len(before) == 2
    assert len(after) == 1
    assert not before & after
    state = open_on(backend, tmp_path).refresh()
    assert set(state.packs()) == after
    assert {key for key, _ in backend.list("index/")} == set(state.indexes())
    check(backend, tmp_path)


def test_a_reader_that_knows_only_the_old_packs_finds_the_new_ones(tmp_path: Path) -> None:
    backend = prepare(tmp_path)
    reader = open_on(backend, tmp_path)
    view = reader["images"]
    assert view.read_bytes("0.bin") == CONTENTS["0.bin"]
    collector(open_on(backend, tmp_path)).collect()
    assert view.read_bytes("1.bin") == CONTENTS["1.bin"]
    assert view.read_bytes("0.bin") == CONTENTS["0.bin"]


def test_grace_leaves_what_nobody_has_published_yet(tmp_path: Path) -> None:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    session = store.commit("images")
    session.write("a", b"a" * 300)
    session.writer.flush()
    plan = collector(open_on(store.backend, tmp_path / "cache"), grace_s=3600).plan()
    assert (plan.objects, plan.young) == (0, 1)
    assert collector(open_on(store.backend, tmp_path / "cache"), grace_s=3600).collect().objects == 0
    session.commit()
    assert store["images"].read_bytes("a") == b"a" * 300


def test_a_session_that_says_it_lives_keeps_what_it_wrote(tmp_path: Path) -> None:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    session = store.commit("images")
    session.write("a", b"a" * 300)
    session.writer.flush()
    later = time.time() + 50 * 3600
    other = open_on(store.backend, tmp_path / "cache")
    late = sweep.Collector(other.backend, other.nodes, other.objects, other.ledger, clock=lambda: later)
    assert late.plan().objects == 2
    store.backend.put("sessions/1/heartbeat.json", b'{"started": "2020-01-01T00:00:00+00:00"}')
    (beat,) = (tmp_path / "store" / "sessions").rglob("*.json")

    os.utime(beat, (later, later))
    assert late.plan().objects == 0


def test_only_what_was_marked_is_swept(tmp_path: Path) -> None:
    backend = prepare(tmp_path)
    first = collector(open_on(backend, tmp_path))
    name, plan = first.mark()
    store = open_on(backend, tmp_path)
    store.put("other", ("x", b"x" * 1000))
    with store.commit("other") as session:
        session.delete("x")
    drop(store, "other")
    keys = first.marked(name)
    collector(open_on(backend, tmp_path)).collect(keys)
    check(backend, tmp_path)
    left = collector(open_on(backend, tmp_path)).plan()
    assert plan.objects > 0
    assert left.objects > 0
    assert not keys & {key for key, _ in left.keys}


def test_nothing_is_taken_from_a_damaged_store(tmp_path: Path) -> None:
    backend = prepare(tmp_path)
    store = open_on(backend, tmp_path)
    tree = store["images"].body.tree
    backend.delete_many([f"nodes/{tree[:2]}/{tree[2:]}"])
    before = list(backend.list(""))
    with pytest.raises(KeyError):
        collector(open_on(backend, tmp_path)).collect()
    assert list(backend.list("")) == before


def test_a_sweep_whose_collector_is_gone_is_ended_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = prepare(tmp_path)
    with pytest.raises(Stopped):
        collector(open_on(StoppingBackend(backend, 8), tmp_path)).collect()
    assert any(opened.open for _, opened in open_on(backend, tmp_path).refresh().sweeps())
    collector(open_on(backend, tmp_path)).collect()
    assert any(opened.open for _, opened in open_on(backend, tmp_path).refresh().sweeps())  # it could still live
    monkeypatch.setattr(sweep, "is_gone", lambda token: True)
    assert collector(open_on(backend, tmp_path)).collect().closed == 1
    assert not any(opened.open for _, opened in open_on(backend, tmp_path).refresh().sweeps())


def test_a_dropped_commit_is_refused_and_led_past(tmp_path: Path) -> None:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    ids = [store.put("images", (f"{i}", b"x")).id for i in range(3)]
    store.publish([r.CommitDrop(repo="images", commits=(r.Dropped(id=ids[1], parents=(ids[0],)),))])
    assert store["images@master^"].id == ids[0]
    with pytest.raises(KeyError):
        store.set_branch("images", "back", f"images@{ids[1]}")
    with pytest.raises(KeyError):
        store.publish([r.TagSet(repo="images", tag="t", commit=ids[1])])
    assert [head.commit for head in store.state.history("images")] == [ids[2], ids[0]]


def test_a_session_that_writes_for_long_says_so_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editing, "BEAT_EVERY_S", 0.0)
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    with store.commit("images") as session:
        session.put([("a", b"a" * 300), ("b", b"b" * 300)])
        assert [key.rpartition("/")[2] for key, _ in store.backend.list("sessions/")] == ["heartbeat.json"]
    assert list(store.backend.list("sessions/")) == []
