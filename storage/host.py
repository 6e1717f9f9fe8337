"""The present host, as the kernel knows it: which boot, which space of process numbers, and who runs there."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")


def boot_id() -> str:
    """Name of this boot of this host; empty where the system tells none."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def process_space() -> str:
    """Name, within a boot, of the namespace in which process numbers count; empty where the system tells none."""
    try:
        return str(os.stat(_PROC / "self/ns/pid").st_ino)
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


def process_start(pid: int) -> str | None:
    """When a process of this host started, in the kernel's own units.

    None: there is no such process, or it has ended and waits to be asked. Empty: there is one, and the system tells no
    more (it has no /proc, or one that hides what other users run).
    """
    state = _state_of(pid)
    if state is None:
        return "" if is_running(pid) else None
    status, started = state
    return None if status == "Z" else started


def has_ended(pid: int, started: str) -> bool:
    """Whether the process that had this number, and began at `started`, has ended for certain.

    Parameters
    ----------
    pid
        Its number, in the namespace of this process.
    started
        Its `process_start`; empty if that was not known.

    Notes
    -----
    One that ended and was not asked yet does not count: a thread of it may still be inside a call.
    """
    if not is_running(pid):
        return True
    state = _state_of(pid)
    return state is not None and bool(started) and state[1] != started


def _state_of(pid: int) -> tuple[str, str] | None:
    """State of a process and when it started; None if the system does not tell."""
    try:
        # The name, in brackets, may hold anything.
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return fields[0], fields[19]
