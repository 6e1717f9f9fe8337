"""The process that slot children are forked from: ``python -m dmlpipe.worker.child.zygote FD``.

It is started by `exec` with a clean environment, so that neither the worker's memory nor its variables are in it; it
imports no Dask and has one thread. It forks a child per request, and it alone reaps them: a pid that it was not asked
to end stays a zombie, so no signal can hit a stranger. It adopts what dead children leave behind, and when its socket
closes (the worker ended in whatever way) it ends everything and itself.

Requests and replies are msgpack frames on one socket, strictly one after the other.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from ...storage.errors import DmlpipeError, ErrorCode
from .frames import FrameSocket, PeerClosedError, socket_pair
from .main import main as child_main
from .permits import Permits
from .processes import adopt_orphans, end_children, prefer_as_oom_victim

_START_TIMEOUT_S = 60.0
_REPLY_TIMEOUT_S = 30.0


class Spawn(msgspec.Struct, frozen=True, tag="spawn"):
    """Fork a child; the frame carries its socket, its log file and its pipe of permits."""

    root: str
    users: bool = False


class Signal(msgspec.Struct, frozen=True, tag="signal"):
    """Send a signal to a child that was not ended yet."""

    pid: int
    number: int


class End(msgspec.Struct, frozen=True, tag="end"):
    """Kill a child's group and its orphans, and reap it."""

    pid: int


class Reply(msgspec.Struct, frozen=True):
    """Answer: the pid of a new child, or how a child ended (`os.waitstatus_to_exitcode`)."""

    value: int
    killed: bool = False
    """`End`: it was alive until then."""


_Request = Spawn | Signal | End
_encode = msgspec.msgpack.Encoder().encode
_decode_request: msgspec.msgpack.Decoder[_Request] = msgspec.msgpack.Decoder(_Request)
_decode_reply = msgspec.msgpack.Decoder(Reply)


class ZygoteError(DmlpipeError):
    """The zygote does not start or died: its worker cannot run user code any more."""

    default_code = ErrorCode.CLUSTER


class Exit(NamedTuple):
    """How a child ended."""

    status: int
    """Exit code, or minus the signal's number."""
    killed: bool
    """We ended it."""


class Zygote:
    """The worker's side. Safe for use by many threads.

    Parameters
    ----------
    env
        Environment of the zygote and, until their first job, of its children.
    python
        Interpreter.
    words
        What starts it, in place of `python`; its descriptor follows.
    log
        Descriptor of a file that takes what it prints, and stays the caller's; None: where this process prints.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        *,
        python: str = sys.executable,
        words: tuple[str, ...] | None = None,
        log: int | None = None,
    ) -> None:
        self._env = dict(env)
        self._log = None if log is None else os.dup(log)
        self._others: dict[tuple[str, ...], Zygote] = {}
        ours, theirs = socket_pair()
        with theirs:
            self._process = subprocess.Popen(
                [*(words or (python, "-P", "-m", "dmlpipe.worker.child.zygote")), str(theirs.fileno())],
                env=self._env,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                # Out of the terminal's group: Ctrl-C is for the controller, who stops us in order.
                start_new_session=True,
            )
        self._channel = FrameSocket(ours)
        self._lock = threading.Lock()
        self._started = False

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def of(self, words: tuple[str, ...]) -> Zygote:
        """Return the zygote that `words` start, which ends with this one; of no words, this one."""
        if not words:
            return self
        with self._lock:
            if words not in self._others:
                apart = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
                env = {name: value for name, value in self._env.items() if name not in apart}
                self._others[words] = Zygote(env, words=words, log=self._log)
            return self._others[words]

    def wait_started(self) -> None:
        """Return when it can fork; raise `ZygoteError` if it cannot be started."""
        with self._lock:
            self._await_start()

    def _await_start(self) -> None:
        if not self._started:
            self._receive(_START_TIMEOUT_S, "start")
            self._started = True

    def _receive(self, timeout_s: float, what: str) -> Reply:
        try:
            frame = self._channel.receive(timeout_s)
        except PeerClosedError as err:
            raise ZygoteError(f"the zygote ended while it should {what} (exit {self._process.poll()})") from err
        if frame is None:
            raise ZygoteError(f"the zygote did not {what} within {timeout_s:g} s")
        return _decode_reply.decode(frame.payload)

    def _ask(self, request: _Request, fds: tuple[int, ...] = ()) -> Reply:
        with self._lock:
            self._await_start()
            try:
                self._channel.send(_encode(request), fds)
            except PeerClosedError as err:
                raise ZygoteError(f"the zygote is gone (exit {self._process.poll()})") from err
            return self._receive(_REPLY_TIMEOUT_S, "answer")

    def spawn(self, sock: int, log_fd: int, permits: int, root: str = "", *, users: bool = False) -> int:
        """Fork a child and return its pid; the descriptors are duplicated, the caller keeps its own."""
        return self._ask(Spawn(root, users), (sock, log_fd, permits)).value

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a child that was not ended yet."""
        self._ask(Signal(pid, number))

    def end(self, pid: int) -> Exit:
        """Kill a child with everything it started, if it lives, and return how it ended. Once per child."""
        reply = self._ask(End(pid))
        return Exit(reply.value, reply.killed)

    def close(self) -> None:
        """End all children and the zygote. Idempotent."""
        with self._lock:
            for other in self._others.values():
                other.close()
            self._channel.close()
            if self._log is not None:
                os.close(self._log)
                self._log = None
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def main(fd: int) -> None:
    """Fork children on request until the socket closes."""
    channel = FrameSocket(socket.socket(fileno=fd))
    os.set_inheritable(fd, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    adopt_orphans()
    pids: set[int] = set()
    try:
        channel.send(_encode(Reply(os.getpid())))
        while True:
            frame = channel.receive()
            assert frame is not None
            request = _decode_request.decode(frame.payload)
            match request:
                case Spawn():
                    pid = _fork(request, frame.fds, channel)
                    pids.add(pid)
                    reply = Reply(pid)
                case Signal():
                    if request.pid in pids:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(request.pid, request.number)
                    reply = Reply(0)
                case End():
                    reply = _end(request.pid, pids)
            channel.send(_encode(reply))
    except PeerClosedError:
        for pid in list(pids):
            _end(pid, pids)
        end_children()


def _end(pid: int, pids: set[int]) -> Reply:
    if pid not in pids:
        return Reply(0)
    alive = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None
    # The group exists as long as its leader is not reaped, dead or not.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    pids.discard(pid)
    end_children(frozenset(pids))
    return Reply(os.waitstatus_to_exitcode(status), alive)


def _fork(request: Spawn, fds: list[int], channel: FrameSocket) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        for fd in fds:
            os.close(fd)
        # Both sides call it: whoever is first, the group is there when this returns.
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)
        return pid
    try:
        os.setpgid(0, 0)
        channel.close()
        prefer_as_oom_victim()
        sock, log_fd, permits = fds
        child_main(socket.socket(fileno=sock), log_fd, Permits(permits), request.root, parent, users=request.users)
    except BaseException:  # noqa: BLE001 - the end of this process, whatever it was; the slot reads its log
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(70)


if __name__ == "__main__":
    main(int(sys.argv[1]))
