"""The simulated cluster works every datum off, and says where its limit is."""

from __future__ import annotations

import json
from pathlib import Path

from dmlpipe.benchmarks.simulation import Simulation, main


def test_every_datum_is_worked_off_whatever_the_plan_and_the_scheduler_cost(tmp_path: Path) -> None:
    main(["--workers", "4,64", "--datums", "20000", "--mean-ms", "5", "--out", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row["workers"] for row in found["outcomes"]] == [4, 64]
    for row in found["outcomes"]:
        assert 0 < row["efficiency"] <= 1
        assert row["leases"] * row["datums_per_lease"] == 20000
    assert "limit" in found
    assert (tmp_path / "found.svg").exists()


def test_a_scheduler_that_is_the_bottleneck_shows() -> None:
    quick = Simulation(200, 20_000, 0.002, 0.0, 1e12, seed=1).run()
    slow = Simulation(200, 20_000, 0.002, 0.005, 1e12, seed=1).run()
    assert slow.scheduler_busy > 0.9
    assert slow.efficiency < quick.efficiency
