from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest

import dmlpipe as dml
from dmlpipe.scheduler.cluster.local import reserve_port, start_local
from dmlpipe.scheduler.leases.dask_executor import DaskExecutor
from dmlpipe.scheduler.leases.dask_seam import HTTP_PORT_VARIABLE
from dmlpipe.scheduler.leases.executor import JobOffer
from dmlpipe.scheduler.leases.job_status import Totals
from dmlpipe.scheduler.leases.metrics import _is_here, families, render
from dmlpipe.scheduler.leases.pool import LeasePool
from dmlpipe.storage.digest import from_hex
from dmlpipe.worker.messages import PROTOCOL, Computed, LeaseRequest, Stored, StoredLease

DAG = """
import dmlpipe as dml

dag = dml.DAG("metrics")


@dag.pipeline(dml.files("texts", "/{stem}.txt"))
def upper(texts: bytes, stem: str) -> dml.Files:
    return {stem: texts.upper()}
"""


def samples(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_counters_outlive_their_jobs_and_add_up_over_them() -> None:
    pool = LeasePool()
    pool.add_worker("w", 1)
    for job in ("a", "b"):
        pool.offer(JobOffer(job=job, spec="", pipeline="p"))
        pool.add_block(job, f"block-{job}", 1)
        pool.end_blocks(job)
        lease = pool.take("w", 0, 0.0)
        assert lease is not None
        report = LeaseRequest(
            protocol=PROTOCOL,
            version="0",
            worker="w",
            slot=0,
            returned=(Computed(lease.id, 1, 1, 2.5),),
            stored=(Stored(job, f"{job}.seg", 0, (StoredLease(lease.id, (0,)),), 1, 1),),
        )
        pool.report(report, 1.0)
    assert pool.jobs() == []
    assert pool.totals() == {"p": Totals(2, 2, 5.0)}
    pool.offer(JobOffer(job="c", spec="", pipeline='odd "name"'))
    found = samples(render(families(pool)))
    assert found['dmlpipe_datums_computed_total{pipeline="p"}'] == 2
    assert found['dmlpipe_datum_seconds_total{pipeline="p"}'] == 5
    assert found['dmlpipe_datums_queued{pipeline="odd \\"name\\"",job="c"}'] == 0
    assert (found["dmlpipe_leases_total"], found["dmlpipe_jobs"], found["dmlpipe_slots"]) == (2, 1, 1)


@pytest.mark.parametrize(
    ("address", "here"), [("127.0.0.1", True), ("::1", True), ("10.0.0.1", False), ("", False), (None, False)]
)
def test_only_this_machine_is_told(address: str | None, here: bool) -> None:
    assert _is_here(address) is here


def test_a_scheduler_tells_prometheus_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, port = reserve_port()
    monkeypatch.setenv(HTTP_PORT_VARIABLE, str(port))
    store = dml.init(tmp_path / ".dmlpipe", cache_dir=tmp_path / "cache")
    (tmp_path / "dag.py").write_text(DAG)
    store.put("texts", *((f"{number}.txt", b"t%d" % number) for number in range(7)))
    store.submit(tmp_path / "dag.py")
    held.close()
    with start_local(store.url, 1, folder=tmp_path / "logs", cache_dir=tmp_path / "cache") as cluster:
        executor = DaskExecutor(cluster.address, lambda name: store.nodes.get(from_hex(name)), backend=store.backend)
        store.run(executor=executor)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            found = samples(answer.read().decode())
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/info", timeout=10)
    assert found['dmlpipe_datums_computed_total{pipeline="upper"}'] == 7
    assert found["dmlpipe_leases_total"] >= 1
    assert found["dmlpipe_peer_bytes_total"] == 0
    assert f"metrics: http://127.0.0.1:{port}/metrics" in (tmp_path / "logs" / "scheduler.log").read_text()
