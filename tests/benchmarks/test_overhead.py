"""The overhead benchmark, small: what it counts is asserted, never its seconds."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import dmlpipe as dml
from dmlpipe.benchmarks import leases, noop, overhead, warm
from dmlpipe.benchmarks.chart import draw_overhead


def test_a_warm_run_is_measured_process_by_process(tmp_path: Path) -> None:
    found = warm.measure("values", 60, 1, tmp_path)
    assert found["items"] == 60
    assert set(found["us_per_datum"]) == {"controller", "scheduler", "worker", "children"}
    assert set(found["controller_us_per_datum"]) >= {"plan", "take segments", "fold"}


def test_leases_are_counted_by_the_real_scheduler() -> None:
    found = leases.measure(5_000, 100, workers=1, slots=2)
    assert (found["datums"], found["lease_size"]) == (5_000, 100)
    assert found["scheduler_us_per_lease"] > 0


def test_others_print_what_they_took() -> None:
    command = [sys.executable, "-m", "dmlpipe.benchmarks.noop", f"ProcessPool in {noop.CHUNK}s", "--items", "200"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert '"items": 200' in done.stdout


def test_whole_processes_start_from_the_same_store_each_time(tmp_path: Path) -> None:
    asked = [one for one in overhead.contenders(0.0002, None, tmp_path) if one.kind == "values"]
    overhead.prepare(asked, tmp_path)
    for one in asked:
        # It looks itself whether all outputs are there.
        assert overhead.measure(dataclasses.replace(one, warm=()), tmp_path)["whole_s"] > 0
    assert len(asked) == 2
    assert dml.open(tmp_path / "20" / "store", cache_dir=tmp_path / "cache").state.head("values") is None


def test_figures_are_compared_within_a_round_and_drawn(tmp_path: Path) -> None:
    ours = overhead.Contender("dmlpipe, values", 100, ("x",), ("x",), "commit", "values")
    run = overhead.Contender("dmlpipe run, values", 100, (), ("x",), "commit", "values")
    base = overhead.Contender("client.map", 10, ("x",), ("x",))
    ray = overhead.Contender("ray data", 1000, ("x",), ("x",))
    used = {"cpu_s": 0.01, "us_per_datum": {"worker": 30.0}, "controller_us_per_datum": {"plan": 10.0}}
    ours_ran, ray_ran = {"items": 100, "whole_s": 4.0, **used}, {"items": 1000, "seconds": 1.0, "whole_s": 10.0}
    rows = overhead.report(
        {
            ours: [{"seconds": 1.0, **ours_ran}, {"seconds": 2.0, **ours_ran}],
            run: [{"items": 100, "whole_s": 0.5}] * 2,
            base: [{"seconds": 1.0, "items": 10, "whole_s": 2.0}, {"seconds": 2.0, "items": 10, "whole_s": 4.0}],
            ray: [ray_ran, ray_ran],
        }
    )
    assert rows[0]["to_client_map"] == {"median": 10.0, "low": 10.0, "high": 10.0}
    assert (rows[0]["to_ray_data"]["low"], rows[0]["to_ray_data"]["high"]) == (0.05, 0.1)
    assert rows[0]["whole_to_client_map"] == {"median": 7.5, "low": 5.0, "high": 10.0}
    assert rows[0]["cpu_us_per_item"]["median"] == 100.0
    assert "items_per_s" not in rows[1]
    assert rows[1]["whole_to_ray_data"]["median"] == 2.0
    draw_overhead({"contenders": rows, "rounds": 2, "machine": {"cores": 2}}, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")
