"""`kill -9` of `run` at five points, and of a worker in its middle: the same tree, nothing stored is computed again."""

from __future__ import annotations

import collections
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmlpipe.scheduler.store import Store
from dmlpipe.storage.objects.pack import read_rows
from dmlpipe.storage.objects.segment import decode_rows
from tests.faults.killed_run import MORE_POINTS, POINTS

ROOT = Path(__file__).parents[2]
DATUMS = 24

DAG = """
import os
import time
from pathlib import Path

import dmlpipe as dml

dag = dml.DAG("kills")


@dag.pipeline(dml.files("numbers", "/{stem}"))
def work(numbers: Path, stem: str, *, log: str = "") -> dml.Files:
    with open(log, "a") as calls:  # one line a call: O_APPEND keeps them whole
        calls.write(stem + "\\n")
    time.sleep(0.02)
    return {f"{stem}.out": numbers.read_text() * 50}


@dag.pipeline(dml.files("work"))
def total(work: Path) -> dml.Files:
    return {"total": "".join(path.read_text() for path in sorted(work.iterdir()))}
"""


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A store with data and pipelines, and the file that user code counts its calls in."""
    monkeypatch.setenv("DMLPIPE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DMLPIPE_FLUSH_S", "0.1")
    monkeypatch.setenv("DMLPIPE_FOLD_SEGMENTS", "2")
    (tmp_path / "dag.py").write_text(DAG)
    log = tmp_path / "calls"
    log.touch()
    store = Store.init(tmp_path / "store")
    with store.commit("numbers") as session:
        for number in range(DATUMS):
            session.write(f"n{number:02d}", f"{number} ")
    store.submit(tmp_path / "dag.py", params={"work": {"log": str(log)}})
    return str(tmp_path / "store"), log


def start(url: str, point: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.killed_run", url, point],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def stored_datums(store: Store) -> set[str]:
    """Datums of `work` whose rows are in stored segments."""
    found: set[str] = set()
    for job, state in store.refresh().jobs("work"):
        assert state.pipeline == "work"
        for key, _ in store.backend.list(f"results/{job}/"):
            if key.endswith(".seg"):
                rows, _ = read_rows(store.backend, key)
                found |= {row.key.decode() for row in decode_rows(rows)}
    return found


def calls_of(log: Path) -> collections.Counter[str]:
    return collections.Counter(log.read_text().split())


def expected_total() -> str:
    return "".join(f"{number} " * 50 for number in range(DATUMS))


@pytest.mark.parametrize("point", [*POINTS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_POINTS)])
def test_a_killed_run_goes_on_where_it_was(prepared: tuple[str, Path], point: str) -> None:
    url, log = prepared
    code, _, err = finish(start(url, point))
    assert code == -signal.SIGKILL, err
    store = Store.open(url)
    stored = stored_datums(store)
    if point in ("before-the-first-segment", "before-the-start", "after-the-start"):
        assert not stored
    else:
        assert stored
    # Children of the killed process end by themselves; a second run may begin at once all the same.
    code, out, err = finish(start(url))
    assert (code, out.strip()) == (0, "ok"), err
    calls = calls_of(log)
    assert set(calls) == {f"n{number:02d}" for number in range(DATUMS)}
    assert {name: calls[name] for name in stored if calls[name] != 1} == {}
    store.refresh()
    assert store["total"].read_bytes("/total").decode() == expected_total()
    assert len(list(store["work"].ls("/"))) == DATUMS


def test_a_tree_after_kills_is_the_tree_without(prepared: tuple[str, Path], tmp_path: Path) -> None:
    url, log = prepared
    for point in ("after-a-segment", "during-the-fold", "before-the-entry"):
        finish(start(url, point))
    assert finish(start(url))[1].strip() == "ok"
    other = Store.init(tmp_path / "other")
    with other.commit("numbers") as session:
        for number in range(DATUMS):
            session.write(f"n{number:02d}", f"{number} ")
    other.submit(tmp_path / "dag.py", params={"work": {"log": str(log)}})
    assert finish(start(str(tmp_path / "other")))[1].strip() == "ok"
    store = Store.open(url)
    for repo in ("work", "total"):
        assert store[repo].tree.root == other[repo].tree.root


def test_a_killed_worker_loses_only_what_it_had_not_stored(
    prepared: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, log = prepared
    monkeypatch.setenv("WORKER_PROCESS", "1")
    process = start(url)
    worker = wait_for_worker(process.pid)
    store = Store.open(url)
    until = time.monotonic() + 30
    while not (stored := stored_datums(store)):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(worker, signal.SIGKILL)
    code, out, err = finish(process)
    assert (code, out.strip()) == (0, "ok"), err
    calls = calls_of(log)
    assert {name: calls[name] for name in stored if calls[name] != 1} == {}
    store.refresh()
    assert store["total"].read_bytes("/total").decode() == expected_total()


def wait_for_worker(parent: int) -> int:
    """Pid of the worker process among the descendants of `parent`."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                status = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if b"dmlpipe.worker" in words and int(status[1]) == parent:
                return int(entry.name)
        time.sleep(0.01)
    raise AssertionError("no worker was started")
