"""What a slot's child and all it started hold: memory, and the disk of its log. Linux; elsewhere nothing is seen.

Memory is what the processes cannot give back: anonymous pages and shared memory. Pages of files that they map (a model
read by every slot, say) are the kernel's to drop and do not count.
"""

from __future__ import annotations

import ctypes
import os

from ..child.main import LOG_MAX_BYTES

LOG_ON_DISK_BYTES = 16 << 20
"""A log that grew beyond this has its middle, which nobody will read, taken off the disk."""
_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02


def memory_bytes(pid: int) -> int:
    """Memory of a process and its descendants; 0 if it is gone or nothing can be seen here."""
    total = 0
    waiting = [pid]
    while waiting:
        found = waiting.pop()
        total += _own_bytes(found)
        waiting += _children(found)
    return total


def _own_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith((b"RssAnon:", b"RssShmem:")))


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        # Each thread lists the processes that it started itself.
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except OSError:
        return found
    return found


def bound_log(fd: int) -> None:
    """Free the disk blocks in the middle of a log that has grown large; its size and both its ends stay as they are."""
    status = os.fstat(fd)
    if status.st_blocks * 512 <= LOG_ON_DISK_BYTES:
        return
    half = LOG_MAX_BYTES // 2
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "fallocate"):
        # A file system that cannot do it says so and the log stays: it ends with its datum at the latest.
        libc.fallocate(
            fd,
            _KEEP_SIZE_PUNCH_HOLE,
            ctypes.c_longlong(half),
            ctypes.c_longlong(max(0, status.st_size - 2 * half)),
        )
