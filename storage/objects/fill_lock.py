"""One process of a host at a time fills a file of the cache; the others wait for it.

The lock is an advisory one on the file that is being filled: the kernel gives it back when its process ends, however
it ends. A holder that makes no progress for long (a frozen process) is passed over, not waited for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..leftovers import TEMPORARY, temporary_name

PART_PREFIX = ".part-"
"""A file being filled: the rest of its name is its place in the cache."""
STUCK_S = 60.0
"""A holder that wrote nothing for so long is passed over."""
_LOOK_FIRST_S = 0.005
_LOOK_MAX_S = 0.2


class OpenPart(NamedTuple):
    """A file to fill, held by nobody else."""

    path: Path
    fd: int


@contextlib.contextmanager
def hold_part(
    place: Path, *, stuck_s: float = STUCK_S, clock: Callable[[], float] = time.monotonic
) -> Iterator[OpenPart]:
    """Hold the file that is to become `place`, waiting while another fills it.

    The caller moves it to `place`, or removes it, or leaves it to be taken up again.

    Raises
    ------
    OSError
        The folder cannot be written.
    """
    path = place.with_name(PART_PREFIX + place.name)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            held = _lock(fd, stuck_s, clock)
            if held and not _is_at(path, fd):
                continue  # the one before moved or removed it: there is a new one, or `place` is there
            if held:
                yield OpenPart(path, fd)
                return
        finally:
            os.close(fd)
        own = place.with_name(temporary_name(TEMPORARY))
        fd = os.open(own, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            yield OpenPart(own, fd)
            return
        finally:
            os.close(fd)
            own.unlink(missing_ok=True)


def is_held(path: Path) -> bool:
    """Whether somebody fills the file `path` now."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(fd)
    finally:
        os.close(fd)


def _lock(fd: int, stuck_s: float, clock: Callable[[], float]) -> bool:
    pause_s = _LOOK_FIRST_S
    seen, seen_at = os.fstat(fd).st_mtime_ns, clock()
    while not _try_lock(fd):
        time.sleep(pause_s)
        pause_s = min(_LOOK_MAX_S, 2 * pause_s)
        now, changed = clock(), os.fstat(fd).st_mtime_ns
        if changed != seen:
            seen, seen_at = changed, now
        elif now - seen_at >= stuck_s:
            return False
    return True


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, fd: int) -> bool:
    try:
        there, held = os.stat(path), os.fstat(fd)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)
