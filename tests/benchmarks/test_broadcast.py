"""The broadcast benchmark with few bytes: what the store is asked for is asserted, seconds are not."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from dmlpipe.benchmarks.broadcast import draw, ideal_s, run, verdicts


@pytest.mark.s3
def test_hosts_with_peers_read_the_store_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, "")  # what the benchmark sets is taken back after the test
    given = argparse.Namespace(
        mib=40, hosts=2, origin_mib=400.0, link_mbit=0, rounds=1, skip_all_from_store=False, loopback=True
    )
    rows = run(given, tmp_path)
    assert [row["hosts"] for row in rows] == [1, 2, 2]
    one, peers, every = rows
    assert one["origin_models"] == pytest.approx(1, abs=0.02)
    assert peers["origin_models"] == pytest.approx(1, abs=0.02)
    assert every["origin_models"] == pytest.approx(2, abs=0.04)
    assert peers["from_peers"] == 40 << 20
    found = verdicts(rows, ideal_s(given))
    assert found["origin_models"] == peers["origin_models"]
    workload = {"mib": 40, "hosts": 2, "origin_mib": 400.0}
    draw(json.loads(json.dumps({"rows": rows, "workload": workload})), tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 1000


def test_no_schedule_is_faster_than_the_ideal() -> None:
    given = argparse.Namespace(mib=512, hosts=8, origin_mib=20.0, link_mbit=0)
    assert ideal_s(given) == 25.6
    # Links of 8 MiB/s: 64 s for the model, and 2 s for the last piece over each of three.
    given.link_mbit = 8 * 2**20 * 8 / 1e6
    assert ideal_s(given) == pytest.approx(64 + 3 * 2)
