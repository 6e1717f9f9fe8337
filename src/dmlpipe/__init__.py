"""Data-versioned machine-learning pipelines on Dask.

Only names live here. They are loaded when first used, so that ``import dmlpipe`` starts no thread and
imports neither Dask, zarr nor s3fs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .storage.version import __version__ as __version__

if TYPE_CHECKING:
    from .scheduler import testing as testing
    from .scheduler.inputs.combine import cross as cross
    from .scheduler.inputs.combine import group as group
    from .scheduler.inputs.combine import join as join
    from .scheduler.inputs.combine import union as union
    from .scheduler.inputs.leaf import array as array
    from .scheduler.inputs.leaf import files as files
    from .scheduler.inputs.leaf import like as like
    from .scheduler.inputs.leaf import values as values
    from .scheduler.inputs.standing import cron as cron
    from .scheduler.inputs.standing import trigger as trigger
    from .scheduler.pipelines.dag import DAG as DAG
    from .scheduler.pipelines.dag import Files as Files
    from .scheduler.pipelines.egress import egress as egress
    from .scheduler.store import Store as Store
    from .scheduler.store import init as init
    from .scheduler.store import open as open
    from .storage.errors import DmlpipeError as DmlpipeError

_HOME = {
    "DAG": "scheduler.pipelines.dag",
    "DmlpipeError": "storage.errors",
    "Files": "scheduler.pipelines.dag",
    "Store": "scheduler.store",
    "array": "scheduler.inputs.leaf",
    "cron": "scheduler.inputs.standing",
    "cross": "scheduler.inputs.combine",
    "egress": "scheduler.pipelines.egress",
    "files": "scheduler.inputs.leaf",
    "group": "scheduler.inputs.combine",
    "init": "scheduler.store",
    "join": "scheduler.inputs.combine",
    "like": "scheduler.inputs.leaf",
    "open": "scheduler.store",
    "testing": "scheduler",
    "trigger": "scheduler.inputs.standing",
    "union": "scheduler.inputs.combine",
    "values": "scheduler.inputs.leaf",
}

__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'dmlpipe' has no attribute {name!r}")
    if name == "testing":
        return importlib.import_module("dmlpipe.scheduler.testing")
    value = getattr(importlib.import_module(f"dmlpipe.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
