"""A Dask cluster that dmlpipe did not start: used for a run, and left as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dmlpipe as dml
from dmlpipe.scheduler.errors import ClusterError
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
            summary = store.run(client=client)
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
