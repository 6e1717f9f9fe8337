"""A Dask cluster that dmlpipe did not start: used for a run, and left as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import dmlpipe as dml
from dmlpipe.scheduler.errors import ClusterError
from dmlpipe.scheduler.report import Notice, Report
from dmlpipe.storage.errors import InvalidInputError
from dmlpipe.worker.guest import PLUGIN

DAG = """
import os
import dmlpipe as dml

dag = dml.DAG("given")


@dag.pipeline(dml.files("texts", "/{stem}.txt"))
def upper(texts: bytes, stem: str) -> dml.Files:
    return {f"{stem}.txt": texts.upper(), f"{stem}.pid": str(os.getppid())}
"""

LARGE = """
import os
import time
from pathlib import Path
import dmlpipe as dml

dag = dml.DAG("large")


@dag.pipeline(dml.cross(text=dml.files("texts", "/{stem}.txt"), models=dml.files("models")))
def sizes(text: bytes, stem: str, models: Path) -> dml.Files:
    while stem == "9" and not os.path.exists(GATE):
        time.sleep(0.01)
    return {f"{stem}.size": str((models / "large.bin").stat().st_size), f"{stem}.pid": str(os.getppid())}
"""
"""The last datum waits until it is told that the model was read."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from distributed import LocalCluster

    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=":0"
    ) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> dml.Store:
    made = dml.init(tmp_path / ".dmlpipe", cache_dir=tmp_path / "cache")
    (tmp_path / "dag.py").write_text(DAG)
    made.put("texts", *((f"{number}.txt", b"text %d" % number) for number in range(40)))
    made.submit(tmp_path / "dag.py")
    return made


def test_a_clusters_own_workers_compute_and_are_left_alone(cluster: Any, store: dml.Store) -> None:
    from distributed import Client

    with Client(cluster) as client:  # type: ignore[no-untyped-call]
        before = set(client.scheduler_info()["workers"])
        for text in (b"first", b"second"):
            # The second run finds the lease pool installed, and brings new guests.
            store.put("texts", ("new.txt", text))
            told: list[Report] = []
            summary = store.run(client=client, observer=told.append)
            assert Notice(text=f"the page of the Dask cluster: {cluster.dashboard_link}") in told
            assert summary.counters.run == (41 if text == b"first" else 1)
            assert store["upper"].read_bytes("/new.txt") == text.upper()
        assert set(client.scheduler_info()["workers"]) == before
        plugins: Any = client.run(lambda dask_worker: sorted(dask_worker.plugins))
        assert all(PLUGIN not in names for names in plugins.values())
        # Its own tasks still run.
        assert client.submit(pow, 2, 5).result(30) == 32


def test_run_takes_the_address_of_a_scheduler(cluster: Any, store: dml.Store, tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("dmlpipe")), "run", *words]
        env = os.environ | {"DMLPIPE_CACHE_DIR": str(tmp_path / "cache"), "NO_COLOR": "1"}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)

    done = run("--scheduler", cluster.scheduler_address)
    assert done.returncode == 0, done.stderr
    assert "40 datums run" in done.stdout
    assert run("--scheduler", "tcp://127.0.0.1:1", "-j", "2").returncode == 2


def test_what_cannot_work_is_said_before_anything_is_computed(cluster: Any, store: dml.Store, tmp_path: Path) -> None:
    from distributed import Client

    from dmlpipe.scheduler.cluster import given

    with Client(cluster) as client:  # type: ignore[no-untyped-call]
        with pytest.raises(InvalidInputError, match="only this process sees it"):
            given.given_executor(client, "memory://x", lambda name: b"")
        with pytest.raises(ClusterError, match="a worker cannot take part"):
            given.given_executor(client, str(tmp_path / "nothing-here"), lambda name: b"")
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        given.connect("tcp://127.0.0.1:1", timeout_s=1.0)


def test_chosen_workers_compute_share_large_files_and_leave(cluster: Any, store: dml.Store, tmp_path: Path) -> None:
    from distributed import Client

    from dmlpipe.scheduler.cluster.given import given_executor
    from dmlpipe.scheduler.jobreport.gather import read_report
    from dmlpipe.scheduler.jobreport.page import render
    from dmlpipe.scheduler.leases.dask_executor import scheduler_status
    from dmlpipe.scheduler.report import JobAdvanced, JobEnded
    from dmlpipe.storage.digest import from_hex

    store.put("models", ("large.bin", os.urandom(2 << 20)))
    gate = tmp_path / "gate"
    (tmp_path / "large.py").write_text(LARGE.replace("GATE", repr(str(gate))))
    store.submit(tmp_path / "large.py")
    told: list[Report] = []

    def observe(report: Report, /) -> None:
        told.append(report)
        if isinstance(report, JobAdvanced) and report.from_store:
            gate.touch()

    with Client(cluster) as client:  # type: ignore[no-untyped-call]
        first, *_ = sorted(cast("dict[str, int]", client.nthreads()))
        executor = given_executor(
            client,
            store.url,
            lambda name: store.nodes.get(from_hex(name)),
            backend=store.backend,
            cache_dir=str(tmp_path / "theirs"),
            only=[first],
        )
        summary = store.run(targets=["sizes"], executor=executor, observer=observe)
        pids = {store["sizes"].read_bytes(f"/{number}.pid") for number in range(40)}
        left = scheduler_status(cluster.scheduler_address)
    assert len(pids) == 1
    assert (left.workers, left.slots) == (0, 0)
    (ended,) = (each for each in told if isinstance(each, JobEnded))
    _, _, record = store.job(summary.jobs[0].job)
    assert record is not None
    assert (ended.from_store, ended.from_peers) == (2 << 20, 0)
    assert record.traffic == {"from_store": 2 << 20, "from_peers": 0}
    assert [each for each in told if isinstance(each, JobAdvanced)][-1].from_store == 2 << 20
    page = render(read_report(store, summary.jobs[0].job))
    assert "<b>2.0</b>MiB from the store" in page
    assert "<b>0%</b>peers&#x27; share" in page
