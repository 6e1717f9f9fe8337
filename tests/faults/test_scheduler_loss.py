"""Under `up`: the scheduler is killed within a job; its workers end, new ones join the new one, the job goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmlpipe.scheduler.cluster.daemon import SUPERVISOR, ClusterState, down, status, up
from dmlpipe.scheduler.store import Store
from tests.faults.arena import stored_datums, trees, wait_for
from tests.faults.case import Case, make_case


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    monkeypatch.setenv("DMLPIPE_FLUSH_S", "0.1")
    made = make_case(tmp_path, str(tmp_path / "store"), datums=120, seconds=0.05)
    yield made
    down(made.store.cache_dir, made.store.info.repo_id)


def state_of(store: Store) -> ClusterState:
    state = status(store.cache_dir, store.info.repo_id)
    assert state is not None
    return state


def test_a_job_goes_on_with_a_new_scheduler_and_new_workers(case: Case) -> None:
    store = case.store
    up(store.url, 2, repo_id=store.info.repo_id, cache_dir=store.cache_dir)
    before = state_of(store).processes
    wait_for(lambda: stored_datums(store))
    kept = stored_datums(store)
    os.kill(before["scheduler"].pid, signal.SIGKILL)
    wait_for(lambda: not before["worker"].alive())
    wait_for(lambda: "total" in trees(store))
    after = state_of(store).processes
    assert after["scheduler"].pid != before["scheduler"].pid
    assert after["worker"].pid != before["worker"].pid
    assert after["controller"] == before["controller"]
    case.check(kept)
    alive = [process for name, process in after.items() if name != SUPERVISOR]
    assert down(store.cache_dir, store.info.repo_id)
    assert not [process for process in alive if process.alive()]
