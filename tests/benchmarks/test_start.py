"""The start benchmark runs every command once; seconds are not asserted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dmlpipe.benchmarks import reaction, start
from dmlpipe.benchmarks.specs_work import write_specs
from dmlpipe.benchmarks.start import Taken, report
from dmlpipe.scheduler.specs.check import check_specs


def test_every_command_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "HELP_LIMIT", float("inf"))
    monkeypatch.setattr(start, "CHECK_LIMIT_S", float("inf"))
    out = tmp_path / "result.json"
    start.main(["--rounds", "1", "--heavy-rounds", "1", "--reactions", "2", "--out", str(out)])
    result = json.loads(out.read_text())
    rows = result["commands"]
    assert {row["command"]: row["rounds"] for row in rows} == dict.fromkeys(
        (
            "python -c pass",
            "python -c 'import click'",
            "dmlpipe --help",
            "dmlpipe ls",
            "dmlpipe ls REPO",
            "dmlpipe submit --check, 40 specs",
            "dmlpipe run, nothing to do",
            "dmlpipe run, one datum",
        ),
        1,
    )
    assert list(result["reactions"]) == ["a folder"]
    assert result["reactions"]["a folder"]["low"] > 0


@pytest.mark.s3
def test_commits_to_a_bucket_start_jobs_too(tmp_path: Path) -> None:
    dag = tmp_path / "dag.py"
    dag.write_text(start.DAG)
    before = dict(os.environ)
    found = reaction.measure(tmp_path, dag, 1, bucket=True)
    assert {place: len(values) for place, values in found.items()} == {"a folder": 1, "a bucket": 1}
    assert dict(os.environ) == before


def test_a_command_with_fewer_rounds_is_compared_with_its_own() -> None:
    click = [Taken(seconds, 0.0) for seconds in (0.1, 0.2, 9.0)]
    rows = report({"python -c 'import click'": click, "dmlpipe run, one datum": [Taken(1.0, 0.5), Taken(1.0, 1.5)]})
    assert rows[1]["cpu"] == {"median": 1.0, "low": 0.5, "high": 1.5}
    assert rows[1]["to_click"] == {"median": 7.5, "low": 5.0, "high": 10.0}
    assert rows[1]["rounds"] == 2


def test_the_specifications_are_forty_and_all_can_be_judged(tmp_path: Path) -> None:
    verdicts = check_specs(write_specs(tmp_path / "specs"), repos=())
    assert [verdict.verdict for verdict in verdicts] == ["ok with notices"] * 40
    assert len({verdict.pipeline for verdict in verdicts}) == 40
    assert all(verdict.scripts and verdict.secrets for verdict in verdicts)
