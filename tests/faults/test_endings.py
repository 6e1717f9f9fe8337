"""`down` and Ctrl-C, at any time: no process is left, and the next run finishes the work."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmlpipe.scheduler.cluster.daemon import down, up
from dmlpipe.scheduler.errors import ClusterError
from dmlpipe.scheduler.store import Store
from tests.faults.arena import LIMIT_S, ROOT, stored_datums, wait_for
from tests.faults.case import Case

TIMES = 24
PROGRAM = Path(sys.executable).with_name("dmlpipe")


def left(mark: str) -> list[str]:
    """Processes that carry `mark` among their variables: whatever was started with it, and their children.

    `MARKED` is for those in which user code runs: nothing of the cluster is among theirs.
    """
    wanted = {f"DMLPIPE_CACHE_DIR={mark}".encode(), f"MARKED={mark}".encode()}
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if wanted.intersection((entry / "environ").read_bytes().split(b"\0")):
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return found


def interrupt_after(case: Case, seconds: float) -> int:
    """Start a run like one at a terminal, press Ctrl-C after a while, return its exit code."""
    mark = str(case.folder / "marked")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.killed_run", case.arena.url],
        cwd=ROOT,
        env={**os.environ, "DMLPIPE_CACHE_DIR": mark, "MARKED": mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=LIMIT_S)
    wait_for(lambda: not left(mark))
    return process.returncode


def check_end(case: Case) -> None:
    kept = stored_datums(case.store)
    case.store.run(slots=2)
    case.check(kept)


@pytest.mark.parametrize(
    "moments", [(1.0,), pytest.param(None, marks=pytest.mark.slow)], ids=["one-moment", "many-moments"]
)
def test_ctrl_c_leaves_no_process(case: Case, moments: tuple[float, ...] | None) -> None:
    chosen = moments or tuple(random.Random(5).uniform(0.1, 5.0) for _ in range(TIMES))
    for seconds in chosen:
        interrupt_after(case, seconds)
    check_end(case)


@pytest.mark.slow
def test_down_at_any_time_leaves_no_process(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = str(case.folder / "marked")
    monkeypatch.setenv("DMLPIPE_CACHE_DIR", mark)
    monkeypatch.setenv("MARKED", mark)
    store = Store.open(case.arena.url, cache_dir=mark)
    command = [str(PROGRAM), "--store", store.url, "up", "-j", "2"]
    # Any time of its coming up, and some after it: a busy machine takes longer for all of it.
    began = time.monotonic()
    subprocess.run(command, check=True, timeout=LIMIT_S)
    takes_s = time.monotonic() - began
    down(Path(mark), store.info.repo_id)
    moments = random.Random(7)
    for _ in range(TIMES):
        starting = subprocess.Popen(command)
        time.sleep(moments.uniform(0.02, 1.5) * takes_s)
        down(Path(mark), store.info.repo_id)
        starting.wait(LIMIT_S)
        down(Path(mark), store.info.repo_id)
        wait_for(lambda: not left(mark))
    try:
        up(store.url, 2, repo_id=store.info.repo_id, cache_dir=Path(mark))
    except ClusterError as error:
        pytest.fail(f"after all this no cluster comes up: {error}")
    down(Path(mark), store.info.repo_id)
    assert not left(mark)
    check_end(case)
