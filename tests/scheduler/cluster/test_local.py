"""A local cluster: what it refuses, how it starts, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dmlpipe.scheduler.cluster.local import LOOPBACK, reserve_port, shared_url, start_local
from dmlpipe.scheduler.cluster.supervise import ProcessId
from dmlpipe.scheduler.leases.dask_executor import DaskExecutor
from dmlpipe.scheduler.leases.executor import ExecutorFailed
from dmlpipe.storage.errors import ErrorCode, InvalidInputError

LIMIT_S = 30.0


def wait_for(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def members(session: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def test_a_memory_store_is_refused_with_the_reason() -> None:
    with pytest.raises(InvalidInputError, match="only this process sees it") as refused:
        start_local("memory://x", 1, folder=Path("unused"))
    assert refused.value.code == ErrorCode.UNSUPPORTED
    assert refused.value.hint is not None


def test_a_cluster_of_no_slots_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="at least one slot"):
        start_local(str(tmp_path), 0, folder=tmp_path)


def test_a_relative_store_is_named_absolutely(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert shared_url("./.dmlpipe") == str(tmp_path / ".dmlpipe")
    assert shared_url(f"file://{tmp_path}") == str(tmp_path)
    assert shared_url("s3://bucket/prefix") == "s3://bucket/prefix"


def test_a_reserved_port_is_kept_from_others_but_not_from_our_server() -> None:
    held, port = reserve_port()
    with held, socket.socket() as server, socket.socket() as other:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((LOOPBACK, port))
        server.listen()
        with pytest.raises(OSError, match="in use"):
            other.bind((LOOPBACK, port))


def test_a_closed_cluster_leaves_no_process(tmp_path: Path) -> None:
    with start_local(str(tmp_path / "store"), 1, folder=tmp_path / "logs") as cluster:
        scheduler = cluster.processes()["scheduler"]
        sessions = [process.pid for process in cluster.processes().values()]
        host, port = cluster.address.removeprefix("tcp://").split(":")

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex((host, int(port))) == 0

        wait_for(listens)
        assert host == LOOPBACK
    assert not scheduler.alive()
    assert [members(session) for session in sessions] == [[]] * len(sessions)
    cluster.close()


def test_a_worker_that_cannot_start_fails_the_executor_with_its_log(tmp_path: Path) -> None:
    # There is no store at that place.
    cluster = start_local(str(tmp_path / "no-store"), 1, folder=tmp_path / "logs")
    with DaskExecutor(cluster.address, lambda block: b"", failure=cluster.failure, on_close=cluster.close) as executor:
        deadline = time.monotonic() + LIMIT_S
        failed: list[ExecutorFailed] = []
        while not failed:
            assert time.monotonic() < deadline
            failed = [event for event in executor.poll(1.0) if isinstance(event, ExecutorFailed)]
    assert "the worker" in failed[0].message
    assert "worker.log" in failed[0].message


def test_a_cluster_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from dmlpipe.scheduler.cluster.local import start_local
cluster = start_local({str(tmp_path / "store")!r}, 1, folder=Path({str(tmp_path)!r}))
print(*[process.pid for process in cluster.processes().values()], flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [ProcessId.of(int(pid)) for pid in parent.stdout.readline().split()]
    assert children
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(LIMIT_S)
    parent.stdout.close()
    wait_for(lambda: not any(child.alive() for child in children))


def test_a_process_that_forgets_to_close_its_cluster_ends_it(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from dmlpipe.scheduler.cluster.local import start_local
cluster = start_local({str(tmp_path / "store")!r}, 1, folder=Path({str(tmp_path)!r}))
print(*[process.pid for process in cluster.processes().values()], flush=True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=LIMIT_S, check=True)
    assert done.stderr == ""
    assert not any(ProcessId.of(int(pid)).alive() for pid in done.stdout.split())


def test_importing_the_cluster_loads_no_dask() -> None:
    script = """
import sys
import dmlpipe.scheduler.cluster.local, dmlpipe.scheduler.cluster.daemon, dmlpipe.scheduler.leases.dask_executor
assert not {"dask", "distributed", "zarr", "s3fs", "numpy"} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=LIMIT_S)
