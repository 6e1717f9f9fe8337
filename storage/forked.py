"""The same work in several processes, forked where that is safe.

A fork is safe while a process has one thread: then no lock is held by somebody who is not there in the child. Whoever
has more threads, or another system than Linux, does all the work itself.
"""

from __future__ import annotations

import gc
import os
import pickle
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TypeVar

from .errors import BackendError

MAX_UNITS = 1024
"""Their numbers fit into a pipe of one page, the smallest there is."""

_MAX_PROCESSES = 8
_NUMBER = struct.Struct("<I")

T = TypeVar("T")


def process_count(most: int) -> int:
    """Return how many processes may share work here: the cores, at most `most`; 1 where a fork is not safe."""
    if sys.platform != "linux":
        return 1
    try:
        alone = len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return 1
    return max(1, min(len(os.sched_getaffinity(0)), _MAX_PROCESSES, most)) if alone else 1


def share_work(work: Callable[[Iterator[int]], T], units: int, processes: int) -> list[T]:
    """Run `work` in `processes` processes, this one among them; return what each returned.

    Parameters
    ----------
    work
        Called once in each process with the numbers of the units that it is to do, each of which goes to one process
        alone, whoever asks next. What it returns in another process, or raises there, travels pickled.
    units
        How many there are: at most `MAX_UNITS` if there are several processes.
    processes
        1: nothing is forked.

    Raises
    ------
    BackendError
        A process was killed.
    """
    with _uncollected():
        return _share(work, units, processes)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let nobody look for cycles: work that is shared makes very many objects, and none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _share(work: Callable[[Iterator[int]], T], units: int, processes: int) -> list[T]:
    if processes <= 1:
        return [work(iter(range(units)))]
    reading, writing = os.pipe()
    try:
        os.write(writing, b"".join(map(_NUMBER.pack, range(units))))
    finally:
        os.close(writing)
    children: list[tuple[int, IO[bytes]]] = []
    failure: BaseException | None = None
    results: list[T] = []
    try:
        for _ in range(processes - 1):
            outcome = open(os.memfd_create("dmlpipe"), "w+b")  # noqa: SIM115  (closed when the child was joined)
            child = os.fork()
            if child == 0:
                _be_child(work, reading, outcome)
            children.append((child, outcome))
        results.append(work(_numbers(reading)))
    except BaseException as error:  # noqa: BLE001  (raised below, when all have ended)
        failure = error
        # Nobody begins another unit.
        while os.read(reading, 1 << 16):
            pass
    finally:
        os.close(reading)
    for child, written in children:
        try:
            results.append(_join(child, written))
        except Exception as error:  # noqa: BLE001  (raised below, when all have ended)
            failure = failure or error
    if failure is not None:
        raise failure
    return results


def _numbers(reading: int, parent: int = 0) -> Iterator[int]:
    while not parent or os.getppid() == parent:
        raw = os.read(reading, _NUMBER.size)
        if not raw:
            return
        yield _NUMBER.unpack(raw)[0]


def _be_child(work: Callable[[Iterator[int]], Any], reading: int, outcome: IO[bytes]) -> None:
    """Work, write down what came of it, and leave without any of the parent's ways to end."""
    try:
        try:
            found = (True, work(_numbers(reading, os.getppid())))
        except Exception as error:  # noqa: BLE001  (raised in the parent)
            found = (False, error)
        pickle.dump(found, outcome, protocol=pickle.HIGHEST_PROTOCOL)
        outcome.flush()
    finally:
        os._exit(0)


def _join(child: int, outcome: IO[bytes]) -> Any:
    with outcome:
        _, status = os.waitpid(child, 0)
        outcome.seek(0)
        try:
            done, found = pickle.load(outcome)
        except EOFError as error:
            code = os.waitstatus_to_exitcode(status)
            raise BackendError(
                f"a process that shared the work was ended by signal {-code}"
                if code < 0
                else "a process that shared the work was interrupted",
                retryable=True,
            ) from error
    if done:
        return found
    raise found
