"""Logs of processes: found by `logs`, a JSON object a line where asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dmlpipe.storage.logs import FORMAT_VARIABLE
from tests.cli.conftest import Cli

DAG = """
import dmlpipe as dml

dag = dml.DAG("logged")


@dag.pipeline(dml.files("texts", "/{stem}"), max_failures=9)
def upper(texts: bytes, stem: str) -> dml.Files:
    if stem == "bad":
        raise ValueError("not this one")
    return {stem: texts.upper()}
"""


@pytest.fixture(autouse=True)
def own_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORMAT_VARIABLE, "text")  # what --log-format sets is taken back after the test


def test_each_datum_and_process_has_a_line_that_logs_finds(cli: Cli, here: Path) -> None:
    (here / "dag.py").write_text(DAG)
    assert cli("init").code == 0
    answer = cli("logs")
    assert (answer.code, "no cluster of this host" in answer.err) == (1, True)
    for name in ("good", "bad"):
        (here / name).write_text(name)
        assert cli("put", "texts", here / name).code == 0
    assert cli("--log-format", "json", "run", "dag.py", "-j", "1", "-q").code == 0
    lines = cli("logs", "--json").records
    assert {line["process"] for line in lines} == {"worker"}
    datums = {line["outcome"]: line for line in lines if line.get("event") == "datum"}
    assert set(datums) == {"ok", "failed"}
    assert datums["failed"]["failure"] == "ValueError: not this one"
    assert datums["ok"]["slot"] == 0
    # One datum, by its id; what is printed is the line itself.
    (line,) = cli("logs", "worker", "--datum", datums["ok"]["datum"]).lines
    assert json.loads(line) == datums["ok"]
    assert len(cli("logs", "--job", datums["ok"]["job"][:8]).lines) == 2
    answer = cli("logs", "nobody")
    assert (answer.code, answer.err) == (1, "note: no log of nobody; there are: worker\n")
    assert "nothing about datum 0123" in cli("logs", "--datum", "0123").err
