"""The incremental benchmark runs with a dozen files: it checks counts and outputs itself; seconds, nobody does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dmlpipe.benchmarks import incremental
from dmlpipe.benchmarks.builders import Builder, builders


@pytest.mark.parametrize("name", ["a plain loop, which redoes all", "joblib.Memory"])
def test_scripts_make_what_the_others_make(tmp_path: Path, name: str) -> None:
    script = next(builder for builder in builders()[0] if builder.name == name)
    steps = [figure.step for figure in incremental.measure(script, tmp_path, 12)]
    assert steps == [step for step in incremental.STEPS if not step.startswith("plan")]


@pytest.mark.slow
def test_every_step_is_timed_and_every_output_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLPIPE_FSYNC", "never")
    out = tmp_path / "result.json"
    incremental.main(
        ["--sizes", "12", "--rounds", "1", "--only", "function", "make", "--dir", str(tmp_path), "--out", str(out)]
    )
    result = json.loads(out.read_text())
    found = {(row["contender"], row["step"]) for row in result["figures"]}
    assert found == {(name, step) for name in ("dmlpipe, a function", "GNU make") for step in incremental.STEPS}
    assert out.with_suffix(".svg").read_text().startswith("<?xml")


def test_figures_of_plans_alone_are_written_and_not_drawn(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    figures = incremental.report([incremental.Figure("GNU make", 10_000, "plan, 0 changed", 0.4)])
    incremental._write(out, {"figures": figures})
    assert json.loads(out.read_text())["figures"] == figures
    assert not out.with_suffix(".svg").exists()


def test_a_wrong_output_gives_no_figures(tmp_path: Path) -> None:
    make = next(builder for builder in builders()[0] if builder.name == "GNU make")
    with pytest.raises(RuntimeError, match="made"):
        incremental._expect(_prepared(make, tmp_path), tmp_path, [0], "second")


def test_a_contender_with_figures_is_not_missing_though_a_later_call_does_not_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "result.json"
    row = {"contender": "DVC", "files": 10, "step": "run, 10 changed", "rounds": 1}
    spread = {"median": 1.0, "low": 1.0, "high": 1.0}
    out.write_text(json.dumps({"figures": [{**row, "seconds": spread, "outside_s": spread}]}))
    make = [builder for builder in builders()[0] if builder.name == "GNU make"]
    monkeypatch.setattr(incremental, "builders", lambda: (make, ["snakemake", "dvc"]))
    incremental.main(["--sizes", "2", "--rounds", "1", "--dir", str(tmp_path), "--out", str(out)])
    result = json.loads(out.read_text())
    assert result["missing"] == ["snakemake"]
    assert {row["contender"] for row in result["figures"]} == {"DVC", "GNU make"}


def _prepared(make: Builder, folder: Path) -> Builder:
    make.set_up(folder, 1)
    assert make.done is not None
    make.done(folder, 1, "first")
    return make
