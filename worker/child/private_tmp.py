"""`/tmp` of a command: its own, and empty for each datum, but for links to what the host's holds.

What one datum leaves there would change what the next one makes, and with it a result that its fingerprint does not
know of. It lies on the disk of the cache, not in memory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from typing import Any

from .namespace import TMP

_FRESH_NS = 50_000_000
"""A folder whose time of change is younger may change again at the same time: its clock ticks."""


class PrivateTmp:
    """The present process's `/tmp`, once `namespace.enter` made it."""

    def __init__(self) -> None:
        self._kept = frozenset(os.listdir(TMP))
        self._seen = -1

    def empty(self) -> None:
        """Remove what is there now and was not when it was made; mounts stay. One system call if nothing changed."""
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
