"""One process for many datums: it asks for the next one, in any language.

Beside the command stands a folder with two pipes, ``ask`` and ``answer``; `$DMLPIPE_NEXT` names it. A line ``next`` or
``error MESSAGE`` on ``ask`` says how the present datum ended (the first one: nothing) and asks for the next; a line on
``answer`` says that its files are in ``/pfs``. `dmlpipe next datum` and `pachctl next datum` do that: a shell script
of both names stands first on the command's `PATH`, so it costs a millisecond and needs no Python.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.objects.segment import Failure
from .failure import exit_failure

NEXT = "DMLPIPE_NEXT"
SCRIPTS = ("dmlpipe", "pachctl")
_LINE_MAX_BYTES = 4000
"""Writes of up to 4,096 bytes to a pipe are not torn."""

_SCRIPT = """#!/bin/sh
# `next datum [--error MESSAGE]` asks for the next datum; anything else goes to the program of this name behind us.
if [ "$1" = next ] && [ "$2" = datum ]; then
    shift 2
    message=
    while [ $# -gt 0 ]; do
        case $1 in
            --error) message=${2:-failed}; shift ;;
            --error=*) message=${1#--error=} ;;
            *) echo "error: next datum takes --error MESSAGE, not '$1'" >&2; exit 2 ;;
        esac
        shift
    done
    line=next
    [ -z "$message" ] || line="error $(printf %.3900s "$message" | tr '\\n' ' ')"
    printf '%s\\n' "$line" > "$DMLPIPE_NEXT/ask" || exit 1
    read -r answer < "$DMLPIPE_NEXT/answer" || exit 1
    exit 0
fi
here=$(dirname "$0")
PATH=$(printf %s ":$PATH:" | sed "s|:$here:|:|g; s|^:||; s|:$||")
exec "$(basename "$0")" "$@"
"""


class Batch:
    """The process of a command that asks for its datums.

    Parameters
    ----------
    folder
        Private to the slot; the pipes and the script are made in it.
    on_end
        Ends what the end of the process does not, such as a container that its program started.
    """

    def __init__(self, folder: str, on_end: Callable[[], object] = lambda: None) -> None:
        self.folder = folder
        self._on_end = on_end
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = False
        self._served = 0
        programs = os.path.join(folder, "bin")
        os.makedirs(programs, exist_ok=True)
        for name in SCRIPTS:
            path = os.path.join(programs, name)
            with open(path, "w", encoding="utf-8") as file:
                file.write(_SCRIPT)
            os.chmod(path, 0o755)
        self._ask = self._answer = -1

    def _open(self) -> None:
        """Make the pipes anew: an old one may hold what a process that was killed wrote, or have its readers."""
        self._close_pipes()
        self._ask, self._answer = (self._pipe(name) for name in ("ask", "answer"))

    def _close_pipes(self) -> None:
        for fd in (self._ask, self._answer):
            if fd >= 0:
                os.close(fd)
        self._ask = self._answer = -1

    def _pipe(self, name: str) -> int:
        path = os.path.join(self.folder, name)
        if os.path.lexists(path):
            os.unlink(path)
        os.mkfifo(path)
        os.chmod(path, 0o666)
        # Open at both ends, so that neither side ever meets an end of file.
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def pids(self) -> frozenset[int]:
        """The process, if it lives: not to be ended with what a datum left."""
        return frozenset({self._process.pid} if self._process is not None else ())

    def variables(self, path: str) -> dict[str, str]:
        """What the process needs to ask, given the `PATH` it would have."""
        return {NEXT: self.folder, "PATH": os.path.join(self.folder, "bin") + os.pathsep + path}

    def run(self, start: Callable[[], subprocess.Popen[bytes]], *, at_most: int = 0) -> Failure | None:
        """Hand over one datum, whose files are in place; return why it failed, or None.

        Parameters
        ----------
        start
            Starts the process, if none waits, as the leader of a group.
        at_most
            Datums of one process; 0: no bound.
        """
        if self._process is None:
            self._open()
            self._process, self._served, self._asked = start(), 0, False
        if not self._asked:
            first = self._heard()
            if not isinstance(first, str):
                return first
        self._asked = False
        os.write(self._answer, b"datum\n")
        said = self._heard()
        if not isinstance(said, str):
            return said
        self._asked = True
        self._served += 1
        if at_most and self._served >= at_most:
            self.end()
        word, _, message = said.partition(" ")
        return Failure(kind="command", message=message or "it reported an error") if word == "error" else None

    def _heard(self) -> str | Failure:
        """The next line that the process asks with; a failure if it ends instead."""
        process = self._process
        assert process is not None
        line = b""
        with _Exit(process) as exit_:
            while not line.endswith(b"\n"):
                exit_.wait(self._ask)
                try:
                    line += os.read(self._ask, _LINE_MAX_BYTES)
                    continue
                except BlockingIOError:
                    pass
                status = process.poll()
                if status is not None:
                    self._process = None
                    self._on_end()
                    failure = exit_failure(status, what="the command")
                    text = f"{failure.message} before it asked for the next datum"
                    return Failure(failure.kind, text)
        return line.decode(errors="replace").strip()

    def end(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        self._asked = False
        if process is not None:
            # With what it started: the script that asks for it would take what the next process is told.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self._on_end()

    def close(self) -> None:
        """End the process and close the pipes. Idempotent."""
        self.end()
        self._close_pipes()


class _Exit:
    """Waits for something to read, or for the end of a process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._pid = process.pid
        self._fd = -1

    def __enter__(self) -> _Exit:
        if hasattr(os, "pidfd_open"):
            self._fd = os.pidfd_open(self._pid)
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def wait(self, fd: int) -> None:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        if self._fd >= 0:
            poller.register(self._fd, select.POLLIN)
        poller.poll(None if self._fd >= 0 else 100)


def ask_next(folder: str, error: str = "") -> None:
    """Ask for the next datum from inside a command: what `dmlpipe next datum` does.

    Raises
    ------
    InvalidInputError
        There is nobody to ask: `folder` is no folder of `$DMLPIPE_NEXT` (code ``bad-spec``).
    """
    ask = Path(folder) / "ask" if folder else None
    if ask is None or not ask.exists() or not stat.S_ISFIFO(ask.stat().st_mode):
        raise InvalidInputError(
            "there is no next datum to ask for: this is no command with datum_batching",
            code=ErrorCode.BAD_SPEC,
            hint='"transform": {"datum_batching": true, ...}',
        )
    line = "error " + " ".join(error.split()) if error else "next"
    ask.write_bytes(line.encode()[: _LINE_MAX_BYTES - 1] + b"\n")
    with (Path(folder) / "answer").open("rb", buffering=0) as answer:
        while answer.read(1) != b"\n":
            continue
