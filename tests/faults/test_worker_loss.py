"""A worker or the scheduler is killed in the middle of a job: nothing is lost, nothing stored is computed again."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dmlpipe.scheduler.cluster.local import Cluster, start_local
from dmlpipe.scheduler.cluster.private import PrivateExecutor
from dmlpipe.scheduler.errors import ClusterError
from dmlpipe.scheduler.leases.dask_executor import DaskExecutor
from dmlpipe.scheduler.leases.executor import Event, Executor, SegmentStored
from dmlpipe.scheduler.leases.pool_executor import PoolExecutor
from dmlpipe.scheduler.store import Store
from dmlpipe.storage.digest import from_hex
from dmlpipe.storage.objects.pack import read_rows
from dmlpipe.storage.objects.segment import decode_rows

DATUMS = 160
SLOTS = 2
DAG = """
import os, time
import dmlpipe as dml

dag = dml.DAG("counted")

@dag.pipeline(dml.files("words", "/*"))
def shouted(words: bytes) -> dml.Files:
    time.sleep(0.005)
    handle = os.open({tally!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, words + b"\\n")
    os.close(handle)
    return {{words.decode(): words.upper()}}
"""


class Watching(PoolExecutor):
    """Calls `strike` once, when a segment is stored."""

    strike: Callable[[], None] | None = None

    def poll(self, timeout_s: float) -> list[Event]:
        events = super().poll(timeout_s)
        if self.strike is not None and any(isinstance(event, SegmentStored) for event in events):
            strike, self.strike = self.strike, None
            strike()
        return events


class Watched(Watching, DaskExecutor):
    """On a cluster."""


class WatchedPrivate(Watching, PrivateExecutor):
    """In slots of the run's own."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    # Many small segments: the worker is killed with some stored and some not.
    monkeypatch.setenv("DMLPIPE_FLUSH_S", "0.1")
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    with store.commit("words") as session:
        for number in range(DATUMS):
            session.write(f"w{number:04}", f"word{number:04}")
    dag = tmp_path / "dag.py"
    dag.write_text(DAG.format(tally=str(tmp_path / "tally")))
    store.submit(dag)
    return store


def tally(tmp_path: Path) -> Counter[str]:
    return Counter((tmp_path / "tally").read_text().split())


def stored_datums(store: Store) -> set[str]:
    """Datums of all segments that are in the store now."""
    keys = [key for key, _ in store.backend.list("results") if key.endswith(".seg")]
    return {row.key.decode() for key in keys for row in decode_rows(read_rows(store.backend, key)[0])}


def executor_on(cluster: Cluster, store: Store) -> Watched:
    return Watched(
        cluster.address,
        lambda block: store.nodes.get(from_hex(block)),
        backend=store.backend,
        failure=cluster.failure,
        on_close=cluster.close,
    )


def start(store: Store, tmp_path: Path) -> Cluster:
    return start_local(store.url, SLOTS, folder=tmp_path / "logs", cache_dir=store.cache_dir)


def run(store: Store, executor: Executor) -> None:
    summary = store.run(executor=executor)
    assert summary.ok
    assert [job.counters.total for job in summary.jobs] == [DATUMS]


def words(names: set[str]) -> set[str]:
    return {name.replace("w", "word") for name in names}


def check_outputs(store: Store) -> None:
    found = {info.path: store["shouted"].read_bytes(info.path) for info in store["shouted"].ls("/")}
    assert found == {f"/word{number:04}": f"WORD{number:04}".encode() for number in range(DATUMS)}


@pytest.mark.parametrize("own", [False, True], ids=["cluster", "own"])
def test_a_killed_worker_loses_no_datum_and_repeats_none_that_was_stored(
    store: Store, tmp_path: Path, own: bool
) -> None:
    executor: Watched | WatchedPrivate
    processes: Callable[[], Sequence[int]]
    if own:
        executor = private = WatchedPrivate(
            store.url,
            SLOTS,
            lambda block: store.nodes.get(from_hex(block)),
            folder=tmp_path / "logs",
            cache_dir=store.cache_dir,
            backend=store.backend,
            here_max=DATUMS - 1,
        )
        processes = lambda: [] if private.worker_pid is None else [private.worker_pid]  # noqa: E731
    else:
        cluster = start(store, tmp_path)
        executor = executor_on(cluster, store)
        processes = lambda: [cluster.processes()["worker"].pid] if cluster.processes() else []  # noqa: E731
    kept: set[str] = set()
    before: Counter[str] = Counter()

    def strike() -> None:
        os.kill(processes()[0], signal.SIGKILL)
        kept.update(words(stored_datums(store)))
        before.update(tally(tmp_path))

    executor.strike = strike
    run(store, executor)
    assert kept
    assert sum(before.values()) < DATUMS
    check_outputs(store)
    counts = tally(tmp_path)
    assert set(counts) == {f"word{number:04}" for number in range(DATUMS)}
    assert {word: counts[word] for word in kept} == dict.fromkeys(kept, 1)
    # Only what was computed and not stored yet is computed again, once.
    assert max(counts.values()) <= 2
    assert not processes()


def test_a_killed_scheduler_ends_the_run_and_the_next_one_finishes_it(store: Store, tmp_path: Path) -> None:
    cluster = start(store, tmp_path)
    executor = executor_on(cluster, store)
    executor.strike = lambda: os.kill(cluster.processes()["scheduler"].pid, signal.SIGKILL)
    with pytest.raises(ClusterError, match="scheduler"):
        store.run(executor=executor)
    assert not [process for process in cluster.processes().values() if process.alive()]
    kept = words(stored_datums(store))
    assert kept
    run(store, executor_on(start(store, tmp_path), store))
    check_outputs(store)
    counts = tally(tmp_path)
    assert {word: counts[word] for word in kept} == dict.fromkeys(kept, 1)


def test_a_killed_run_takes_its_cluster_along(store: Store, tmp_path: Path) -> None:
    cluster = start(store, tmp_path)
    executor = executor_on(cluster, store)

    class StruckError(Exception):
        pass

    def strike() -> None:
        raise StruckError

    executor.strike = strike
    processes = cluster.processes()
    with pytest.raises(StruckError):
        store.run(executor=executor)
    assert not [process for process in processes.values() if process.alive()]
    run(store, executor_on(start(store, tmp_path), store))
    check_outputs(store)
