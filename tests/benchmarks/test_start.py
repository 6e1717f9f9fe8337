"""The start benchmark runs every command once; seconds are not asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dmlpipe.benchmarks import start
from dmlpipe.benchmarks.start import report


def test_every_command_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "HELP_LIMIT", float("inf"))
    out = tmp_path / "result.json"
    start.main(["--rounds", "1", "--heavy-rounds", "1", "--out", str(out)])
    rows = json.loads(out.read_text())["commands"]
    assert {row["command"]: row["rounds"] for row in rows} == dict.fromkeys(
        (
            "python -c pass",
            "python -c 'import click'",
            "dmlpipe --help",
            "dmlpipe ls",
            "dmlpipe ls REPO",
            "dmlpipe run, nothing to do",
            "dmlpipe run, one datum",
        ),
        1,
    )


def test_a_command_with_fewer_rounds_is_compared_with_its_own() -> None:
    rows = report({"python -c 'import click'": [0.1, 0.2, 9.0], "dmlpipe run, one datum": [1.0, 1.0]})
    assert rows[1]["to_click"] == {"median": 7.5, "low": 5.0, "high": 10.0}
    assert rows[1]["rounds"] == 2
