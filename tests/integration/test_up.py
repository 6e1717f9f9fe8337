"""`up`, `put` from another process, `run` beside it, `kill -9`, `down`: a cluster in the background, as it is used."""

from __future__ import annotations

import collections
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmlpipe.scheduler.cluster.supervise import ProcessId
from dmlpipe.storage.objects.pack import read_rows
from dmlpipe.storage.objects.segment import decode_rows
from dmlpipe.storage.records import JobStart
from tests.integration.terminal import PROGRAM, Terminal, wait_for

pytestmark = pytest.mark.timeout(150)

SOON_S = 20.0
"""A put starts its jobs within a second; this is for machines that do much else."""

DAG = """
import time
from pathlib import Path

import dmlpipe as dml

dag = dml.DAG("words")


@dag.pipeline(dml.files("texts", "/{stem}.txt"))
def counts(texts: Path, stem: str, *, gate: str = "", log: str = "") -> dml.Files:
    with open(log, "a") as calls:  # one line a call: O_APPEND keeps them whole
        calls.write(stem + "\\n")
    while stem == "zz" and not Path(gate).exists():
        time.sleep(0.01)
    if stem == "bad":
        raise ValueError("no bad words please")
    return {f"{stem}.json": str(len(texts.read_text().split()))}


@dag.pipeline(dml.files("counts"))
def total(counts: Path) -> dml.Files:
    return {"total": str(sum(int(path.read_text()) for path in counts.iterdir()))}
"""

IN_A_TERMINAL = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
"""Runs a command in a session with a terminal, which hangs up when the command has ended."""


@pytest.fixture
def work(terminal: Terminal) -> Iterator[Terminal]:
    """A store with pipelines that wait for their first commit; what is up at the end is ended."""
    terminal.write("dag.py", DAG)
    terminal.write("calls", "")
    terminal.write("texts/a.txt", "one two")
    terminal.write("texts/b.txt", "three")
    terminal.type("init")
    terminal.type("repo", "create", "texts")
    terminal.type(
        "submit", "dag.py", "--set", f"counts.gate={terminal.folder}/gate", "--set", f"counts.log={log(terminal)}"
    )
    yield terminal
    terminal.type("down")


def log(work: Terminal) -> Path:
    return work.folder / "calls"


def processes(work: Terminal) -> dict[str, ProcessId]:
    """What `status` shows."""
    store = json.loads(work.type("status", "--json").stdout.splitlines()[0])
    return {name: ProcessId.of(pid) for name, pid in store["cluster"].get("processes", {}).items()}


def started_after(work: Terminal, n: int) -> bool:
    return any(isinstance(record, JobStart) for entry, _ in work.store().ledger.entries(n + 1) for record in entry.recs)


def total(work: Terminal) -> str:
    return work.type("cat", "total:/total").stdout


def test_a_put_from_another_process_starts_the_jobs_and_down_ends_only_its_own(work: Terminal) -> None:
    decoy = subprocess.Popen(
        [sys.executable, "-c", "input()", "dmlpipe.worker", "--store", str(work.folder / ".dmlpipe")],
        stdin=subprocess.PIPE,
        cwd=work.folder,
    )
    try:
        opened = subprocess.run(
            [sys.executable, "-c", IN_A_TERMINAL, PROGRAM, "up", "-j", "2"],
            cwd=work.folder,
            env=work.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert "up: 2 slots" in opened.stdout
        # The terminal has hung up; they are still there, and have none.
        mine = processes(work)
        assert set(mine) == {"supervisor", "scheduler", "worker", "controller"}
        for each in mine.values():
            assert Path(f"/proc/{each.pid}/stat").read_text().rpartition(")")[2].split()[4] == "0", "its terminal"
        shown = work.type("status").stdout
        assert re.search(r"controller: up on ", shown)
        assert re.search(r"cluster: 2 slots at tcp://127\.0\.0\.1:\d+", shown)

        before = work.store().refresh().n
        work.type("put", "texts", "texts")
        wait_for(lambda: started_after(work, before), SOON_S)
        work.type("wait", "--timeout", "60")
        assert total(work) == "3"

        # `run` beside it lets it work, and reports.
        epoch = work.store().refresh().controller()
        work.write("texts/zz.txt", "four five six")
        work.type("put", "texts", "texts")
        beside = work.begin("run")
        assert beside.stderr is not None
        begun = [beside.stderr.readline() for _ in range(2)]
        assert begun[0].startswith("run ")
        assert begun[1] == "  counts  under way\n"
        (work.folder / "gate").touch()
        out, err = beside.communicate(timeout=60)
        assert beside.returncode == 0, err
        assert re.search(r"counts  ✔ 1 run  2 skipped +[\d.]+ m?s   counts@[0-9a-f]{6}", err)
        assert re.search(r"^done in .* · 2 datums run, 2 skipped", out)
        assert total(work) == "6"
        assert work.store().refresh().controller() == epoch
        assert work.type("run").stdout == "nothing to do: everything is up to date\n"
        assert work.jobs(last=4) == [
            ("counts", "done", 2, 0, 0),
            ("total", "done", 1, 0, 0),
            ("counts", "done", 1, 2, 0),
            ("total", "done", 1, 0, 0),
        ]

        assert processes(work) == mine, "none was started again meanwhile"
        assert work.type("down").stdout == "down\n"
        assert not any(each.alive() for each in mine.values())
        assert decoy.poll() is None
        assert "cluster:" not in work.type("status").stdout
    finally:
        decoy.kill()
        decoy.communicate(timeout=30)


def test_a_run_beside_it_tells_of_failures_and_has_them_tried_again(work: Terminal) -> None:
    work.type("up", "-j", "1")
    work.write("texts/bad.txt", "x")
    work.type("put", "texts", "texts")
    work.type("wait", "--timeout", "60", code=None)
    assert work.jobs(last=2) == [("counts", "failed", 2, 0, 1), ("total", "unrunnable", 0, 0, 0)]
    # `up` does not try again by itself, `run` asks it to.
    told = work.type("run", code=1)
    assert "ValueError: no bad words please" in told.stdout
    assert re.search(r"dag\.py:\d+ in counts    raise ValueError", told.stdout)
    assert re.search(r"total  – did not run   counts failed in job [0-9a-f]{6}", told.stderr)
    assert work.jobs(last=2) == [("counts", "failed", 0, 2, 1), ("total", "unrunnable", 0, 0, 0)]
    # The cause goes away: up goes on by itself.
    work.type("rm", "texts:/bad.txt")
    work.type("wait", "--timeout", "60")
    assert total(work) == "3"


def test_a_killed_controller_comes_back_and_goes_on(work: Terminal) -> None:
    work.type("up", "-j", "2")
    before = processes(work)
    for number in range(6):
        work.write(f"texts/n{number}.txt", "x " * number)
    work.write("texts/zz.txt", "y")
    work.type("put", "texts", "texts")
    wait_for(lambda: len(stored(work)) == 8)
    os.kill(before["controller"].pid, signal.SIGKILL)
    wait_for(lambda: "controller" in (now := processes(work)) and now["controller"] != before["controller"])
    (work.folder / "gate").touch()
    work.type("wait", "--timeout", "60")
    assert total(work) == str(3 + sum(range(6)) + 1)
    now = processes(work)
    assert {name: now[name] for name in ("supervisor", "scheduler", "worker")} == {
        name: before[name] for name in ("supervisor", "scheduler", "worker")
    }
    # Nothing that was stored was computed again; only the one in the middle may have been.
    calls = collections.Counter(log(work).read_text().split())
    assert calls.pop("zz") in (1, 2)
    assert calls == dict.fromkeys(["a", "b", *(f"n{number}" for number in range(6))], 1)
    controller = work.store().refresh().controller()
    assert controller is not None
    assert controller.pid == now["controller"].pid


def stored(work: Terminal) -> set[str]:
    """Datums whose rows are in stored segments."""
    store = work.store()
    found: set[str] = set()
    for job, _ in store.refresh().jobs("counts"):
        for key, _ in store.backend.list(f"results/{job}/"):
            if key.endswith(".seg"):
                found |= {row.key.decode() for row in decode_rows(read_rows(store.backend, key)[0])}
    return found
