"""The executor of a cluster against a real scheduler process; workers are stand-ins that compute nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dmlpipe.scheduler.cluster.local import LOOPBACK, Cluster, child_specs, reserve_port
from dmlpipe.scheduler.cluster.supervise import Supervisor
from dmlpipe.scheduler.leases.dask_executor import DaskExecutor, scheduler_status
from dmlpipe.scheduler.leases.executor import (
    DatumLost,
    Event,
    ExecutorFailed,
    JobFinished,
    JobOffer,
    Progressed,
    SegmentStored,
    WorkersChanged,
)
from dmlpipe.scheduler.leases.pool import LOSSES_MAX
from dmlpipe.worker.job import Datum, encode_block

LIMIT_S = 30.0
Workers = Callable[..., "subprocess.Popen[bytes]"]


def no_blocks(block: str) -> bytes:
    raise AssertionError(f"nobody asked for block {block}")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler without a worker."""
    held, port = reserve_port()
    specs = child_specs("unused", 1, port, tmp_path, restart_scheduler=False)[:1]
    with Cluster(f"tcp://{LOOPBACK}:{port}", tmp_path, Supervisor(specs), held) as cluster:
        yield cluster


@pytest.fixture
def start_worker(cluster: Cluster, tmp_path: Path) -> Iterator[Workers]:
    """Start a stand-in worker."""
    started = []

    def start(name: str, *, slots: int = 2, seconds: float = 0.0) -> subprocess.Popen[bytes]:
        script = Path(__file__).with_name("lease_worker.py")
        argv = [sys.executable, str(script), cluster.address, name, str(slots), str(seconds)]
        with (tmp_path / f"{name}.log").open("wb") as log:
            started.append(subprocess.Popen(argv, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(LIMIT_S)


def offer(executor: DaskExecutor, *counts: int, job: str = "j") -> None:
    executor.offer(JobOffer(job=job, spec="spec", pipeline="p"))
    for number, count in enumerate(counts):
        executor.add_block(job, f"block{number}", count)
    executor.end_blocks(job)


def events_until(executor: DaskExecutor, kind: type[Event]) -> list[Event]:
    events: list[Event] = []
    deadline = time.monotonic() + LIMIT_S
    while not any(isinstance(event, kind) for event in events):
        assert time.monotonic() < deadline, f"no {kind.__name__}, only {events[-5:]}"
        events += executor.poll(1.0)
    return events


def test_everything_offered_before_the_scheduler_is_up_is_computed(cluster: Cluster, start_worker: Workers) -> None:
    start_worker("w")
    with DaskExecutor(cluster.address, no_blocks, failure=cluster.failure) as executor:
        offer(executor, 700, 1300)
        assert executor.slots() in (0, 2)
        events = events_until(executor, JobFinished)
        assert sum(event.rows for event in events if isinstance(event, SegmentStored)) == 2000
        assert events[-1] == JobFinished(job="j")
        assert (executor.backlog("j"), list(executor.open_folds("j")), executor.slots()) == (0, [], 2)
        assert executor.poll(0.0) == []


def test_a_later_session_hears_of_the_workers_that_are_there(cluster: Cluster, start_worker: Workers) -> None:
    start_worker("w", slots=2)
    for _ in range(2):
        with DaskExecutor(cluster.address, no_blocks, failure=cluster.failure) as executor:
            assert events_until(executor, WorkersChanged)[-1] == WorkersChanged(workers=1, slots=2)


def test_questions_see_the_commands_before_them(cluster: Cluster, start_worker: Workers) -> None:
    with DaskExecutor(cluster.address, no_blocks, failure=cluster.failure) as executor:
        offer(executor, 5, 5, 5)
        assert executor.backlog("j") == 3
        assert executor.wait_ready(LIMIT_S)
        assert executor.backlog("j") == 3
        worker = start_worker("w", slots=1, seconds=-1)
        events_until(executor, WorkersChanged)
        deadline = time.monotonic() + LIMIT_S
        while not executor.open_folds("j"):
            assert time.monotonic() < deadline
        executor.advance_fold("j", 4)
        assert list(executor.open_folds("j")) == [0]
        assert executor.backlog("j") == 2
        executor.cancel("j")
        assert executor.backlog("j") == 0
        assert scheduler_status(cluster.address).jobs[0].cancelled
        worker.kill()


def test_a_killed_scheduler_fails_the_executor_and_nothing_hangs(cluster: Cluster) -> None:
    executor = DaskExecutor(cluster.address, no_blocks, failure=cluster.failure)
    assert executor.wait_ready(LIMIT_S)
    os.kill(cluster.processes()["scheduler"].pid, signal.SIGKILL)
    failed = events_until(executor, ExecutorFailed)[-1]
    assert isinstance(failed, ExecutorFailed)
    offer(executor, 1)
    executor.cancel("j")
    assert (executor.backlog("j"), executor.slots(), list(executor.open_folds("j"))) == (0, 0, [])
    assert executor.poll(LIMIT_S) == [failed]
    executor.close()
    executor.close()


def test_an_address_where_nobody_is_fails_with_the_address() -> None:
    held, port = reserve_port()
    with held, DaskExecutor(f"tcp://{LOOPBACK}:{port}", no_blocks, connect_s=0.2) as executor:
        failed = events_until(executor, ExecutorFailed)[-1]
        assert isinstance(failed, ExecutorFailed)
        assert f"tcp://{LOOPBACK}:{port}" in failed.message


def test_a_newer_executor_takes_the_scheduler_over(cluster: Cluster) -> None:
    with DaskExecutor(cluster.address, no_blocks) as old:
        offer(old, 10)
        assert old.wait_ready(LIMIT_S)
        with DaskExecutor(cluster.address, no_blocks) as new:
            assert new.wait_ready(LIMIT_S)
            failed = events_until(old, ExecutorFailed)[-1]
            assert "another controller" in str(failed)
            assert new.backlog("j") == 0
            assert new.poll(0.0) == []


def test_a_datum_that_takes_five_workers_along_is_named_by_its_key(cluster: Cluster, start_worker: Workers) -> None:
    datum = Datum(b"bad", b"f" * 32, ())

    def read_block(block: str) -> bytes:
        assert block == "block0"
        return encode_block([datum])

    with DaskExecutor(cluster.address, read_block) as executor:
        offer(executor, 1)
        events: list[Event] = []

        def wait_for_running(count: int) -> None:
            deadline = time.monotonic() + LIMIT_S
            running = None
            while running != count:
                assert time.monotonic() < deadline
                for event in executor.poll(0.1):
                    events.append(event)
                    running = event.running if isinstance(event, Progressed) else running

        for number in range(LOSSES_MAX):
            worker = start_worker(f"w{number}", slots=1, seconds=-1)
            wait_for_running(1)
            worker.kill()
            worker.wait(LIMIT_S)
            wait_for_running(0)
        if not any(isinstance(event, JobFinished) for event in events):
            events += events_until(executor, JobFinished)
        lost = [event for event in events if isinstance(event, DatumLost)]
        assert lost == [DatumLost(job="j", key=datum.key, fingerprint=datum.fingerprint)]
