"""The benchmark runs, small: its counts and its comparison of results are asserted, never its seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dmlpipe.benchmarks import inference
from dmlpipe.benchmarks.chart import draw
from dmlpipe.benchmarks.inference import Contender, Measured, Prepared, report, result_file, run_rounds
from dmlpipe.benchmarks.machine import ONE_THREAD, RESULTS
from dmlpipe.benchmarks.workloads import InferenceWorkload, scan_files

FILES = 20


def run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    out = tmp_path / "result.json"
    inference.main(["--files", str(FILES), "--trees", "5", "--rounds", "1", "--out", str(out), *arguments])
    result: dict[str, Any] = json.loads(out.read_text())
    return result


@pytest.fixture
def same_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back what the benchmark sets for its children."""
    for name in ONE_THREAD:
        monkeypatch.setenv(name, "1")


@pytest.mark.slow
@pytest.mark.usefixtures("same_environment")
def test_every_contender_labels_every_file_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # That all did so is what `run_rounds` insists on; see below that it does.
    result = run(tmp_path, "--slots", "2", "--dir", str(tmp_path))
    assert [(row["contender"], row["slots"]) for row in result["contenders"]] == [
        ("loop", 1),
        ("ProcessPool", 2),
        ("client.map", 2),
        ("client.map in 16s", 2),
        ("dask.bag", 2),
        ("dmlpipe", 2),
    ]
    assert result["workload"]["files"] == FILES
    assert len(result["workload"]["result_hash"]) == 64
    assert all(len(row["whole_s"]) == len(row["leased_s"]) == 1 for row in result["contenders"])
    assert all(0 < row["leased_s"][0] < row["whole_s"][0] for row in result["contenders"])
    # That it labelled one file of twenty again is what `measure` insists on.
    assert [row["contender"] for row in result["contenders"] if "second_s" in row] == ["dmlpipe"]
    assert set(result["versions"]) == set(inference.PACKAGES)
    assert (tmp_path / "result.svg").read_text().startswith("<?xml")
    assert "all 6 runs gave the same results" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json", "result.svg"]


def test_who_is_chosen_is_measured_beside_the_loop_and_the_pool() -> None:
    chosen = inference.contenders_for([1, 2], only=["dmlpipe"])
    assert [(each.name, each.slots) for each in chosen] == [
        ("loop", 1),
        ("ProcessPool", 1),
        ("ProcessPool", 2),
        ("dmlpipe", 1),
        ("dmlpipe", 2),
    ]
    assert len({each.name for each in inference.contenders_for([1])}) == 6
    assert len({each.name for each in inference.contenders_for([1], ray=True)}) == 7


@pytest.mark.parametrize(("computed", "results"), [(FILES - 1, "a"), (FILES, "b")])
def test_figures_of_different_results_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, computed: int, results: str
) -> None:
    from rich.console import Console

    found = {
        "loop": Measured(2.0, 1.0, 1.0, FILES, "a"),
        "dmlpipe": Measured(2.0, 1.0, 1.0, computed, results),
    }
    prepared = Prepared(tmp_path, "forest", tmp_path, tmp_path, tmp_path, 0, 0.0)
    monkeypatch.setattr(inference, "prepare", lambda *given, **options: prepared)
    monkeypatch.setattr(inference, "measure", lambda contender, *given: found[contender.name])
    contenders = [Contender("loop", 1), Contender("dmlpipe", 2)]
    with pytest.raises(RuntimeError, match=rf"of {FILES} files, results"):
        run_rounds(InferenceWorkload(files=FILES), contenders, 1, tmp_path, Console(quiet=True))


def test_ratios_are_taken_within_a_round() -> None:
    measured = {
        Contender("loop", 1): [Measured(5.0, 4.0, 4.0, 10, ""), Measured(9.0, 8.0, 4.0, 10, "")],
        Contender("ProcessPool", 2): [Measured(4.0, 2.0, 4.0, 10, ""), Measured(6.0, 4.0, 4.0, 10, "")],
        Contender("dmlpipe", 2): [Measured(6.0, 2.0, 6.0, 10, "", 1.5), Measured(9.0, 5.0, 6.0, 10, "", 0.9)],
    }
    loop, _, ours = report(InferenceWorkload(files=10, items=10), measured)
    assert loop["efficiency"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert "leased_to_pool" not in loop
    assert ours["efficiency"] == {"median": 0.9, "low": 0.8, "high": 1.0}
    assert ours["leased_to_pool"] == {"median": 1.125, "low": 1.0, "high": 1.25}
    assert ours["whole_to_pool"] == {"median": 1.5, "low": 1.5, "high": 1.5}
    assert ours["second_to_first"] == {"median": 0.175, "low": 0.1, "high": 0.25}
    assert "second_s" not in loop
    assert ours["items_per_s"] == {"median": 35.0, "low": 20.0, "high": 50.0}
    assert ours["cpu_to_loop"]["median"] == 1.5


def test_the_workload_follows_from_its_seed() -> None:
    workload = InferenceWorkload(files=3, items=4)
    first, second = list(scan_files(workload)), list(scan_files(workload))
    third = list(scan_files(InferenceWorkload(files=3, items=4, seed=1)))
    assert first == second != third
    assert first[:2] == list(scan_files(workload, 2))
    assert len({content for _, content in first}) == 3
    assert {len(content) for _, content in first + third} == {128 + 4 * 64}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["onnx", "magika"])
@pytest.mark.usefixtures("same_environment")
def test_other_models_are_labelled_alike_by_all(tmp_path: Path, model: str) -> None:
    (tmp_path / "docs").mkdir()
    for number, text in enumerate(("import os\nprint(os.getcwd())\n" * 9, "<html><body>hello</body></html>\n" * 9)):
        (tmp_path / "docs" / f"{number}").write_text(text)
    result = run(tmp_path, "--slots", "1", "--model", model, "--data", str(tmp_path / "docs"), "--dir", str(tmp_path))
    assert {row["contender"] for row in result["contenders"]} >= {"loop", "dask.bag", "dmlpipe"}
    assert result["workload"]["items"] == (1 if model == "magika" else 100)


def test_the_newest_stored_result_can_be_drawn_again(tmp_path: Path) -> None:
    stored = sorted((RESULTS).glob("*.json"))
    assert stored
    for path in stored:
        result = json.loads(path.read_text())
        if result["benchmark"] == "inference":
            draw(result, tmp_path / "again.png")
            assert (tmp_path / "again.png").stat().st_size > 1000


def test_figures_go_to_a_file_or_into_a_folder(tmp_path: Path) -> None:
    assert result_file(tmp_path / "mine.json") == tmp_path / "mine.json"
    assert result_file(tmp_path).parent == tmp_path
    assert result_file(tmp_path).suffix == ".json"
    assert result_file(None).parent.name == "results"
