"""The parent's side of a child in the foreground (`child.foreground`): calls of one function, in order."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ..storage.objects.segment import Failure, Outcome
from .child.collect import Output
from .child.failure import exit_failure
from .child.foreground import INTERRUPTED
from .child.frames import FrameSocket, PeerClosedError, socket_pair
from .child.permits import PermitPipe
from .child.wire import (
    Ended,
    FromChild,
    OutFile,
    Payload,
    Produced,
    Ready,
    Result,
    Setup,
    SetupFailed,
    Unit,
    Work,
    encoder,
    from_child,
)

__all__ = ["Foreground"]


class Foreground:
    """Calls a function in a process of its own, which holds the terminal meanwhile.

    Parameters
    ----------
    words
        What starts the process; its arguments follow.
    setup
        The job.
    debug
        Open the debugger where user code raises.
    """

    def __init__(self, words: Sequence[str], setup: Setup, *, debug: bool) -> None:
        self._words = tuple(words)
        self._setup = setup
        self._debug = debug
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: FrameSocket | None = None
        self._permits: PermitPipe | None = None
        self._units = 0

    def call(self, payloads: Sequence[Payload]) -> list[tuple[Result, list[Output]]]:
        """Make one call.

        Returns
        -------
        list of (Result, list of Output)
            One per datum, with descriptors that the caller closes; a single one for several means that the call failed
            as a whole.

        Raises
        ------
        KeyboardInterrupt
            The process was interrupted, or the debugger was left.
        """
        with _terminal_given():
            try:
                failure = None if self._channel is not None else self._start()
                return [(Result(Outcome.FAILED, failure), [])] if failure is not None else self._work(payloads)
            except PeerClosedError:
                return [(Result(Outcome.FAILED, exit_failure(self._end())), [])]

    def _start(self) -> Failure | None:
        """Start the process and have it load the function; return why it cannot."""
        ours, theirs = socket_pair()
        self._permits = PermitPipe()
        fds = (theirs.fileno(), self._permits.child_end)
        with theirs:
            self._process = subprocess.Popen(
                [*self._words, *map(str, fds), str(os.getpid()), "debug" if self._debug else ""],
                env=_at_start(self._setup.env),
                pass_fds=fds,
            )
        self._channel = FrameSocket(ours)
        self._channel.send(encoder.encode(self._setup))
        match self._receive()[0]:
            case SetupFailed(failure=failure):
                self.close()
                return failure
            case Ready():
                return None
            case other:
                raise RuntimeError(f"the foreground's child said {type(other).__name__} before it was ready")

    def _work(self, payloads: Sequence[Payload]) -> list[tuple[Result, list[Output]]]:
        assert self._channel is not None
        assert self._permits is not None
        self._units += 1
        self._permits.give([self._units])
        self._channel.send(encoder.encode(Work((Unit(self._units, tuple(payloads)),))))
        outputs: list[list[Output]] = [[] for _ in payloads]
        try:
            while True:
                message, fds = self._receive()
                match message:
                    case Produced(index=index, files=files):
                        outputs[index] += [_output(file, fds) for file in files]
                    case Ended(results=results):
                        break
        except PeerClosedError:
            for output in (each for made in outputs for each in made if each.fd >= 0):
                os.close(output.fd)
            raise
        return [
            (result, made + [_output(file, ()) for file in result.files])
            for result, made in zip(results, outputs, strict=False)
        ]

    def _receive(self) -> tuple[FromChild, list[int]]:
        assert self._channel is not None
        frame = self._channel.receive()
        assert frame is not None
        return from_child.decode(frame.payload), frame.fds

    def _end(self) -> int:
        """Take note of a process that ended by itself; return how."""
        assert self._process is not None
        status = self._process.wait()
        self.close()
        if status in (INTERRUPTED, -signal.SIGINT):
            raise KeyboardInterrupt
        return status

    def close(self) -> None:
        """End the process. Idempotent."""
        if self._channel is not None:
            self._channel.close()
        if self._permits is not None:
            self._permits.close()
        if self._process is not None:
            try:
                self._process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._channel = self._permits = self._process = None


_PATIENCE_S = 10.0


def _output(file: OutFile, fds: Sequence[int]) -> Output:
    return Output(file.path, file.data, fds[file.fd] if file.fd >= 0 else -1, file.source)


def _at_start(env: Mapping[str, str]) -> dict[str, str]:
    """What an interpreter may see of a job's variables when it starts: none that move it into another environment."""
    apart = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
    return {name: value for name, value in env.items() if name not in apart}


@contextmanager
def _terminal_given() -> Iterator[None]:
    """Leave Ctrl-C to the other process: at the debugger's prompt it does not mean the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
