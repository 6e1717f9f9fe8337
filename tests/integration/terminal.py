"""A person at a terminal: types `dmlpipe` in a folder, in processes of their own."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from dmlpipe.scheduler.store import Store

PROGRAM = Path(sys.executable).with_name("dmlpipe")
LIMIT_S = 60.0
_NOT_INHERITED = re.compile(r"DMLPIPE_\w+|AWS_\w+|CI|NO_COLOR|FORCE_COLOR|PYTHONPATH|PYTEST_\w+")


def wait_for(happened: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Look until something has happened; fail when it has not in time."""
    until = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


@dataclasses.dataclass(frozen=True)
class Terminal:
    """A folder to stand in, and caches of its own."""

    folder: Path
    cache: Path
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """More of the environment."""

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not _NOT_INHERITED.fullmatch(name)}
        settings = {"DMLPIPE_CACHE_DIR": str(self.cache), "DMLPIPE_FSYNC": "never", "DMLPIPE_FLUSH_S": "0.2"}
        return kept | settings | dict(self.variables)

    def type(self, *words: str | Path, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a `dmlpipe` command to its end, and expect an exit code (None: any)."""
        done = subprocess.run(
            [PROGRAM, *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert code is None or done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def begin(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start a `dmlpipe` command."""
        return subprocess.Popen(
            [PROGRAM, *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def store(self) -> Store:
        """Open the store of the folder, to look."""
        return Store.open(self.folder / ".dmlpipe", cache_dir=self.cache, read_only=True)

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def jobs(self, *, last: int) -> list[tuple[str, str, int, int, int]]:
        """Pipeline, state, datums run, skipped, failed of the last jobs, oldest first."""
        done = [
            (job.pipeline, job.state, job.end.counters.run, job.end.counters.skipped, job.end.counters.failed)
            for _, job in self.store().refresh().jobs()
        ]
        return done[:last][::-1]

    def processes(self) -> list[int]:
        """Ids of the living processes that were started from here, directly or not."""
        mark = f"DMLPIPE_CACHE_DIR={self.cache}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or entry.name == str(os.getpid()):
                continue
            try:
                # A process that has ended, and was not yet asked for, has no environment.
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found

    def leave(self) -> None:
        """Fail if processes are left that do not end by themselves soon; kill them."""
        try:
            wait_for(lambda: not self.processes(), 10.0)
        except AssertionError:
            left = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ") for pid in self.processes()}
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"processes were left: {left}") from None
