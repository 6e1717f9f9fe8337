from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from dmlpipe.storage.ledger.ledger import entry_key
from dmlpipe.storage.store import Store

BIG = os.urandom(2 << 20)
SMALL = os.urandom(3000)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    for index in range(33):
        store.put("r", (f"n/{index}", str(index).encode()))
    store.put("r", ("big", BIG), ("small", SMALL))
    return store


def one_key(store: Store, prefix: str) -> str:
    return next(key for key, _ in store.backend.list(prefix))


def flip(store: Store, key: str, position: int | None = None) -> None:
    data = bytearray(store.backend.get(key))
    data[random.randrange(len(data)) if position is None else position] ^= 1
    store.backend.put(key, bytes(data))


def test_a_sound_store_has_no_problems(store: Store) -> None:
    heard: set[str] = set()
    report = store.fsck(progress=lambda what, count: heard.add(what))
    assert report.ok
    assert (report.entries, report.commits, report.orphans) == (34, 34, 0)
    assert report.to_dict()["ok"] is True
    assert {"ledger", "nodes", "objects", "packs", "commits"} <= heard


@pytest.mark.parametrize("prefix", ["nodes/", "objects/", "packs/", "index/", "ledger/000000000/", "ledger/ckpt/"])
def test_a_flipped_byte_is_found_in_every_kind_of_object(store: Store, prefix: str) -> None:
    key = one_key(store, prefix)
    for position in (0, -1, None):
        flip(store, key, position)
        report = store.fsck()
        assert key in [problem.object for problem in report.problems], prefix
        if position is not None:
            flip(store, key, position)


def test_a_damaged_object_says_what_it_touches(store: Store) -> None:
    flip(store, one_key(store, "objects/"), 5)
    (problem,) = store.fsck().problems
    assert (problem.kind, problem.touches) == ("damaged", ("r@master:/big",))


def test_a_damaged_pack_says_which_files_it_touches(store: Store) -> None:
    flip(store, one_key(store, "packs/"), 5)
    problems = {problem.kind: problem for problem in store.fsck().problems}
    assert problems["damaged"].object.startswith("packs/")
    assert problems["missing"].touches == ("r@master:/small",)


def test_a_missing_object_is_found(store: Store) -> None:
    commit = store["r"]
    root = commit.body.tree
    for key, kind, touches in [
        (one_key(store, "objects/"), "missing", ("r@master:/big",)),
        (f"nodes/{root[:2]}/{root[2:]}", "missing", ("r@master",)),
        (f"nodes/{commit.id[:2]}/{commit.id[2:]}", "missing", ("r@master",)),
    ]:
        body = store.backend.get(key)
        store.backend.delete_many([key])
        found = [problem for problem in store.fsck().problems if problem.object == key]
        assert [(problem.kind, problem.touches) for problem in found] == [(kind, touches)]
        store.backend.put(key, body)
    assert store.fsck().ok


def test_a_missing_entry_is_found(store: Store) -> None:
    store.backend.delete_many([entry_key(7)])
    report = store.fsck()
    assert [(problem.kind, problem.object) for problem in report.problems if problem.kind == "ledger"] == [
        ("ledger", entry_key(7))
    ]


def test_a_changed_last_entry_is_found_by_who_saw_it(store: Store) -> None:
    key = entry_key(store.refresh().n)
    store.backend.put(key, store.backend.get(key).replace(b"@", b"%", 1))
    (problem,) = store.fsck().problems
    assert (problem.kind, problem.object) == ("ledger", key)
    store.backend.delete_many([key])
    assert [problem.object for problem in store.fsck().problems if problem.kind == "ledger"] == [key]


def test_a_forged_checkpoint_is_found(store: Store) -> None:
    other = Store.init("memory://fsck-other")
    for index in range(32):
        other.put("x", (str(index), b""))
    key = one_key(store, "ledger/ckpt/")
    store.backend.put(key, other.backend.get(key))
    (problem,) = store.fsck().problems
    assert (problem.kind, problem.object) == ("derived", key)


def test_what_a_crash_left_is_counted_not_blamed(store: Store) -> None:
    session = store.commit("r")
    session.write("x", os.urandom(3000))
    session.writer.flush()
    session.abort()
    report = store.fsck()
    assert report.ok
    assert report.orphans == 2


def test_damage_in_what_nothing_refers_to_touches_nothing(store: Store) -> None:
    session = store.commit("r")
    session.write("x", os.urandom(2 << 20))
    session.abort()
    before = {key for key, _ in store.backend.list("objects/")}
    name = next(key for key in before if store.backend.size(key) == 2 << 20 and store.backend.get(key) != BIG)
    flip(store, name)
    (problem,) = store.fsck().problems
    assert problem.touches == ()
