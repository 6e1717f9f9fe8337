"""What an open commit needs is checked like what is published, and damage names it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from dmlpipe.storage.errors import ConflictError
from dmlpipe.storage.fsck import Problem, Report
from dmlpipe.storage.gc.sweep import Collector
from dmlpipe.storage.sessions.open_commit import OpenCommit
from dmlpipe.storage.store import Store

SMALL, WHOLE, PIECES = 3_000, 2 << 20, 20 << 20
CONTENT = {name: random.Random(size).randbytes(size) for name, size in (("s", SMALL), ("w", WHOLE), ("p", PIECES))}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    store.put("r", ("before", os.urandom(SMALL)))
    return store


def keys(store: Store) -> set[str]:
    return {key for key, _ in store.backend.list()}


def begun(store: Store) -> tuple[OpenCommit, set[str]]:
    """An open commit with one writer's files, and the keys that this stored."""
    before = keys(store)
    opened = store.open_commit("r")
    with opened.writer("alice") as writer:
        for name, content in CONTENT.items():
            writer.write(f"/new/{name}", content)
    return opened, keys(store) - before


def flip(store: Store, key: str) -> None:
    data = bytearray(store.backend.get(key))
    data[len(data) // 2] ^= 1
    store.backend.put(key, bytes(data))


def delete(store: Store, key: str) -> None:
    store.backend.delete_many([key])


def touched(problem: Problem) -> set[str]:
    assert {touch.what for touch in problem.touches} == {"open commit"}, problem
    return {touch.name for touch in problem.touches}


def of(report: Report, key: str) -> Problem:
    (found,) = [problem for problem in report.problems if problem.object == key]
    return found


def test_a_sound_open_commit_is_no_problem_and_no_orphan(store: Store) -> None:
    opened, stored = begun(store)
    report = Store.open(store.url).fsck()
    assert report.problems == ()
    assert report.orphans == 0
    assert len(stored) > 5
    opened.commit()
    assert Store.open(store.url).fsck().ok


@pytest.mark.parametrize("harm", [flip, delete])
@pytest.mark.parametrize(
    ("prefix", "path"),
    [("packs/", "/new/s"), ("objects/", ""), ("nodes/", "/new/p"), ("index/", ""), ("sessions/", "")],
)
def test_whatever_it_needs_is_missed_and_names_it(
    store: Store, harm: Callable[[Store, str], None], prefix: str, path: str
) -> None:
    opened, stored = begun(store)
    name = f"open commit {opened.id} of r@master"
    needed = [key for key in sorted(stored) if key.startswith(prefix) and not key.endswith(".json")]
    assert needed
    for key in needed:
        kept = store.backend.get(key)
        harm(store, key)
        report = Store.open(store.url, cache_dir=store.cache_dir).fsck()
        if prefix == "sessions/" and harm is delete:
            # A part that is gone was never there: nothing else says so.
            assert report.problems == ()
        else:
            about = {each for problem in report.problems for each in touched(problem)}
            assert name in {each.partition(":")[0] for each in about}
            assert of(report, key).kind in ("damaged", "missing", "derived")
            assert f"{name}:{path}" in about or not path
        if store.backend.size(key) is not None:
            store.backend.delete_many([key])
        store.backend.put(key, kept)
    assert Store.open(store.url).fsck().ok


def test_a_lost_file_is_named_with_its_path_beside_the_commits_that_have_it(store: Store) -> None:
    store.put("other", ("w", CONTENT["w"]))
    opened, _ = begun(store)
    (key,) = [key for key in keys(store) if key.startswith("objects/") and store.backend.size(key) == WHOLE]
    delete(store, key)
    (problem,) = Store.open(store.url).fsck().problems
    names = {touch.what: touch.name for touch in problem.touches}
    assert names == {"file": "other@master:/w", "open commit": f"open commit {opened.id} of r@master:/new/w"}


def test_what_a_sweep_voided_is_the_commits_problem_not_the_stores(store: Store) -> None:
    opened, _ = begun(store)
    other = Store.open(store.url)
    assert Collector(other.backend, other.nodes, other.objects, other.ledger, grace_s=0).collect().objects > 0
    assert Store.open(store.url).fsck().problems == ()
    with pytest.raises(ConflictError, match="garbage collection"):
        opened.commit()


def test_what_was_aborted_is_an_orphan(store: Store) -> None:
    opened, stored = begun(store)
    opened.abort()
    report = Store.open(store.url).fsck()
    assert report.problems == ()
    assert report.orphans == len({key for key in stored if not key.startswith("sessions/")})


def test_repair_fetches_what_an_open_commit_needs(store: Store, tmp_path: Path) -> None:
    elsewhere = Store.init(tmp_path / "elsewhere", cache_dir=tmp_path / "cache2")
    elsewhere.put("copy", *CONTENT.items())
    opened, _ = begun(store)
    (key,) = [key for key in keys(store) if key.startswith("objects/") and store.backend.size(key) == WHOLE]
    delete(store, key)
    mended = Store.open(store.url).repair([elsewhere.backend])
    assert [each for each, _ in mended.mended] == [key]
    assert opened.commit().read_bytes("/new/w") == CONTENT["w"]
