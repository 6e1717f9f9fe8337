"""The parent's side of one slot child: start it, talk to it, end it in time. Blocking; one thread per slot."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..child.frames import FrameSocket, GiveUp, PeerClosedError, socket_pair
from ..child.main import read_log
from ..child.permits import PermitPipe
from ..child.wire import FromChild, Setup, Unit, Work, encoder, from_child
from ..child.zygote import Exit, Zygote
from .usage import bound_log, memory_bytes

_STACK_GRACE_S = 0.25
"""How long a hanging child gets to print where it hangs."""


class ChildDiedError(ConnectionError):
    """The child ended, by itself or by us."""

    def __init__(self, exit_: Exit, log: bytes) -> None:
        super().__init__(f"the slot's child ended: {exit_}")
        self.exit = exit_
        self.log = log
        """What it printed since the last result."""


class Message(NamedTuple):
    """One message of the child with its descriptors (owned by the receiver)."""

    body: FromChild
    fds: list[int]


class SlotChild:
    """A running child.

    Parameters
    ----------
    zygote
        Forks it.
    folder
        The slot's own folder, empty or left by a child before.
    namespace
        For commands: give it a private `/pfs`.
    users
        It starts commands as other users.
    wake
        A descriptor that ends `receive` early when it becomes readable.
    """

    def __init__(self, zygote: Zygote, folder: Path, *, namespace: bool, users: bool = False, wake: int) -> None:
        self._zygote = zygote
        self._wake = wake
        self._ended: ChildDiedError | None = None
        self.namespace = namespace
        self._log_fd = _unlinked_file(folder)
        root = ""
        if namespace:
            root = tempfile.mkdtemp(prefix="root-", dir=folder)
        self._root = root
        ours, theirs = socket_pair()
        self._permits = PermitPipe()
        with theirs:
            self.pid = zygote.spawn(theirs.fileno(), self._log_fd, self._permits.child_end, root, users=users)
        self._channel = FrameSocket(ours)
        self._pidfd = _pidfd(self.pid)

    def set_up(self, setup: Setup) -> None:
        """Send a job."""
        self._send(encoder.encode(setup))

    def work(self, units: Sequence[Unit], *, give_up: GiveUp | None = None) -> None:
        """Send units to do after those already sent.

        Raises
        ------
        TimeoutError
            `give_up` said so: the child must be ended.
        """
        self._permits.give([unit.number for unit in units])
        self._send(encoder.encode(Work(units=tuple(units))), give_up)

    def withdraw(self) -> list[int]:
        """Take back the units that it has not begun; return their numbers, ascending."""
        return [] if self._ended is not None else self._permits.withdraw()

    def _send(self, payload: bytes, give_up: GiveUp | None = None) -> None:
        if self._ended is not None:
            raise self._ended
        try:
            self._channel.send(payload, give_up=give_up)
        except PeerClosedError:
            # What it sent before it died is still to be read: `receive` says so at its end.
            return

    def pending(self) -> Message | None:
        """Return a message that has arrived, without looking for more."""
        frame = self._channel.pending() if self._ended is None else None
        return None if frame is None else Message(from_child.decode(frame.payload), frame.fds)

    def receive(self, timeout_s: float | None, *, gather_s: float = 0.0) -> Message | None:
        """Return the next message; None after `timeout_s` or when woken.

        Parameters
        ----------
        gather_s
            As of `FrameSocket.receive`.

        Raises
        ------
        ChildDiedError
            It ended, and every message it sent was returned.
        """
        if self._ended is not None:
            raise self._ended
        watched = [self._wake] if self._pidfd is None else [self._wake, self._pidfd]
        try:
            frame = self._channel.receive(timeout_s, watched, gather_s=gather_s)
            if frame is None and self._is_dead():
                # A grandchild may hold the socket open: what the child itself sent has arrived by now.
                frame = self._channel.receive(0)
                if frame is None:
                    raise self.end()
        except PeerClosedError:
            raise self.end() from None
        return None if frame is None else Message(from_child.decode(frame.payload), frame.fds)

    def memory_bytes(self) -> int:
        """What it and everything it started hold now."""
        return memory_bytes(self.pid) if self._ended is None else 0

    def bound_log(self) -> None:
        """Keep what it prints from filling the disk."""
        if self._ended is None:
            bound_log(self._log_fd)

    def _is_dead(self) -> bool:
        if self._pidfd is None:
            return False
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(0))

    def end(self, *, ask_where: bool = False) -> ChildDiedError:
        """End the child with everything it started; return how it ended. Idempotent.

        Parameters
        ----------
        ask_where
            Let it print its stack first (it hangs).
        """
        if self._ended is None:
            if ask_where:
                self._zygote.signal(self.pid, signal.SIGABRT)
                if self._pidfd is not None:
                    poller = select.poll()
                    poller.register(self._pidfd, select.POLLIN)
                    poller.poll(_STACK_GRACE_S * 1000)
                else:
                    time.sleep(_STACK_GRACE_S)
            exit_ = self._zygote.end(self.pid)
            size = os.fstat(self._log_fd).st_size
            self._ended = ChildDiedError(exit_, read_log(self._log_fd, 0, size))
            self._channel.close()
            self._permits.close()
            os.close(self._log_fd)
            if self._pidfd is not None:
                os.close(self._pidfd)
            if self._root:
                with contextlib.suppress(OSError):
                    os.rmdir(self._root)
                shutil.rmtree(f"{self._root}.tmp", ignore_errors=True)
        return self._ended


def _unlinked_file(folder: Path) -> int:
    fd, path = tempfile.mkstemp(dir=folder, prefix="log-")
    os.unlink(path)
    os.set_inheritable(fd, False)
    # Appending, so that several processes that print do not overwrite each other.
    flags = os.O_APPEND | os.O_RDWR
    try:
        reopened = os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)
    except FileNotFoundError:
        return fd
    os.close(fd)
    return reopened


def _pidfd(pid: int) -> int | None:
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
