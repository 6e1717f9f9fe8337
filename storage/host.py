"""The present host, as the kernel knows it: which boot, which space of process numbers, and who runs there."""

from __future__ import annotations

import os
from pathlib import Path


def boot_id() -> str:
    """Name of this boot of this host; empty where the system tells none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def process_space() -> str:
    """Name, within a boot, of the namespace in which process numbers count; empty where the system tells none."""
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""


def is_running(pid: int) -> bool:
    """Whether there is a process of that number, be it another user's or one that has ended and waits to be asked."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
