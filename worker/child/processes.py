"""Processes that outlive those who started them: adopting, listing and ending them. Linux; elsewhere best effort."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform == "linux"


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent `parent` ends; end now if that has happened."""
    if _LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that none escapes, not even with `setsid`."""
    if _LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def prefer_as_oom_victim() -> None:
    """Let the kernel end this process before the worker when memory runs out."""
    if _LINUX:
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("900")


class Company:
    """Tells whether this process is alone: what user code started may still write into folders that it was given."""

    def __init__(self) -> None:
        self._cwd = os.getcwd()
        self._fd = -1
        if _LINUX:
            with contextlib.suppress(OSError):
                self._fd = os.open("/proc/self/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._tasks = os.fstat(self._fd)

    def moved(self) -> None:
        """Take the present working directory as the one to be in."""
        self._cwd = os.getcwd()

    def none(self) -> bool:
        """Whether there is no other thread, no child, and the working directory is what it was. Three system calls."""
        if self._fd < 0:
            return False
        try:
            tasks = os.fstat(self._fd)
            # The folder of threads has a link for each; user code may have closed everything that it did not open.
            if tasks.st_nlink != 3 or not os.path.samestat(tasks, self._tasks) or os.getcwd() != self._cwd:
                return False
        except OSError:
            return False
        return not has_children()


def has_children() -> bool:
    """Whether this process has a child, dead or alive. One system call."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def children() -> list[int]:
    """Children of this process."""
    pid = os.getpid()
    try:
        with open(f"/proc/self/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except FileNotFoundError:
        pass
    found: list[int] = []
    if not os.path.isdir("/proc/self"):
        return found
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{name}/stat", "rb") as stat_file:
                if int(stat_file.read().rpartition(b")")[2].split()[1]) == pid:
                    found.append(int(name))
    return found


def end_children(keep: frozenset[int] = frozenset()) -> int:
    """Kill and reap every child but those in `keep`, and what they leave behind. Return how many.

    The caller must have called `adopt_orphans`, and must be the only one who reaps.
    """
    ended = 0
    if not has_children():
        return ended
    while found := [pid for pid in children() if pid not in keep]:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in found:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
                ended += 1
    return ended
