"""Files written for user code, and what they were: enough to see whether somebody wrote to them."""

from __future__ import annotations

import os
import stat

Seal = tuple[int, int, int, int]

_MODE = 0o444
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def seal(status: os.stat_result) -> Seal:
    """What of a file changes when it is written to."""
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode)


def write_sealed(path: str, content: bytes, parent: int | None = None) -> Seal:
    """Write a new file, whose folder exists, for reading alone; return its seal.

    Parameters
    ----------
    parent
        Descriptor of the folder where `path` begins.
    """
    fd = os.open(path, _NEW, _MODE, dir_fd=parent)
    try:
        written = os.write(fd, content)
        if written < len(content):
            view = memoryview(content)[written:]
            while view:
                view = view[os.write(fd, view) :]
        status = os.fstat(fd)
        if stat.S_IMODE(status.st_mode) != _MODE:
            # User code may have changed what a new file allows.
            os.fchmod(fd, _MODE)
            status = os.fstat(fd)
        return seal(status)
    finally:
        os.close(fd)


def is_sealed(path: str, what: Seal, parent: int | None = None) -> bool:
    """Whether a file is what it was; `parent` as of `write_sealed`."""
    try:
        return seal(os.stat(path, dir_fd=parent, follow_symlinks=False)) == what
    except OSError:
        # It, or a folder above it, is not there any more or cannot be entered.
        return False
