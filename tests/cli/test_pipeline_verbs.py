"""Verbs on pipelines and datums that people type after an edit or a failure."""

from __future__ import annotations

from pathlib import Path

from dmlpipe.scheduler.leases.inline import InlineExecutor
from dmlpipe.scheduler.store import Store

from .conftest import Cli
from .test_work_verbs import filled, work

__all__ = ["filled", "work"]


def test_versions_and_their_differences_are_shown(work: Path, cli: Cli) -> None:
    dag = work / "dag.py"
    dag.write_text(dag.read_text().replace("* factor", "* factor * 2"))
    cli("submit", "dag.py")
    listed = cli("pipeline", "versions", "counts")
    assert [line.split()[:2] for line in listed.lines] == [["v2", "changed"], ["v1", "new"]]
    assert "code changed: counts(), dag.py:7" in listed.out
    shown = cli("pipeline", "diff", "counts", "--exit-code")
    assert shown.code == 3
    assert '+    return {f"{stem}.json": str(len(texts.read_text()) * factor * 2)}' in shown.lines
    assert cli("pipeline", "diff", "total", "--exit-code").code == 0
    (record,) = cli("--json", "pipeline", "diff", "counts", "1", "2").records
    assert (record["old"], record["new"], len(record["why"])) == (1, 2, 1)
    assert cli("pipeline", "diff", "counts", "1", "9").code == 1


def test_datums_are_ordered_anew(work: Path, cli: Cli) -> None:
    assert "2 datums anew" in cli("pipeline", "reprocess", "counts", "--datum", "/[ab].txt").out
    assert "2 of 3" in cli("plan", "counts").out
    assert "forced: asked for" in cli("plan", "counts").out
    assert "counts will compute texts:/c.txt anew" in cli("datum", "restart", "counts:/c.json").out
    assert "3 of 3" in cli("plan", "counts").out
    assert "no datum of total failed" in cli("pipeline", "reprocess", "total", "--only-failed").out
    refused = cli("pipeline", "reprocess", "counts", "--datum", "/z*")
    assert (refused.code, "no datum '/z*'" in refused.err) == (1, True)
    assert cli("pipeline", "reprocess", "counts", "--datum", "/a.txt", "--only-failed").code == 2


def test_a_pipeline_is_deleted_with_its_repo_or_without(work: Path, cli: Cli) -> None:
    refused = cli("pipeline", "delete", "counts")
    assert refused.code == 2
    assert "--keep-repo" in refused.err
    assert cli("pipeline", "delete", "counts", "--keep-repo").code == 0
    assert cli("ls", "counts").code == 0
    assert cli("pipeline", "delete", "total").code == 0
    assert cli("ls", "total").code == 1


def test_a_commit_says_how_many_datums_it_lacks(work: Path, cli: Cli) -> None:
    dag = work / "dag.py"
    dag.write_text(
        dag.read_text()
        .replace('"/{stem}.txt")', '"/{stem}.txt"), max_failures=1')
        .replace('print("counting", stem)', 'assert stem != "b", "not this one"')
    )
    cli("submit", "dag.py")
    store = Store.open(work / ".dmlpipe")
    executor = InlineExecutor(store)
    store.run(executor=executor)
    executor.close()
    shown = cli("commit", "inspect", "counts")
    (line,) = [line for line in shown.lines if line.startswith("failed")]
    assert line.split()[1] == "1"
    words = line.partition("dmlpipe ")[2].rstrip(")").split()
    assert "not this one" in cli(*words).out
    (record,) = cli("--json", "commit", "inspect", "counts").records
    assert record["failed"] == 1
    assert "failed" not in cli("commit", "inspect", "total").out
