"""The overhead benchmark, small: what it counts is asserted, never its seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_figures_are_compared_within_a_round_and_drawn(tmp_path: Path) -> None:
    ours = overhead.Contender("dmlpipe, values", 100, (), "commit")
    base = overhead.Contender("client.map", 10, ())
    run = {"cpu_s": 0.01, "us_per_datum": {"worker": 30.0}, "controller_us_per_datum": {"plan": 10.0}}
    rows = overhead.report(
        {
            ours: [{"seconds": 1.0, "items": 100, **run}, {"seconds": 2.0, "items": 100, **run}],
            base: [{"seconds": 1.0, "items": 10}, {"seconds": 2.0, "items": 10}],
        }
    )
    assert rows[0]["to_client_map"] == {"median": 10.0, "low": 10.0, "high": 10.0}
    assert rows[0]["cpu_us_per_item"]["median"] == 100.0
    draw_overhead({"contenders": rows, "rounds": 2, "machine": {"cores": 2}}, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")
