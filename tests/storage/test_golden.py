"""Stores that earlier versions wrote must be read as they were, and what is written today must be named as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dmlpipe.scheduler.jobs.results import Results
from dmlpipe.storage.digest import from_hex
from dmlpipe.storage.layout import Kind, kind_of
from dmlpipe.storage.objects.compression import decompress
from dmlpipe.storage.objects.node import NodeStore
from dmlpipe.storage.store import Store
from dmlpipe.storage.trees.prolly import Tree

from ..data.golden.generate import expected, fill
from .fsck.everything import RUNNING

CHECKPOINTS = "ledger/ckpt/"
GOLDEN = Path(__file__).parent.parent / "data" / "golden"


@pytest.fixture
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_text())
    return found


@pytest.fixture
def golden(tmp_path: Path) -> Store:
    return Store.open(GOLDEN / "store", cache_dir=tmp_path / "cache", read_only=True)


def still_holds(now: Any, then: Any) -> bool:
    """Whether everything that was said then is said now; fields may have been added."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(key in now and still_holds(now[key], old) for key, old in then.items())
    if isinstance(then, list):
        return len(now) == len(then) and all(still_holds(one, old) for one, old in zip(now, then, strict=True))
    return bool(now == then)


def test_the_golden_store_reads_as_it_was_written(golden: Store, recorded: dict[str, Any]) -> None:
    now = expected(golden)
    assert now["refs"] == recorded["refs"]
    assert still_holds(now, recorded)


def test_the_golden_store_is_sound(golden: Store) -> None:
    report = golden.fsck()
    assert report.problems == ()
    assert report.ignored == ()
    # Its checkpoints are of an earlier fold: nobody goes on from them, and what only they refer to is nobody's.
    nodes = NodeStore(golden.backend)
    olds = [
        msgspec.msgpack.decode(decompress(golden.backend.get(key), key)) for key, _ in golden.backend.list(CHECKPOINTS)
    ]
    assert {old["v"] for old in olds} == {1}
    assert report.orphans == len({node for old in olds for node in Tree(nodes, from_hex(old["state"])).walk_nodes()})


def test_the_golden_store_has_every_kind_of_object(golden: Store) -> None:
    kinds = {key.partition("/")[0] for key, _ in golden.backend.list()}
    assert kinds == {"dmlpipe.json", "index", "ledger", "nodes", "objects", "packs", "results"}
    assert any(key.startswith(CHECKPOINTS) for key, _ in golden.backend.list())


def test_what_is_written_today_has_the_same_trees(recorded: dict[str, Any]) -> None:
    store = Store.init("memory://golden-again")
    fill(store)
    now = expected(store)
    for ref, described in recorded["refs"].items():
        assert now["refs"][ref]["tree"] == described["tree"], ref
        assert now["refs"][ref]["files"] == described["files"], ref
    assert now["n"] == recorded["n"]


# --- every kind of object, open commits and a running job among them ---


@pytest.fixture
def every(tmp_path: Path) -> Store:
    shutil.copytree(GOLDEN / "every", tmp_path / "every")
    return Store.open(tmp_path / "every", cache_dir=tmp_path / "cache")


def test_the_store_with_every_kind_of_object_is_sound(every: Store) -> None:
    assert {kind_of(key) for key, _ in every.backend.list()} == set(Kind)
    report = every.fsck()
    assert (report.problems, report.ignored) == ((), ())


def test_an_open_commit_of_then_is_committed_now(every: Store) -> None:
    (opened,) = [each for each in every.open_commits() if list(every.backend.list(f"sessions/{each.id}/w-"))]
    assert (opened.info.message, opened.info.base) == ("by many", every["r"].id)
    assert opened.commit().read_bytes("c") == b"c" * 200


def test_a_job_that_ran_then_is_taken_up_now(every: Store) -> None:
    results = Results.resume(every, RUNNING)
    (row,) = results.rows()
    assert (row[0], row[1].outputs[0][0], results.fold) == (b"b.png", "b.json", 1)
