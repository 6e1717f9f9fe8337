"""Claims that changed code makes the same: results stand, and the claim is told wherever they are explained."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from dmlpipe.scheduler.leases.inline import InlineExecutor
from dmlpipe.scheduler.store import Store
from dmlpipe.storage.errors import InvalidInputError, NotFoundError

_names = itertools.count()
DAG = """\
from pathlib import Path
import dmlpipe as dml

dag = dml.DAG("d")


@dag.pipeline(dml.files("texts", "/{{stem}}.txt"))
def upper(texts: bytes, stem: str) -> dml.Files:
    return {{f"{{stem}}.up": {expression}}}
"""
FIRST, EQUAL, OTHER = "texts.upper()", "texts.decode().upper().encode()", "texts.upper() if stem != 'b' else b'other'"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.init(f"memory://sameness-{next(_names)}", cache_dir=tmp_path / "cache")
    with store.commit("texts") as session:
        for name in "abc":
            session.write(f"{name}.txt", name)
    write(tmp_path, FIRST)
    store.submit(tmp_path / "dag.py")
    run(store)
    return store


def write(folder: Path, expression: str) -> Path:
    (folder / "dag.py").write_text(DAG.format(expression=expression))
    return folder / "dag.py"


def run(store: Store) -> list[tuple[str, int, int]]:
    executor = InlineExecutor(store)
    try:
        summary = store.run(executor=executor, check=False)
    finally:
        executor.close()
    return [(job.state, job.counters.run, job.counters.skipped) for job in summary.jobs]


def test_a_claim_lets_results_stand_and_is_told(store: Store, tmp_path: Path) -> None:
    file = write(tmp_path, EQUAL)
    (submitted,) = store.submit(file, same=["upper"], why="only spelled differently")
    assert (submitted.status, submitted.version) == ("claimed", 2)
    assert run(store) == []
    with store.commit("texts") as session:
        session.write("d.txt", "d")
    assert run(store) == [("done", 1, 3)]
    for path in ("/a.up", "/d.up"):
        code = store.why(f"upper:{path}").code
        assert code is not None
        assert code.claim.startswith("v2 is said to make what v1 made: by ")
        assert code.claim.endswith("only spelled differently")
    assert [code.version for path in ("a", "d") if (code := store.why(f"upper:/{path}.up").code)] == [1, 2]
    (plan,) = store.plan().pipelines
    assert "same as v1" in plan.notices[0]


def test_the_claimed_code_need_not_be_claimed_again(store: Store, tmp_path: Path) -> None:
    file = write(tmp_path, EQUAL)
    store.submit(file, same=["upper"])
    assert [each.status for each in store.submit(file)] == ["same"]
    assert [plan.status for plan in store.plan(file).pipelines] == ["up to date"]
    store.submit(write(tmp_path, FIRST))
    assert [each.status for each in store.submit(write(tmp_path, EQUAL))] in (["cosmetic"], ["claimed"])
    assert run(store) == []
    store.submit(write(tmp_path, OTHER))
    assert run(store) == [("done", 3, 0)], "no claim covers what comes after"


def test_equal_samples_let_results_stand_and_are_counted(store: Store, tmp_path: Path) -> None:
    n = store.refresh().n
    (submitted,) = store.submit(write(tmp_path, EQUAL), if_same=2)
    assert (submitted.status, submitted.why) == ("claimed", ("same as v1: 2 datums compared",))
    assert store.refresh().n == n + 1, "comparing writes nothing"
    assert run(store) == []
    claim = store.pipeline_spec("upper").claim
    assert claim is not None
    assert claim.compared == 2


def test_a_sample_that_differs_is_told_and_everything_is_computed(store: Store, tmp_path: Path) -> None:
    (submitted,) = store.submit(write(tmp_path, OTHER), if_same=20)
    assert submitted.status == "changed"
    assert submitted.notices == ("3 datums compared with those of v1: 1 differ, first texts:/b.txt",)
    assert run(store) == [("done", 3, 0)]


def test_code_that_fails_is_not_the_same(store: Store, tmp_path: Path) -> None:
    (submitted,) = store.submit(write(tmp_path, "b'' + 1"), if_same=1)
    assert submitted.status == "changed"
    assert "1 differ" in submitted.notices[0]


def test_an_edit_that_changes_nothing_compares_nothing(store: Store, tmp_path: Path) -> None:
    (submitted,) = store.submit(write(tmp_path, f"({FIRST})"), if_same=5)
    assert (submitted.status, submitted.notices) == ("cosmetic", ())


@pytest.mark.parametrize(
    ("edit", "same", "message"),
    [
        (("/{stem}.txt", "/?{stem}.txt"), "upper", "cannot be the same as before: declared input changed"),
        (("def upper", "def lower"), "lower", "is new"),
        (("", ""), "uper", "no pipeline 'uper'"),
    ],
)
def test_what_cannot_be_claimed_is_refused(
    store: Store, tmp_path: Path, edit: tuple[str, str], same: str, message: str
) -> None:
    file = write(tmp_path, EQUAL)
    file.write_text(file.read_text().replace(*edit))
    n = store.refresh().n
    with pytest.raises((InvalidInputError, NotFoundError), match=message):
        store.submit(file, same=[same])
    assert store.refresh().n == n


def test_a_salt_outlives_a_claim_and_the_other_way_round(store: Store, tmp_path: Path) -> None:
    file = write(tmp_path, EQUAL)
    store.submit(file, same=["upper"])
    store.submit(file, reprocess=True)
    assert run(store) == [("done", 3, 0)]
    assert [each.status for each in store.submit(file)] == ["same"]
    assert [plan.status for plan in store.plan(file).pipelines] == ["up to date"]
