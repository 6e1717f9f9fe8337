"""Environments that a host keeps, in `envs` of its cache: whole, used by any number of processes, and bounded.

Beside the folder of each stand two files, for advisory locks only: `NAME.lock` is held while it is looked at, made or
removed, `NAME.used` is shared by every process that runs in it, until that process ends. So what is in use is never
removed. When one is made, others make room: those that nothing used for `KEPT_S`, and those used longest ago while all
together hold more than the cache may.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...storage.objects.cache_size import cache_limit_bytes

__all__ = ["KEPT_S", "collect", "keep"]

KEPT_S = 30 * 86_400.0
_MARK = ".complete"
"""In a whole one; changed whenever a process begins to use it."""

_in_use: dict[Path, int] = {}
"""Descriptors of this process's shared locks; closed by its end."""


def keep(folder: Path, make: Callable[[], None]) -> None:
    """Let an environment be there until this process ends, by `make` if it is not, or was left half made."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = False
    with _lock(folder.with_suffix(".lock"), fcntl.LOCK_EX):
        if not (folder / _MARK).exists():
            shutil.rmtree(folder, ignore_errors=True)
            make()
            made = True
        (folder / _MARK).touch()
        if folder not in _in_use:
            fd = _opened(folder.with_suffix(".used"))
            fcntl.flock(fd, fcntl.LOCK_SH)
            _in_use[folder] = fd
    if made:
        collect(folder.parent)


def collect(place: Path, *, max_bytes: int | None = None, now: float | None = None) -> list[str]:
    """Remove environments that nothing uses: long unused ones, and while there is too much the longest unused.

    Parameters
    ----------
    max_bytes
        What all together may hold; None: what `cache_limit_bytes` says of `place`.
    now
        Seconds since 1970; None: by the clock.

    Returns
    -------
    list of str
        Names of those that went.
    """
    now = time.time() if now is None else now
    found = []
    for mark in place.glob(f"*/{_MARK}"):
        with suppress(FileNotFoundError):
            found.append((mark.stat().st_mtime, _size_bytes(mark.parent), mark.parent))
    total = sum(size for _, size, _ in found)
    limit = cache_limit_bytes(place, total) if max_bytes is None else max_bytes
    gone = []
    for used, size, folder in sorted(found):
        if now - used <= KEPT_S and total <= limit:
            break
        if _remove(folder):
            total -= size
            gone.append(folder.name)
    return gone


def _remove(folder: Path) -> bool:
    """Remove an environment; False: somebody makes it, looks at it or runs in it."""
    try:
        with (
            _lock(folder.with_suffix(".lock"), fcntl.LOCK_EX | fcntl.LOCK_NB),
            _lock(folder.with_suffix(".used"), fcntl.LOCK_EX | fcntl.LOCK_NB),
        ):
            # First: whoever finds half of it makes it anew. The files of the locks stay: another may wait for them.
            (folder / _MARK).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _lock(file: Path, how: int) -> Iterator[None]:
    fd = _opened(file)
    try:
        fcntl.flock(fd, how)
        yield
    finally:
        os.close(fd)


def _opened(file: Path) -> int:
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _size_bytes(folder: Path) -> int:
    """Bytes on the disk of all below a folder."""
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += 512 * os.lstat(os.path.join(at, name)).st_blocks
    return total
