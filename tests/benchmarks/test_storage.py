from __future__ import annotations

import dataclasses
import json
import os
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


def test_the_large_file_that_changes_is_written_anew_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "class_0000" / "img_0000000.bin"
    file.parent.mkdir()
    file.touch()
    os.truncate(file, storage.LARGE.least_bytes)
    dataclasses.replace(storage.LARGE, files=1, folders=1).change(tmp_path, 1)
    with open(file, "rb") as changed:
        assert changed.read(64) != bytes(64)
        changed.seek(-64, os.SEEK_END)
        assert changed.read() != bytes(64)
    assert file.stat().st_size == storage.LARGE.least_bytes
