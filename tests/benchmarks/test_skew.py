"""The skew benchmark, small: its counts are asserted, never how even the slots ended."""

from __future__ import annotations

import json
from pathlib import Path

from dmlpipe.benchmarks import skew


def test_the_last_datums_take_a_hundred_times_as_long_and_all_are_counted(tmp_path: Path) -> None:
    skew.main(["--datums", "200", "--short-ms", "0.5", "--slots", "3", "--rounds", "1", "--out", str(tmp_path / "r")])
    (run,) = json.loads((tmp_path / "r").read_text())["runs"]
    assert (run["slots"], run["datums"]) == (3, 200)
    assert run["work_s"] >= 198 * 0.0005 + 2 * 0.05
    assert 0 < run["efficiency"] <= 1
