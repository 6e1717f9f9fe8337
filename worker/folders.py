"""Folders of workers below the cache: one each, locked while its worker lives, cleared away after a killed one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

_LOCKS: dict[Path, int] = {}
"""Held until the process ends, in whatever way."""


def worker_folder(cache_dir: Path, name: str) -> Path:
    """Return a folder for a worker, which does not exist yet, and remove those of workers that are gone.

    Parameters
    ----------
    cache_dir
        The store's: inputs can be hard-linked from its file cache then.
    name
        Of the worker; unique.
    """
    work = cache_dir / "work"
    work.mkdir(parents=True, exist_ok=True)
    for lock in work.glob("*.lock"):
        _remove_if_dead(lock)
    path = work / f"{name}.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    _LOCKS[path] = fd
    return path.with_suffix("")


def _remove_if_dead(lock: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        finally:
            # Closing gives the lock back; nobody takes a dead worker's name again.
            os.close(fd)
        shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
        lock.unlink()


def release(folder: Path) -> None:
    """Give a worker's folder up: it and its lock go."""
    lock = folder.with_suffix(".lock")
    shutil.rmtree(folder, ignore_errors=True)
    lock.unlink(missing_ok=True)
    fd = _LOCKS.pop(lock, None)
    if fd is not None:
        os.close(fd)
