"""Keep child processes running, and end them all.

A supervisor starts its children together, each in a session of its own, tethered to the supervising thread: if that
thread or its process dies in any way, the kernel kills them. A child that ends is started again after a pause that
doubles while it keeps ending quickly. Children are ended in the reverse of the order they are listed in: SIGTERM, a
grace, then SIGKILL; whatever is left of a child's session is killed after it.

Everything here runs on one thread, the one that calls `run`.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...storage.host import process_start

__all__ = ["ChildSpec", "ProcessId", "Supervisor", "kill_session", "log_tail"]

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.05
PAUSE_FIRST_S = 0.5
PAUSE_MAX_S = 10.0
QUICK_S = 5.0
"""A child that ends sooner ended quickly."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A child to keep running."""

    name: str
    module: str
    """Run as ``python -m``."""
    args: tuple[str, ...]
    log: Path
    """Gets what the child prints, appended."""
    restart: bool = True
    """False: when it ends, the supervisor has failed."""
    grace_s: float = 5.0
    """From SIGTERM to SIGKILL."""
    quick_ends_max: int = 0
    """The supervisor has failed after so many quick ends in a row; 0: never."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be mistaken for a later one of the same pid."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """Name the process that has `pid` now."""
        return cls(pid, process_start(pid) or "")

    def alive(self) -> bool:
        """Whether it still runs."""
        return bool(self.started) and process_start(self.pid) == self.started


def log_tail(log: Path, lines: int = 12) -> str:
    """Return the last lines of a log file; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def kill_session(session: int) -> None:
    """SIGKILL every process of a session (Linux), or of the group of that number elsewhere."""
    proc = Path("/proc")
    if (proc / "self" / "stat").exists():
        # A process that forks while we look is seen the next time.
        for _ in range(5):
            members = [int(entry.name) for entry in proc.iterdir() if entry.name.isdigit() and _in(entry, session)]
            for pid in members:
                _kill(pid)
            if not members:
                return
            time.sleep(0.01)
        return
    try:
        os.killpg(session, signal.SIGKILL)
    except ProcessLookupError:
        return


def _in(entry: Path, session: int) -> bool:
    try:
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] not in "ZX" and int(fields[3]) == session


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


class _Child:
    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.id = ProcessId(0, "")
        self.started_at = 0.0
        self.start_at = 0.0
        self.starts = 0
        self.quick_ends = 0

    def start(self, env: Mapping[str, str] | None, cwd: Path | None) -> None:
        spec = self.spec
        # -P: a file of the user's folder must not stand in for a module of ours.
        argv = [
            sys.executable,
            "-P",
            "-m",
            "dmlpipe.scheduler.cluster.tether",
            str(os.getpid()),
            spec.module,
            *spec.args,
        ]
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        with spec.log.open("ab") as log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=cwd, start_new_session=True
            )
        self.id = ProcessId.of(self.process.pid)
        self.started_at = time.monotonic()
        self.starts += 1

    def reap(self) -> int | None:
        """Exit code if it has ended; then nothing is left of its session."""
        process = self.process
        if process is None:
            return None
        code = process.poll()
        if code is None:
            return None
        kill_session(process.pid)
        self.process = None
        return code

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)


class Supervisor:
    """Children, and what is to happen when one ends.

    Parameters
    ----------
    specs
        In the order of starting; they are ended in reverse.
    on_change
        Called when a child was started or has ended.
    env, cwd
        Of the children; default: this process's.
    """

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        *,
        on_change: Callable[[], None] = lambda: None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._children = [_Child(spec) for spec in specs]
        self._on_change = on_change
        self._env = env
        self._cwd = cwd
        # Not an Event: its lock, taken in a signal handler, may be the one that the interrupted code holds.
        self._stopping = False
        self.failure = ""
        """Why it gave up; empty while all is well."""

    def run(self, started: Callable[[], None] = lambda: None, each: Callable[[], None] = lambda: None) -> None:
        """Start the children, keep them running until `stop`, end them.

        Parameters
        ----------
        started
            Called once all were started.
        each
            Called every time it has looked after them; may call `adapt`.
        """
        try:
            for child in self._children:
                child.start(self._env, self._cwd)
            self._on_change()
            started()
            while not self._stopping:
                self._look()
                each()
                time.sleep(LOOK_EVERY_S)
        finally:
            self._end()

    def stop(self) -> None:
        """Make `run` end the children and return. From any thread or signal handler."""
        self._stopping = True

    def adapt(self, specs: Sequence[ChildSpec]) -> None:
        """Keep these children from here on: end those that are not among them, or have changed; start what is new."""
        known = {child.spec: child for child in self._children}
        gone = [child for child in self._children if child.spec not in specs]
        if not gone and len(known) == len(specs):
            return
        for child in gone:
            self._end_one(child)
        self._children = [known.get(spec) or _Child(spec) for spec in specs]
        for child in self._children:
            if child.spec not in known:
                child.start(self._env, self._cwd)
        self._on_change()

    def processes(self) -> dict[str, ProcessId]:
        """The children that run now, by name."""
        return {child.spec.name: child.id for child in self._children if child.process is not None}

    def restarts(self) -> dict[str, int]:
        """How often each child was started again."""
        return {child.spec.name: max(0, child.starts - 1) for child in self._children}

    def _look(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.process is None:
                if not self.failure and now >= child.start_at:
                    child.start(self._env, self._cwd)
                    self._on_change()
                continue
            code = child.reap()
            if code is not None:
                self._ended(child, code, now)
                self._on_change()

    def _ended(self, child: _Child, code: int, now: float) -> None:
        spec = child.spec
        lived_s = now - child.started_at
        child.quick_ends = child.quick_ends + 1 if lived_s < QUICK_S else 0
        logger.warning("%s (pid %d) ended with %d after %.1f s", spec.name, child.id.pid, code, lived_s)
        if not spec.restart or (spec.quick_ends_max and child.quick_ends >= spec.quick_ends_max):
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            self.failure = f"the {spec.name} (pid {child.id.pid}) ended {how}; its log is {spec.log}"
            return
        pause_s = PAUSE_FIRST_S * 2 ** max(0, child.quick_ends - 1)
        # The first quick end of a child that had lived long before is the common case: a kill. Be back at once.
        child.start_at = now + (0.0 if child.quick_ends == 0 else min(PAUSE_MAX_S, pause_s))

    def _end(self) -> None:
        for child in reversed(self._children):
            self._end_one(child)
        self._on_change()

    def _end_one(self, child: _Child) -> None:
        process = child.process
        if process is None:
            return
        child.signal(signal.SIGTERM)
        try:
            process.wait(child.spec.grace_s)
        except subprocess.TimeoutExpired:
            logger.warning(
                "%s (pid %d) did not end in %.0f s: killed", child.spec.name, process.pid, child.spec.grace_s
            )
            process.kill()
            process.wait()
        kill_session(process.pid)
        child.process = None
