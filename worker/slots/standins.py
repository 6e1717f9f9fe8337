"""Files that stand for content which nobody has fetched: empty ones, and named pipes that fetch when they are opened.

A link to one of them in a datum's output is a copy of what it stands for, by reference. A pipe can be read once, from
its beginning to its end; what cannot be fetched fails the datum, since what was read of it is not the whole.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import threading
from collections.abc import Iterable
from typing import BinaryIO, Protocol

from ...storage.errors import DmlpipeError
from ...storage.objects.value import Value

__all__ = ["Contents", "StandIns"]

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.01
"""How soon an opened pipe is noticed."""
END_WITHIN_S = 10.0
_STALLED_S = 0.2
_CHUNK_BYTES = 1 << 20


class Contents(Protocol):
    """Where content comes from."""

    def open(self, value: Value) -> BinaryIO:
        """Open content for reading."""
        ...


class StandIns:
    """What stands in one datum's folders for content. `close` ends it."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._values: dict[str, Value] = {}
        self._waiting: dict[str, Value] = {}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._problem: DmlpipeError | None = None

    def place(self, entries: Iterable[tuple[str, Value]], *, pipes: bool) -> None:
        """Make a stand-in for each (target, value); folders are made as needed."""
        made: set[str] = set()
        for target, value in entries:
            folder = os.path.dirname(target)
            if folder not in made:
                os.makedirs(folder, exist_ok=True)
                made.add(folder)
            if pipes:
                os.mkfifo(target, 0o644)
                self._waiting[target] = value
            else:
                os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
            self._values[target] = value
        if self._waiting and not self._threads:
            self._start(self._serve)

    def value(self, path: str) -> Value | None:
        """Return what the stand-in at `path` stands for; None: there is none."""
        return self._values.get(path)

    @property
    def problem(self) -> DmlpipeError | None:
        """Why a pipe broke off; None if none did."""
        return self._problem

    def close(self) -> None:
        """Serve no more. Idempotent."""
        self._stop.set()
        for thread in self._threads:
            thread.join(END_WITHIN_S)
        self._threads.clear()

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="dmlpipe-pipe", daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        """Notice pipes that somebody opened: opening the other end fails until then."""
        while self._waiting and not self._stop.wait(LOOK_EVERY_S):
            for target in list(self._waiting):
                try:
                    fd = os.open(target, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                except OSError as err:
                    if err.errno != errno.ENXIO:
                        # Taken away, or replaced by a file: nobody will ask for it here.
                        del self._waiting[target]
                    continue
                self._start(self._feed, fd, target, self._waiting.pop(target))

    def _feed(self, fd: int, target: str, value: Value) -> None:
        try:
            with contextlib.closing(self._contents.open(value)) as content:
                while not self._stop.is_set() and (data := content.read(_CHUNK_BYTES)):
                    self._write(fd, data)
        except BrokenPipeError:
            pass  # a reader need not read all of it
        except DmlpipeError as err:
            logger.warning("%s cannot be fetched: %s", target, err)
            self._problem = err
        finally:
            os.close(fd)

    def _write(self, fd: int, data: bytes) -> None:
        poller = select.poll()
        poller.register(fd, select.POLLOUT)
        view = memoryview(data)
        while view and not self._stop.is_set():
            if poller.poll(_STALLED_S * 1000):
                with contextlib.suppress(BlockingIOError):
                    view = view[os.write(fd, view) :]
