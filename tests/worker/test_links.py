"""Inputs that were put as links: fetched when a datum needs them, refused once their source changed."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from dmlpipe.storage.objects.segment import Outcome
from dmlpipe.storage.store import Store
from dmlpipe.worker.child.zygote import Zygote
from tests.worker.bench import Bench, constant, file_datums, parameter, python, spec, varying


@pytest.fixture
def bench(tmp_path: Path, zygote: Zygote) -> Bench:
    store = Store.init(f"memory://{uuid.uuid4().hex}", cache_dir=tmp_path / "cache")
    return Bench(store, zygote, tmp_path / "work")


def test_linked_inputs_reach_user_code_and_a_changed_one_fails_its_datum_alone(bench: Bench, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "small").write_bytes(b"small")
    (scans / "large").write_bytes(b"L" * 200_000)  # goes through the cache
    (scans / "stale").write_bytes(b"as it was put")
    (scans / "model").write_bytes(b"M" * 300)
    tree = bench.store.put("scans", *(scans / name for name in ("small", "large", "stale")), link=True).tree
    model = bench.store.put("model", scans / "model", link=True).tree
    (scans / "stale").write_bytes(b"as it is now, and longer")
    source = "def f(scan, model):\n    return {scan.name: scan.read_bytes()[:5] + (model / 'model').read_bytes()[:1]}\n"
    job = spec(
        python(bench.store, source, "f", parameter("scan"), parameter("model")),
        varying("scan", tree, "scans"),
        constant("model", model),
    )
    rows = bench.run(job, file_datums(tree))
    assert bench.content(job.job) == {"small": b"smallM", "large": b"LLLLLM"}
    assert rows["stale"].outcome is Outcome.FAILED
    failure = rows["stale"].failure
    assert failure is not None
    assert f"file://{scans}/stale changed since it was put: expected 13 bytes" in failure.message
    assert os.listdir(scans)  # nothing was moved
