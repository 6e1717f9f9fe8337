"""A host that holds the model sends garbage, stalls, or disappears: the job's results are those of a quiet run."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from dmlpipe.scheduler.store import Store
from tests.faults.arena import Arena, fill, stored_datums, tally, trees, undisturbed_trees, wait_for

DAG = """
import hashlib
import os
import time
from pathlib import Path

import dmlpipe as dml

dag = dml.DAG("peers")


@dag.pipeline(dml.cross(numbers=dml.files("numbers", "/{{stem}}"), model=dml.files("model")))
def work(numbers: Path, stem: str, model: Path) -> dml.Files:
    if {log!r}:
        handle = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, (stem + "\\n").encode())
        os.close(handle)
        while not os.path.exists({log!r} + ".go") and int(stem) > 3:
            time.sleep(0.01)
    seen = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(model.iterdir())))
    return {{f"{{stem}}.out": seen.hexdigest() + numbers.read_text()}}
"""


def worker(arena: Arena, mode: str) -> None:
    argv = [sys.executable, "-m", "tests.faults.peer_worker", mode, arena.address, "--store", arena.url]
    cache = {"DMLPIPE_CACHE_DIR": str(arena.folder / f"cache-{mode}")}
    arena.workers.append(arena.start(f"worker-{mode}", [*argv, "--slots", "1", "--name", mode], cache))


@pytest.mark.parametrize("mode", ["garbage", "stall", "vanish"])
def test_a_bad_peer_changes_no_result(tmp_path: Path, mode: str) -> None:
    dag, quiet, log = tmp_path / "dag.py", tmp_path / "quiet" / "dag.py", tmp_path / "calls"
    quiet.parent.mkdir()
    dag.write_text(DAG.format(log=str(log)))
    quiet.write_text(DAG.format(log=""))
    data = {
        "numbers": {f"{number:02d}": f"{number}" for number in range(12)},
        "model": {f"part-{number}": os.urandom(600_000).hex() for number in range(3)},
    }
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    fill(store, data)
    store.submit(dag)
    kept: set[str] = set()
    with Arena(tmp_path, store.url) as arena:
        arena.start_scheduler()
        worker(arena, mode)

        def strike() -> bool:
            # The bad host has the model, and waits in a datum; the good one joins and is sent to it.
            kept.update(stored_datums(store))
            worker(arena, "good")
            wait_for(lambda: re.search(rf"did not come from {mode}", said(arena, "good")))
            if mode != "vanish":
                os.killpg(arena.workers[0].pid, signal.SIGKILL)
            (tmp_path / "calls.go").touch()
            return True

        executor = arena.executor(store)
        executor.strike = strike
        assert store.run(executor=executor).ok
        reason = {"garbage": "garbage", "stall": "stalled", "vanish": "gone"}[mode]
        assert f"did not come from {mode}: {reason}" in said(arena, "good")
        if mode == "garbage":
            log_text = next(arena.folder.glob("scheduler-*.log")).read_text()
            assert "got garbage from garbage" in log_text
        if mode == "vanish":
            assert arena.workers[0].wait(30) == 9
        assert trees(store) == undisturbed_trees(quiet, data, tmp_path), arena.logs()
    assert kept
    calls = tally(log)
    assert {name: calls[name] for name in kept if name in calls and calls[name] != 1} == {}


def said(arena: Arena, mode: str) -> str:
    """What a worker printed so far."""
    return "".join(log.read_text() for log in arena.folder.glob(f"worker-{mode}-*.log"))
