from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from dmlpipe.scheduler.inputs.combine import cross
from dmlpipe.scheduler.inputs.leaf import files, values
from dmlpipe.scheduler.leases.inline import InlineExecutor
from dmlpipe.scheduler.pipelines.dag import DAG, Files
from dmlpipe.scheduler.planning.rows import datum_rows, find_datum, read_log
from dmlpipe.scheduler.store import Store
from dmlpipe.storage.errors import NotFoundError

dag = DAG("rows")


@dag.pipeline(cross(files("texts", "/{stem}.txt"), values(n=[1, 2])))
def repeated(texts: bytes, stem: str, n: int) -> Files:
    if stem == "b" and n == 2:
        raise ValueError("no second b")
    return {f"{stem}{n}": texts * n}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.init(f"memory://{uuid.uuid4().hex}", cache_dir=tmp_path / "cache")
    with store.commit("texts") as session:
        session.write("a.txt", "x")
        session.write("b.txt", "y")
    store.submit(dag)
    executor = InlineExecutor(store, targets={"repeated": repeated})
    store.run(executor=executor, check=False)
    executor.close()
    return store


def job_of(store: Store) -> str:
    return next(name for name, _ in store.refresh().jobs("repeated"))


def test_a_job_lists_its_datums_with_their_inputs(store: Store) -> None:
    rows = {row.shown: row for row in datum_rows(store, job_of(store))}
    assert set(rows) == {f"texts:/{stem}.txt n={n}" for stem in "ab" for n in (1, 2)}
    failed = rows["texts:/b.txt n=2"]
    assert (failed.outcome, failed.outputs) == ("failed", ())
    assert failed.failure is not None
    assert failed.to_dict()["failure"]["message"] == "no second b"
    assert rows["texts:/a.txt n=1"].outputs == ("a1",)


def test_a_datum_is_found_by_id_and_input(store: Store) -> None:
    row = next(row for row in datum_rows(store, job_of(store)) if row.outcome == "failed")
    assert find_datum(store, row.id[:10]) == row
    assert "texts:/b.txt" in find_datum(store, "texts:/b.txt").shown
    assert read_log(store, row) == b""


@pytest.mark.parametrize("name", ["abcdef", "texts:/z.txt", "texts:/"])
def test_a_datum_that_never_was_is_not_found(name: str, store: Store) -> None:
    with pytest.raises(NotFoundError, match="no datum"):
        find_datum(store, name)


def test_a_job_that_never_was_has_no_rows(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no job"):
        list(datum_rows(store, "f" * 16))
