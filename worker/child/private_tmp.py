"""`/tmp` of a command: its own, and empty for each datum.

What one datum leaves there would change what the next one makes, and with it a result that its fingerprint does not
know of. It lies on the disk of the cache, not in memory. Of the host's `/tmp` it shows what is needed: the way to the
cache, to interpreters, to what a word of the command names, and to what variables that it declares name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from typing import Any

from .namespace import TMP, show_host_tmp

_FRESH_NS = 50_000_000
"""A folder whose time of change is younger may change again at the same time: its clock ticks."""


class PrivateTmp:
    """The present process's `/tmp`, once `namespace.enter` made it."""

    def __init__(self) -> None:
        self._kept: set[str] = set()
        self._seen = -1

    def show(self, paths: Iterable[str]) -> None:
        """Let what the host has at some paths be seen, if they lead into its `/tmp`."""
        self._kept.update(name for path in paths if (name := show_host_tmp(path)))

    def empty(self) -> None:
        """Remove what is there but what is shown of the host's; mounts stay. One system call if nothing changed."""
        changed = os.stat(TMP).st_mtime_ns
        if changed == self._seen:
            return
        with os.scandir(TMP) as entries:
            found = [entry for entry in entries if entry.name not in self._kept and not os.path.ismount(entry.path)]
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, onerror=_open_up)
            else:
                os.unlink(entry.path)
        changed = os.stat(TMP).st_mtime_ns
        self._seen = changed if time.time_ns() - changed > _FRESH_NS else -1


def _open_up(function: Callable[[str], object], path: str, _error: Any) -> None:
    """Make a folder that its owner closed removable, and try again."""
    for each in (os.path.dirname(path), path):
        with contextlib.suppress(OSError):
            os.chmod(each, 0o700, follow_symlinks=True)
    if function in (os.unlink, os.rmdir):
        function(path)
    else:
        shutil.rmtree(path)
