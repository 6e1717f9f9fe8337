"""A zygote that starts before those who serve slots with it are even imported: both take some fifty milliseconds."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ...worker.child.environment import clean_environment
from ...worker.child.zygote import Zygote

__all__ = ["begin_zygote", "worker_log"]


def worker_log(folder: Path) -> Path:
    """Return where the worker of a run logs, given the folder for it; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "worker.log"


def begin_zygote(folder: Path) -> Zygote | None:
    """Start a zygote for the slots of a run; None if that fails now: whoever serves them tries again, and says so.

    Parameters
    ----------
    folder
        For the worker's log.
    """
    with contextlib.suppress(OSError), worker_log(folder).open("ab") as log:
        return Zygote(clean_environment(os.environ), log=log.fileno())
    return None
