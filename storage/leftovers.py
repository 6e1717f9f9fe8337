"""What killed processes leave beside the places of the files they were writing: told from what living ones write.

A name holds the process that writes under it, when that began, and where its number means that process: the boot and
the namespace of process ids. What a process of the same place left is removed as soon as that process is gone; what
came from elsewhere (another host of a shared disk, a container, an earlier boot), where nobody can ask, after a day.
"""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress

from .actor import host_name
from .digest import digest
from .host import boot_id, has_ended, process_space, process_start
from .tokens import token_hex

__all__ = ["PREFIX", "TEMPORARY", "remove_leftovers", "temporary_name"]

PREFIX = ".dmlpipe-get-"
"""Of what `get` writes."""
TEMPORARY = ".tmp-"
"""Of what is in the making in a store, a cache, or beside an archive."""
KEPT_S = 86_400.0
_REST = re.compile(r"([0-9a-f]{8})-(\d+)-(\d*)-[0-9a-f]+(-[a-z]+)?")
"""What follows: files that SQLite makes beside one."""


def temporary_name(prefix: str = PREFIX) -> str:
    """Return a name that nothing has, for what this process writes until it is whole."""
    return f"{prefix}{_writer(os.getpid())}-{token_hex(8)}"


def remove_leftovers(folders: Iterable[str], prefix: str = PREFIX) -> None:
    """Remove from each folder what processes left there that are gone. Folders that are not there are passed over."""
    for folder in folders:
        found: list[str] = []
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError), os.scandir(folder or ".") as listing:
            found = [entry.path for entry in listing if entry.name.startswith(prefix) and _is_left(entry, prefix)]
        for path in found:
            if os.path.isdir(path) and not os.path.islink(path):
                import shutil  # every command that writes imports this module

                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(FileNotFoundError, PermissionError):
                    os.unlink(path)


def _is_left(entry: os.DirEntry[str], prefix: str) -> bool:
    match = _REST.fullmatch(entry.name, len(prefix))
    if match is None:
        return False
    if match[1] == _here():
        return has_ended(int(match[2]), match[3])
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > KEPT_S
    except FileNotFoundError:
        return False


@functools.cache
def _writer(pid: int) -> str:
    """Name this process, which has that number; a child that it forks is another one."""
    return f"{_here()}-{pid}-{process_start(pid) or ''}"


@functools.cache
def _here() -> str:
    """Name of the place in which a process id means one process; without /proc, of the host."""
    boot, space = boot_id(), process_space()
    place = f"{boot} {space}" if boot and space else f"{host_name()} 0"
    return digest(place.encode()).hex()[:8]
