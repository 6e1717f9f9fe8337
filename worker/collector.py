"""How often Python looks for circles of garbage: in processes that are ours alone, and while user code is imported."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["relax_collector", "relaxed_collector"]

_THRESHOLDS = (20_000, 20, 20)
_IMPORT_THRESHOLDS = (200_000, 1_000, 1_000)


def relax_collector() -> None:
    """Let the collector look rarely, and never at what is loaded by now.

    Rows, items and messages come in thousands, are held for a while and hold no circles; by default every 700 new
    objects are looked through, and all there are every time their number grew by a quarter. Call it once, in a process
    in which no user code runs, when what it needs is imported.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


@contextmanager
def relaxed_collector() -> Iterator[None]:
    """Let the collector look rarely while modules are imported, and never at what they leave.

    Half a million functions, classes and code objects stay as they are, and looking at them took an eighth of the time
    that scikit-learn is imported in. For the first import of a process, before anything of it may become garbage.
    What user code itself says of the collector holds.
    """
    before = gc.get_threshold()
    gc.set_threshold(*_IMPORT_THRESHOLDS)
    try:
        yield
    finally:
        if gc.get_threshold() == _IMPORT_THRESHOLDS:
            gc.set_threshold(*before)
            gc.freeze()
