"""Egress: what a pipeline published arrives elsewhere, at least once, and is owed until it has."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

import dmlpipe as dml
from dmlpipe.scheduler.egress import sending
from dmlpipe.scheduler.errors import JobFailed
from dmlpipe.scheduler.leases.inline import InlineExecutor
from dmlpipe.scheduler.report import Notice, Report
from dmlpipe.scheduler.specs.reader import Source, parse_specs
from dmlpipe.scheduler.store import Store
from dmlpipe.storage.errors import InvalidInputError

Run = Callable[..., list[str]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(f"memory://egress-{tmp_path.name}", cache_dir=tmp_path / "cache")


@pytest.fixture
def run(store: Store) -> Run:
    """Run what is due in this process; return what was told."""

    def call(*, check: bool = True) -> list[str]:
        told: list[str] = []

        def observer(report: Report) -> None:
            if isinstance(report, Notice):
                told.append(report.text)

        executor = InlineExecutor(store)
        try:
            store.run(executor=executor, observer=observer, check=check)
        finally:
            executor.close()
        return told

    return call


def put(store: Store, **files: str) -> None:
    with store.commit("in", create=True) as commit:
        for name, text in files.items():
            commit.write(f"/{name}", text)


def submit(store: Store, folder: Path, egress: dict[str, Any], line: str = "cp /pfs/in/* /pfs/out/") -> None:
    spec = {
        "pipeline": {"name": "copy"},
        "transform": {"cmd": ["sh", "-c", line]},
        "input": {"pfs": {"repo": "in", "glob": "/*"}},
        "egress": egress,
    }
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    store.submit(path)


# --- files ---


def test_files_arrive_and_only_changed_ones_are_sent_again(store: Store, run: Run, tmp_path: Path) -> None:
    put(store, a="1", b="2")
    submit(store, tmp_path, {"URL": f"file://{tmp_path}/out"})
    told = run()
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"a": "1", "b": "2"}
    assert told == [f"copy: egressing to file://{tmp_path}/out", f"copy: 2 files sent to file://{tmp_path}/out"]
    assert store.egressing() == set()
    put(store, b="3")
    assert run()[-1] == f"copy: 1 files sent to file://{tmp_path}/out"
    assert (tmp_path / "out" / "b").read_text() == "3"
    assert run() == [], "nothing is owed"


def test_what_vanishes_here_stays_there(store: Store, run: Run, tmp_path: Path) -> None:
    put(store, a="1", b="2")
    submit(store, tmp_path, {"object_storage": {"url": "memory://egress-target/x"}})
    run()
    with store.commit("in") as commit:
        commit.delete("/a")
    run()
    fs = fsspec.filesystem("memory")
    assert sorted(path.rpartition("/")[2] for path in fs.ls("/egress-target/x", detail=False)) == ["a", "b"]


def test_a_failed_egress_keeps_the_commit_fails_the_run_and_is_taken_up_by_the_next(
    store: Store, run: Run, tmp_path: Path
) -> None:
    put(store, a="1")
    (tmp_path / "out").write_text("a file where a folder should be")
    submit(store, tmp_path, {"url": f"file://{tmp_path}/out"})
    with pytest.raises(JobFailed, match="copy: egress to file://") as failed:
        run()
    assert not failed.value.summary.ok
    head = store.refresh().head("copy")
    assert store["copy"].read_text("/a") == "1"
    assert store.egressing() == {head}
    (tmp_path / "out").unlink()
    told = run()
    assert told[-1].startswith("copy: 1 files sent")
    assert (tmp_path / "out" / "a").read_text() == "1"
    assert store.refresh().head("copy") == head, "nothing was computed again"


def test_an_interrupted_egress_is_owed(store: Store, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, a="1", b="2")
    submit(store, tmp_path, {"url": f"file://{tmp_path}/out"})

    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sending.Egresses, "_end", killed)
        with pytest.raises(KeyboardInterrupt):
            run()
    # It arrived and nobody recorded it: at least once means again.
    assert len(store.egressing()) == 1
    assert run()[-1].startswith("copy: 2 files sent")


def test_another_target_is_owed_all_of_it(store: Store, run: Run, tmp_path: Path) -> None:
    put(store, a="1")
    submit(store, tmp_path, {"url": f"file://{tmp_path}/one"})
    run()
    submit(store, tmp_path, {"url": f"file://{tmp_path}/two"})
    run()
    assert (tmp_path / "two" / "a").read_text() == "1"
    job_count = len([job for _, job in store.refresh().jobs()])
    assert job_count == 1, "where it goes does not change what it is"


def test_a_failed_job_sends_nothing(store: Store, run: Run, tmp_path: Path) -> None:
    put(store, a="1")
    submit(store, tmp_path, {"url": f"file://{tmp_path}/out"}, line="exit 1")
    with pytest.raises(JobFailed):
        run()
    assert not (tmp_path / "out").exists()


# --- rows ---


def database(folder: Path) -> str:
    with sqlite3.connect(folder / "db") as connection:
        connection.execute("create table sales (shop text, amount integer, day date)")
        connection.execute("insert into sales values ('old', 1, '2020-01-01')")
        connection.execute("create table other (x text)")
        connection.execute("insert into other values ('stays')")
    return f"sqlite:///{folder}/db"


def rows(folder: Path, table: str = "sales") -> list[tuple[object, ...]]:
    with sqlite3.connect(folder / "db") as connection:
        return connection.execute(f"select * from {table} order by 1").fetchall()


TO_TABLE = 'mkdir -p /pfs/out/sales; cp /pfs/in/* "/pfs/out/sales/"'


@pytest.mark.parametrize("columns", [None, ["day", "shop", "amount"]])
def test_rows_of_csv_replace_those_of_the_table(
    store: Store, run: Run, tmp_path: Path, columns: list[str] | None
) -> None:
    lines = {"a": "bergen,3,2026-01-02\n", "b": "oslo,,2026-01-03\noslo,5,2026-01-04\n"}
    if columns:
        lines = {"a": "shop,amount,day\n" + lines["a"], "b": "2026-01-03,oslo,\n2026-01-04,oslo,5\n"}
    put(store, **lines)
    form = {"type": "CSV", **({"columns": columns} if columns else {})}
    submit(store, tmp_path, {"sql_database": {"url": database(tmp_path), "file_format": form}}, line=TO_TABLE)
    assert run()[-1].startswith("copy: 3 rows sent to sqlite:///")
    found = sorted(rows(tmp_path), key=lambda row: str(row[2]))
    assert found == [("bergen", 3, "2026-01-02"), ("oslo", None, "2026-01-03"), ("oslo", 5, "2026-01-04")]
    assert rows(tmp_path, "other") == [("stays",)]


def test_rows_of_json_are_objects(store: Store, run: Run, tmp_path: Path) -> None:
    put(store, a='{"shop": "a", "amount": 1}\n{"shop": "b", "amount": 2, "day": "2026-01-01"}')
    egress = {
        "sql_database": {"url": database(tmp_path), "file_format": {"type": "JSON", "columns": ["shop", "amount"]}}
    }
    submit(store, tmp_path, egress, line=TO_TABLE)
    run()
    assert rows(tmp_path) == [("a", 1, None), ("b", 2, None)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("bergen,many,2026-01-02\n", "row 1"),
        ("bergen,1\n", "has 2 values, expected 3"),
    ],
)
def test_one_wrong_row_changes_nothing_in_the_database(
    store: Store, run: Run, tmp_path: Path, content: str, message: str
) -> None:
    put(store, a="bergen,3,2026-01-02\n", b=content)
    egress = {"sql_database": {"url": database(tmp_path), "file_format": {"type": "CSV"}}}
    submit(store, tmp_path, egress, line=TO_TABLE)
    with pytest.raises(JobFailed, match=message):
        run()
    assert rows(tmp_path) == [("old", 1, "2020-01-01")]


def test_a_table_that_is_not_there_is_named(store: Store, run: Run, tmp_path: Path) -> None:
    put(store, a="1\n")
    egress = {"sql_database": {"url": database(tmp_path), "file_format": {"type": "CSV"}}}
    submit(store, tmp_path, egress, line="mkdir /pfs/out/nowhere; cp /pfs/in/* /pfs/out/nowhere/")
    with pytest.raises(JobFailed, match="has no table 'nowhere'"):
        run()


def test_a_password_is_read_where_it_is_sent_from_and_told_nobody(
    store: Store, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, a="1\n")
    database_spec = {
        "url": "postgresql://ada@127.0.0.1:9/shop",
        "file_format": {"type": "CSV"},
        "secret": {"name": "db"},
    }
    submit(store, tmp_path, {"sql_database": database_spec}, line=TO_TABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "PACHYDERM_SQL_PASSWORD" not in os.environ
    with pytest.raises(JobFailed, match="secret 'PACHYDERM_SQL_PASSWORD=db/PACHYDERM_SQL_PASSWORD' is not there"):
        run()

    secret = tmp_path / ".config/dmlpipe/secrets/db/PACHYDERM_SQL_PASSWORD"
    secret.parent.mkdir(parents=True)
    secret.write_text("hunter2-hunter2")
    secret.chmod(0o600)
    with pytest.raises(JobFailed, match="egress to postgresql://ada") as failed:
        run()
    assert "hunter2" not in str(failed.value)


def test_a_python_dag_sends_rows(store: Store, tmp_path: Path) -> None:
    dag = dml.DAG("shop")

    @dag.pipeline(
        dml.files("given", "/*"), egress=dml.egress(database(tmp_path), rows="csv", columns=["shop", "amount"])
    )
    def copy(given: Path) -> dml.Files:
        return {f"sales/{given.name}": given.read_bytes()}

    with store.commit("given", create=True) as commit:
        commit.write("/a", "bergen,3\n")
        commit.write("/b", "oslo,5\n")
    dag.submit(store)
    executor = InlineExecutor(store, targets={"copy": copy})
    store.run(executor=executor)
    executor.close()
    assert rows(tmp_path) == [("bergen", 3, None), ("oslo", 5, None)]


# --- declarations ---


@pytest.mark.parametrize(
    ("egress", "message"),
    [
        ({"url": "a", "object_storage": {"url": "b"}}, "expected one of url, object_storage, sql_database"),
        ({"sql_database": {"url": "sqlite://"}}, "required field 'type' is missing"),
        ({"sql_database": {"url": "sqlite://", "file_format": {"type": "PARQUET"}}}, "type is not supported"),
        ({"sql_database": {"url": "sqlite://", "file_format": {"type": "XML"}}}, "expected CSV or JSON"),
        ({"ulr": "a"}, "unknown field 'ulr'"),
    ],
)
def test_a_wrong_egress_is_refused(egress: dict[str, Any], message: str) -> None:
    spec = {
        "pipeline": {"name": "p"},
        "transform": {"cmd": ["true"]},
        "input": {"pfs": {"repo": "a", "glob": "/"}},
        "egress": egress,
    }
    with pytest.raises(InvalidInputError, match=message):
        parse_specs(json.dumps(spec), Source("s.json"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"url": ""}, "expected a URL"),
        ({"url": "sqlite://", "rows": "parquet"}, 'rows: expected "csv" or "json"'),
        ({"url": "sqlite://", "rows": "csv", "columns": "a"}, "columns: expected a list of names"),
        ({"url": "sqlite://", "rows": "csv", "secret": "db"}, 'secret: expected "name/key"'),
        ({"url": "s3://b", "columns": ["a"]}, "are those of a database"),
    ],
)
def test_a_wrong_egress_of_a_dag_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        dml.egress(**given)
