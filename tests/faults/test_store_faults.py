"""A store behind a bad line: away for a while, slow, or answering some requests with errors."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmlpipe.storage.backend.opening import open_backend
from dmlpipe.storage.errors import BackendError
from tests.conftest import S3Server
from tests.faults.case import Case, make_case
from tests.faults.fault_proxy import FaultProxy

pytestmark = pytest.mark.s3

AWAY_S = float(os.environ.get("DMLPIPE_TEST_AWAY_S", "4"))


@pytest.fixture
def proxy(weed: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(weed.endpoint) as started:
        yield started


@pytest.fixture
def bad_line(weed: S3Server, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh ``s3://`` prefix that is reached through the proxy."""
    for name, value in (weed.environment | {"AWS_ENDPOINT_URL": proxy.endpoint}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DMLPIPE_FLUSH_S", "0.2")
    return weed.url()


def test_patience_outlasts_what_passes_and_nothing_else(proxy: FaultProxy, bad_line: str) -> None:
    backend = open_backend(bad_line)
    assert backend.put_if_absent("a", b"1")
    proxy.away = True
    with pytest.raises(BackendError) as info:
        backend.get("a")
    assert info.value.retryable
    # A person is told soon: botocore tries again, the file system above it does not multiply that.
    assert proxy.counts["refused"] < 10
    backend.be_patient(60.0)
    threading.Timer(0.5, lambda: setattr(proxy, "away", False)).start()
    assert backend.get("a") == b"1"
    proxy.errors = 0.2
    keys = [f"k{number}" for number in range(24)]
    assert list(backend.put_many_if_absent([(key, key.encode()) for key in keys])) == [True] * 24
    assert proxy.counts["failed"] > 2
    # Only what failed is asked for again.
    asked = proxy.counts.total()
    assert backend.get_many([(key, None, None) for key in keys]) == [key.encode() for key in keys]
    assert proxy.counts.total() - asked < 3 * len(keys)


def work_on(folder: Path, url: str) -> Iterator[Case]:
    made = make_case(folder, url, datums=60, seconds=0.05)
    with made.arena:
        made.arena.start_scheduler()
        for _ in range(2):
            made.arena.start_worker()
        made.arena.wait_for_slots(2)
        yield made


@pytest.fixture
def case(tmp_path: Path, bad_line: str) -> Iterator[Case]:
    yield from work_on(tmp_path, bad_line)


def test_a_job_outlasts_a_store_that_is_away_slow_and_answers_with_errors(case: Case, proxy: FaultProxy) -> None:
    proxy.errors = 0.05
    proxy.delay_s = 0.02
    executor = case.arena.executor(case.store)
    refused: list[int] = []

    def strike() -> bool:
        proxy.away = True

        def back() -> None:
            refused.append(proxy.counts["refused"])
            proxy.away = False

        threading.Timer(AWAY_S, back).start()
        return True

    executor.strike = strike
    summary = case.store.run(executor=executor)
    assert summary.ok
    assert refused
    assert refused[0] > 0
    assert proxy.counts["failed"] > 0
    # Every worker that began is still there.
    assert all(worker.poll() is None for worker in case.arena.workers), case.arena.logs()
    proxy.errors = proxy.delay_s = 0.0
    case.check(set(case.data["numbers"]))


@pytest.mark.slow
def test_a_job_outlasts_half_a_minute_without_its_store(
    case: Case, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.faults.test_store_faults.AWAY_S", 30.0)
    test_a_job_outlasts_a_store_that_is_away_slow_and_answers_with_errors(case, proxy)
