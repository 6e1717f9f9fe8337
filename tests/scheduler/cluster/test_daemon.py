"""`up`, `status`, `down`: real processes that outlive their starter, and nothing of them left afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dmlpipe.scheduler.cluster.daemon import ClusterState, ProcessState, down, live_status, status, up
from dmlpipe.scheduler.cluster.supervise import ProcessId
from dmlpipe.scheduler.errors import ClusterError
from dmlpipe.storage.errors import HeldError, InvalidInputError
from dmlpipe.storage.host import boot_id
from dmlpipe.storage.store import Store

LIMIT_S = 40.0


def wait_for(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    yield store
    down(store.cache_dir, store.repo_id)


def bring_up(store: Store, slots: int = 1) -> ClusterState:
    return up(store.url, slots, repo_id=store.repo_id, cache_dir=store.cache_dir)


def state_of(store: Store) -> ClusterState:
    state = status(store.cache_dir, store.repo_id)
    assert state is not None
    return state


def test_a_memory_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="only this process sees it"):
        up("memory://x", 1, repo_id="r", cache_dir=tmp_path)


def test_nothing_is_up_where_nothing_was_started(tmp_path: Path) -> None:
    assert status(tmp_path, "r") is None
    assert down(tmp_path, "r") is False


def test_a_process_that_has_the_pid_of_a_dead_one_is_left_alone(tmp_path: Path) -> None:
    innocent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        stale = ProcessState(pid=innocent.pid, started="1")
        state = ClusterState(
            store="s",
            repo_id="r",
            address="tcp://127.0.0.1:1",
            slots=1,
            host="h",
            boot=boot_id(),
            since="",
            folder="",
            processes={"supervisor": stale, "worker": stale},
        )
        (tmp_path / "cluster").mkdir()
        (tmp_path / "cluster" / "r.json").write_bytes(msgspec.json.encode(state))
        assert status(tmp_path, "r") is None
        assert down(tmp_path, "r") is False
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_a_cluster_comes_up_is_seen_and_goes_down(store: Store) -> None:
    state = bring_up(store, 2)
    assert set(state.processes) == {"supervisor", "scheduler", "worker", "controller"}
    assert all(process.alive() for process in state.processes.values())
    assert state_of(store) == state
    live = live_status(state)
    assert live is not None
    assert (live.workers, live.slots) == (1, 2)
    with pytest.raises(HeldError, match="already up"):
        bring_up(store)
    # Nobody's child, and no terminal: it survives the one that started it.
    supervisor = state.processes["supervisor"].pid
    assert os.getsid(supervisor) != os.getsid(0)
    assert int(Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2].split()[1]) != os.getpid()
    assert down(store.cache_dir, store.repo_id) is True
    assert not any(process.alive() for process in state.processes.values())
    assert status(store.cache_dir, store.repo_id) is None
    assert down(store.cache_dir, store.repo_id) is False


def test_killed_processes_are_started_again(store: Store) -> None:
    before = bring_up(store).processes
    for name in ("worker", "controller", "scheduler"):
        os.kill(before[name].pid, signal.SIGKILL)

    def back() -> bool:
        now = state_of(store)
        if len(now.processes) < 4 or any(
            now.processes[name] == before[name] for name in before if name != "supervisor"
        ):
            return False
        live = live_status(now, timeout_s=1.0)
        return live is not None and live.slots == 1

    wait_for(back)


def test_everything_dies_with_the_supervisor_and_up_works_again(store: Store) -> None:
    first = bring_up(store)
    os.kill(first.processes["supervisor"].pid, signal.SIGKILL)
    wait_for(lambda: not any(process.alive() for process in first.processes.values()))
    assert status(store.cache_dir, store.repo_id) is None
    second = bring_up(store)
    assert second.processes["supervisor"] != first.processes["supervisor"]


def test_who_waits_for_a_cluster_that_is_ended_meanwhile_hears_of_it(store: Store) -> None:
    heard: list[BaseException] = []

    def start() -> None:
        try:
            up(store.url, 1, repo_id=store.repo_id, cache_dir=store.cache_dir, timeout_s=3600.0)
        except ClusterError as error:
            heard.append(error)

    starting = threading.Thread(target=start, daemon=True)
    starting.start()
    wait_for(lambda: status(store.cache_dir, store.repo_id))
    assert down(store.cache_dir, store.repo_id)
    starting.join(LIMIT_S)
    assert [str(error).partition("\n")[0] for error in heard] == ["the cluster was ended while it came up"]


def test_who_looks_only_after_a_cluster_was_ended_hears_of_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = subprocess.run

    def run_and_end(*words: Any, **options: Any) -> Any:
        done = run(*words, **options)
        wait_for(lambda: status(store.cache_dir, store.repo_id))
        assert down(store.cache_dir, store.repo_id)
        return done

    monkeypatch.setattr("dmlpipe.scheduler.cluster.daemon.subprocess.run", run_and_end)
    with pytest.raises(ClusterError, match="was ended while it came up"):
        up(store.url, 1, repo_id=store.repo_id, cache_dir=store.cache_dir, timeout_s=3600.0)


def test_a_cluster_that_cannot_come_up_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no store") as failed:
        up(str(tmp_path / "nowhere"), 1, repo_id="r", cache_dir=tmp_path / "cache")
    assert "was ended" in str(failed.value)
    assert status(tmp_path / "cache", "r") is None


def test_a_process_id_names_a_living_process() -> None:
    own = ProcessId.of(os.getpid())
    assert ProcessState(pid=own.pid, started=own.started).alive()
