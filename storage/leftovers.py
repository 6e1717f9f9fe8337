"""What a killed `get` leaves beside the places of the files it was writing: told from what a living one writes.

A name holds the process that writes under it and where its number means that process: the boot and the namespace of
process ids. What a process of the same place left is removed as soon as that process is gone; what came from
elsewhere (another host of a shared disk, a container, an earlier boot), where nobody can ask, after a day.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress

from .actor import host_name
from .digest import digest
from .host import boot_id, is_running, process_space

__all__ = ["PREFIX", "remove_leftovers", "temporary_name"]

PREFIX = ".dmlpipe-get-"
KEPT_S = 86_400.0
_NAME = re.compile(re.escape(PREFIX) + r"([0-9a-f]{8})-(\d+)-\d+")

_serial = itertools.count()


def temporary_name() -> str:
    """Return a name that nothing has, for what this process writes until it is whole."""
    return f"{PREFIX}{_here()}-{os.getpid()}-{next(_serial)}"


def remove_leftovers(folders: Iterable[str]) -> None:
    """Remove from each folder what processes left there that are gone. Folders that are not there are passed over."""
    for folder in folders:
        found: list[str] = []
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError), os.scandir(folder or ".") as listing:
            found = [entry.path for entry in listing if entry.name.startswith(PREFIX) and _is_left(entry)]
        for path in found:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(FileNotFoundError, PermissionError):
                    os.unlink(path)


def _is_left(entry: os.DirEntry[str]) -> bool:
    match = _NAME.fullmatch(entry.name)
    if match is None:
        return False
    if match[1] == _here():
        return not is_running(int(match[2]))
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > KEPT_S
    except FileNotFoundError:
        return False


@functools.cache
def _here() -> str:
    """Name of the place in which a process id means one process; without /proc, of the host."""
    boot, space = boot_id(), process_space()
    place = f"{boot} {space}" if boot and space else f"{host_name()} 0"
    return digest(place.encode()).hex()[:8]
