"""Children are kept running, and nothing of them is left afterwards. Real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dmlpipe.scheduler.cluster.supervise import ChildSpec, ProcessId, Supervisor, kill_session, log_tail

LIMIT_S = 20.0


def wait_for(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    return ProcessId.of(pid).alive()


SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
# A grandchild in a group of its own, as a slot's user code is.
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
print("up", child.pid, flush=True)
time.sleep(600)
"""
POLITE = """
import signal, sys, time
def end(*args):
    with open(sys.argv[1], "a") as file:
        file.write(sys.argv[2] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def modules(tmp_path: Path) -> dict[str, str]:
    """An environment in which the child modules can be imported."""
    for name, text in {
        "sleeper": SLEEPER,
        "stubborn": STUBBORN,
        "polite": POLITE,
        "failing": "raise SystemExit(3)",
    }.items():
        (tmp_path / f"dml_{name}.py").write_text(textwrap.dedent(text))
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def child(folder: Path, name: str, *, module: str = "", **fields: object) -> ChildSpec:
    return ChildSpec(
        name=name,
        module=f"dml_{module or name}",
        args=tuple(fields.pop("args", ())),  # type: ignore[arg-type]  # the tests' own keywords
        log=folder / f"{name}.log",
        **fields,  # type: ignore[arg-type]
    )


@contextmanager
def running(supervisor: Supervisor) -> Iterator[None]:
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        wait_for(supervisor.processes)
        yield
    finally:
        supervisor.stop()
        thread.join(LIMIT_S)
        assert not thread.is_alive()


def test_children_are_ended_politely_in_reverse(tmp_path: Path, modules: dict[str, str]) -> None:
    order = tmp_path / "order"
    specs = [
        child(tmp_path, "first", module="polite", args=(str(order), "first")),
        child(tmp_path, "second", module="polite", args=(str(order), "second")),
    ]
    supervisor = Supervisor(specs, env=modules)
    with running(supervisor):
        wait_for(lambda: all(log_tail(spec.log) == "up" for spec in specs))
        pids = [process.pid for process in supervisor.processes().values()]
    assert order.read_text().split() == ["second", "first"]
    assert not any(alive(pid) for pid in pids)


def test_a_stubborn_child_is_killed_with_all_its_descendants(tmp_path: Path, modules: dict[str, str]) -> None:
    spec = child(tmp_path, "stubborn", grace_s=0.1)
    supervisor = Supervisor([spec], env=modules)
    with running(supervisor):
        wait_for(lambda: log_tail(spec.log).startswith("up"))
        pid, grandchild = supervisor.processes()["stubborn"].pid, int(log_tail(spec.log).split()[1])
        assert alive(grandchild)
    assert not alive(pid)
    assert not alive(grandchild)


def test_a_killed_child_is_started_again_and_its_orphans_are_killed(tmp_path: Path, modules: dict[str, str]) -> None:
    spec = child(tmp_path, "stubborn", grace_s=0.1)
    supervisor = Supervisor([spec], env=modules)
    with running(supervisor):
        wait_for(lambda: log_tail(spec.log).startswith("up"))
        first, orphan = supervisor.processes()["stubborn"], int(log_tail(spec.log).split()[1])
        os.kill(first.pid, signal.SIGKILL)
        wait_for(lambda: supervisor.processes().get("stubborn", first) != first)
        assert not alive(orphan)
        assert supervisor.restarts() == {"stubborn": 1}
        assert supervisor.failure == ""


def test_a_child_that_must_not_end_fails_the_supervisor(tmp_path: Path, modules: dict[str, str]) -> None:
    spec = child(tmp_path, "sleeper", restart=False)
    supervisor = Supervisor([spec], env=modules)
    with running(supervisor):
        pid = supervisor.processes()["sleeper"].pid
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: supervisor.failure)
    assert supervisor.failure == f"the sleeper (pid {pid}) ended by signal 9; its log is {spec.log}"


def test_a_child_that_never_comes_up_is_given_up(tmp_path: Path, modules: dict[str, str]) -> None:
    spec = child(tmp_path, "failing", quick_ends_max=2)
    supervisor = Supervisor([spec], env=modules)
    with running(supervisor):
        wait_for(lambda: supervisor.failure)
    assert "ended with exit code 3" in supervisor.failure
    assert supervisor.restarts() == {"failing": 1}


def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path, modules: dict[str, str]) -> None:
    script = f"""
from pathlib import Path
from dmlpipe.scheduler.cluster.supervise import ChildSpec, Supervisor
spec = ChildSpec(name="sleeper", module="dml_sleeper", args=(), log=Path({str(tmp_path / "sleeper.log")!r}))
supervisor = Supervisor([spec])
supervisor.run(lambda: print(supervisor.processes()["sleeper"].pid, flush=True))
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=modules, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    wait_for(lambda: log_tail(tmp_path / "sleeper.log") == "up")
    parent.kill()
    parent.wait(LIMIT_S)
    parent.stdout.close()
    wait_for(lambda: not alive(pid))


def test_a_tethered_child_whose_parent_has_gone_does_not_start(modules: dict[str, str]) -> None:
    argv = [sys.executable, "-m", "dmlpipe.scheduler.cluster.tether", "1", "dml_sleeper"]
    assert subprocess.run(argv, env=modules, timeout=LIMIT_S, check=False).returncode == 1


def test_a_process_is_not_mistaken_for_a_later_one_of_its_pid() -> None:
    own = ProcessId.of(os.getpid())
    assert own.alive()
    assert not ProcessId(own.pid, "1").alive()
    assert not ProcessId(own.pid, "").alive()


def test_killing_an_empty_session_does_nothing() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    done.wait(LIMIT_S)
    kill_session(done.pid)


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert log_tail(log) == ""
    log.write_text("".join(f"line {number}\n" for number in range(2000)))
    assert log_tail(log, 2) == "line 1998\nline 1999"
