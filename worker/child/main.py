"""The slot's child process: user code lives here and nowhere else.

It reads `wire` messages from its socket and does them one by one. Standard output and error are the log file that its
slot gave it; what a datum printed is cut out by offset and travels with the result. It holds no store, no credentials
and no descriptor of anybody else.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import TextIO

from ...storage.errors import DmlpipeError
from ...storage.objects.segment import Failure, Outcome
from ..collector import relaxed_collector
from ..job import CommandTransform, PythonTransform
from .call import Loaded, load_transform
from .collect import FRAME_MAX_BYTES, FRAME_MAX_FDS, Output
from .commands import Commands
from .datum_folders import DatumFolders
from .failure import UserFrames, failure_of
from .frames import FrameSocket, PeerClosedError
from .permits import Permits
from .processes import Company, adopt_orphans, die_with_parent, end_children
from .variables import DatumVariables
from .wire import (
    Ended,
    FromChild,
    Loading,
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
    to_child,
)

LOG_MAX_BYTES = 1_000_000
"""What is kept of one datum's output: the first and the last half of it. Small enough to go into a pack."""

_UNTOUCHED = 0x5A5A_5A5A
"""Where the log's descriptors stand in it while no Python code printed: it is appended to, wherever that is."""


def read_log(fd: int, start: int, stop: int) -> bytes:
    """What was printed between two offsets, shortened to `LOG_MAX_BYTES`."""
    if stop - start <= LOG_MAX_BYTES:
        return os.pread(fd, stop - start, start)
    half = LOG_MAX_BYTES // 2
    gap = f"\n… {stop - start - 2 * half:,} bytes left out …\n".encode()
    return os.pread(fd, half, start) + gap + os.pread(fd, half, stop - half)


class Child:
    """One child's state.

    Parameters
    ----------
    channel
        To the slot.
    log_fd
        The log file, which is also descriptors 1 and 2.
    permits
        Which units may begin.
    root
        Commands only: an empty folder that becomes the root of a namespace; empty: no namespace.
    users
        As of `namespace.enter`.
    parent
        Process that this one must not outlive.
    """

    def __init__(
        self, channel: FrameSocket, log_fd: int, permits: Permits, root: str, parent: int, *, users: bool = False
    ) -> None:
        self._channel = channel
        self._permits = permits
        self._kept_bytes = 0
        """Size of the outputs that will travel with the present unit's end."""
        self._log_fd = log_fd
        self._log = os.fstat(log_fd)
        self._untouched = 0
        self._modules = set(sys.modules)
        self._module_count = len(sys.modules)
        self._setup: Setup | None = None
        self._loaded: Loaded | None = None
        self._loads = False
        """User code was imported, or that was tried."""
        self._folders: DatumFolders | None = None
        self._frames = UserFrames()
        self._variables = DatumVariables()
        self._commands = Commands(root, users=users, tidy=end_children)
        # After the namespace: entering one forgets the death signal.
        die_with_parent(parent)
        self._company = Company()

    def serve(self) -> None:
        """Do what comes until the slot closes the socket."""
        while True:
            frame = self._channel.receive()
            assert frame is not None
            message = to_child.decode(frame.payload)
            if isinstance(message, Setup):
                self._set_up(message)
            elif isinstance(message, Work):
                for unit in message.units:
                    if self._permits.take(unit.number):
                        self._do(unit)

    def _send(self, message: FromChild, fds: Sequence[int] = ()) -> None:
        self._channel.send(encoder.encode(message), fds)

    # --- a job ---

    def _set_up(self, setup: Setup) -> None:
        os.environ.clear()
        os.environ.update(setup.env)
        os.chdir(setup.scratch)
        self._company.moved()
        self._setup = setup
        self._loaded = None
        if self._folders is not None:
            self._folders.close()
            self._folders = None
        self._frames = UserFrames((setup.code,) if setup.code else ())
        self._place_log(isinstance(setup.transform, PythonTransform))
        try:
            if isinstance(setup.transform, PythonTransform):
                self._load(setup, setup.transform)
            else:
                self._commands.set_up(setup)
        except (KeyboardInterrupt, SystemExit, Exception) as err:  # noqa: BLE001 - importing runs user code
            self._send(SetupFailed(failure=self._failure(err), log=self._take_log()))
            return
        self._send(Ready(notice=self._commands.notice, at=time.monotonic()))
        self._commands.notice = ""

    def _place_log(self, python: bool) -> None:
        """Let the log's descriptors stand where nothing else does; for commands, whose programs may ask, at 0."""
        # In the foreground it may be a terminal or a pipe: nothing is read from that.
        if stat.S_ISREG(self._log.st_mode) and fcntl.fcntl(self._log_fd, fcntl.F_GETFL) & os.O_APPEND:
            self._untouched = _UNTOUCHED if python else 0
            os.lseek(self._log_fd, self._untouched, os.SEEK_SET)

    def _load(self, setup: Setup, transform: PythonTransform) -> None:
        # Once: a child that is given another job of this code may hold what is garbage by then.
        first, self._loads = not self._loads, True
        with relaxed_collector() if first else nullcontext():
            target = load_transform(transform, setup.code, setup.pickled)
        self._loaded = Loaded(
            target,
            transform,
            constants=setup.constants,
            parameters=setup.parameters,
            batch=setup.batch,
            writes=setup.writes,
            array=setup.array,
            folders=setup.folders,
            loading=self._say_loading,
            listed=lambda folder, entries: self._folders.listed(folder, entries) if self._folders else None,
        )

    def _say_loading(self, begin: bool) -> None:
        self._send(Loading(begin=begin, at=time.monotonic()))

    # --- a unit ---

    def _do(self, unit: Unit) -> None:
        setup = self._setup
        assert setup is not None
        payloads = unit.payloads
        first = payloads[0]
        # Commands are given theirs.
        if self._loaded is not None:
            self._variables.set(first.id, first.attempt)
        self._kept_bytes = 0
        folders: DatumFolders | None = None
        begin = time.monotonic()
        results: tuple[Result, ...]
        try:
            if first.unlaid or (len(payloads) > 1 and any(payload.unlaid for payload in payloads)):
                try:
                    folders = self._own_folders(setup)
                    payloads = folders.lay_out(payloads)
                except OSError:
                    if folders is not None:
                        folders.clear(alone=False)
                    self._send(Ended(unit.number, (), 0.0, time.monotonic(), unlaid=True))
                    return
                begin = time.monotonic()
            if isinstance(setup.transform, CommandTransform):
                results = (self._run(unit.number, first),)
            else:
                results = self._call(unit.number, payloads)
        except PeerClosedError:
            raise
        except (KeyboardInterrupt, SystemExit, Exception) as err:  # noqa: BLE001 - user code raises what it likes
            # One failure for the whole call: the slot splits a batch.
            results = (Result(Outcome.FAILED, self._failure(err)),)
        ended = time.monotonic()
        if folders is not None:
            results = folders.judged(results)
        log, modules = self._take_log(), self._new_modules()
        # Of a datum without folders nobody asks.
        alone = (folders is not None or _in_folders(first)) and self._company.none()
        self._send(Ended(unit.number, results, ended - begin, ended, log, modules, alone))
        if folders is not None:
            self._clear(folders, alone=alone)

    def _own_folders(self, setup: Setup) -> DatumFolders:
        if self._folders is None:
            transform = setup.transform
            out = isinstance(transform, PythonTransform) and transform.result == "out"
            self._folders = DatumFolders(setup.folders, out=out)
        return self._folders

    def _clear(self, folders: DatumFolders, *, alone: bool) -> None:
        """Remove what a datum was given and left. The next one, whose time has begun, does not pay for that."""
        if not folders.slow:
            folders.clear(alone=alone)
            return
        self._say_loading(True)
        folders.clear(alone=alone)
        self._say_loading(False)

    def _call(self, number: int, payloads: Sequence[Payload]) -> tuple[Result, ...]:
        assert self._loaded is not None
        results = []
        for index, outputs in enumerate(self._loaded.call(payloads)):
            if isinstance(outputs, Exception):
                results.append(Result(Outcome.FAILED, self._failure(outputs)))
                continue
            try:
                results.append(Result(Outcome.OK, None, self._produce(number, index, outputs)))
            except DmlpipeError as err:
                results.append(Result(Outcome.FAILED, failure_of(err, self._frames)))
        return tuple(results)

    def _run(self, number: int, payload: Payload) -> Result:
        try:
            ran = self._commands.run(payload)
            return Result(ran.outcome, ran.failure, self._produce(number, 0, ran.outputs))
        finally:
            self._commands.finish()

    def _produce(self, number: int, index: int, outputs: Iterable[Output]) -> tuple[OutFile, ...]:
        """Send the files of one datum, a frame at a time; return those that can travel with its result."""
        files: list[OutFile] = []
        fds: list[int] = []
        size = 0
        try:
            for output in outputs:
                if output.fd >= 0:
                    files.append(OutFile(output.path, b"", len(fds)))
                    fds.append(output.fd)
                else:
                    files.append(OutFile(output.path, output.data, source=output.source))
                size += len(output.data) + len(output.path) + len(output.source)
                if size >= FRAME_MAX_BYTES or len(fds) >= FRAME_MAX_FDS:
                    self._send(Produced(unit=number, index=index, files=tuple(files)), fds)
                    self._close(fds)
                    files, size = [], 0
            if not fds and self._kept_bytes + size < FRAME_MAX_BYTES:
                self._kept_bytes += size
                return tuple(files)
            if files:
                self._send(Produced(unit=number, index=index, files=tuple(files)), fds)
            return ()
        finally:
            self._close(fds)

    @staticmethod
    def _close(fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        fds.clear()

    # --- what is said beside the result ---

    def _failure(self, error: BaseException) -> Failure:
        return failure_of(error, self._frames)

    def _take_log(self) -> bytes:
        # First, so that what still waits in a stream goes to this datum's log, not to a later one's.
        self._mend_streams()
        for stream in (sys.stdout, sys.stderr):
            # User code may have closed or replaced them.
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                continue
        stop = os.lseek(self._log_fd, 0, os.SEEK_END)
        log = b""
        if stop:
            log = read_log(self._log_fd, 0, stop)
            # Whoever still holds the file appends: after this the next datum begins at 0.
            os.ftruncate(self._log_fd, 0)
        os.lseek(self._log_fd, self._untouched, os.SEEK_SET)
        return log

    def _mend_streams(self) -> None:
        """Make standard output and error the log again: left closed, the next file that is opened would be they."""
        for fd, name in ((1, "stdout"), (2, "stderr")):
            try:
                # Both share the log's place in the file, which nothing else has; a stat costs five times as much.
                untouched = self._untouched and os.lseek(fd, 0, os.SEEK_CUR) == self._untouched
                same = untouched or os.path.samestat(os.fstat(fd), self._log)
            except OSError:
                same = False
            if not same:
                os.dup2(self._log_fd, fd)
            if getattr(getattr(sys, name), "closed", True):
                setattr(sys, name, text_stream(fd))

    def _new_modules(self) -> tuple[str, ...]:
        if len(sys.modules) == self._module_count:
            return ()
        self._module_count = len(sys.modules)
        new = set(sys.modules) - self._modules
        self._modules |= new
        return tuple(sorted({name.partition(".")[0] for name in new}))


def _in_folders(payload: Payload) -> bool:
    return bool(payload.out or payload.root or any(given.path or given.paths for given in payload.given.values()))


def text_stream(fd: int) -> TextIO:
    """Return a stream that prints to a descriptor of the log."""
    # A file is block-buffered, which is what is wanted: a flush per datum, not per line.
    return open(fd, "w", closefd=False, encoding="utf-8", errors="backslashreplace")


def main(sock: socket.socket, log_fd: int, permits: Permits, root: str, parent: int, *, users: bool = False) -> None:
    """Become a slot's child: the rest of this process's life.

    Parameters
    ----------
    sock
        To the slot.
    log_fd
        Becomes standard output and error.
    permits, root, parent, users
        See `Child`.
    """
    die_with_parent(parent)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    with open(os.devnull, "rb") as null:
        os.dup2(null.fileno(), 0)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - lives as long as the process
    sys.stdout = text_stream(1)
    sys.stderr = text_stream(2)
    sys.dont_write_bytecode = True
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.enable(file=2)
    adopt_orphans()
    try:
        Child(FrameSocket(sock), log_fd, permits, root, parent, users=users).serve()
    except (PeerClosedError, BrokenPipeError):
        end_children()
        os._exit(0)
