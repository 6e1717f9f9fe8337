from __future__ import annotations

import json
from pathlib import Path

import pytest

from dmlpipe.benchmarks import storage


@pytest.mark.slow
def test_the_storage_benchmark_compares_what_comes_back_and_counts(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    small = ["--files", "30", "--large-mib", "8", "--entries", "5000", "--commits", "2", "--rounds", "1"]
    storage.main(
        [*small, "--peers", "git", "dvc", "--dvc", "no-such-program", "--dir", str(tmp_path), "--out", str(out)]
    )
    result = json.loads(out.read_text())
    assert out.with_suffix(".svg").stat().st_size > 1000
    for workload in result["workloads"].values():
        steps = {(row["contender"], row.get("step")) for row in workload["rows"]}
        assert {("dmlpipe", step) for step in storage.STEPS} | {("cp -r", "put"), ("cp -r", "get")} <= steps
        assert ("dvc", None) in steps  # absent, and said so
    assert result["versions"]["dvc"] == "absent"
    parts = result["parts"]
    assert parts["ledger"]["commits"] == 16
    assert parts["ledger"]["failed_processes"] == 0
    assert parts["ledger"]["group_entries"] < 64 * 50
    assert parts["tree"]["diff_10"]["found"] == 10
    assert parts["tree"]["list_folder"]["found"] == 1000
    assert {limit["work"] for limit in result["limits"] if limit["holds"] is None} >= {"dvc status / diff"}
