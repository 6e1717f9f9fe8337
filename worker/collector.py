"""How often Python looks for circles of garbage in processes that are ours alone."""

from __future__ import annotations

import gc

_THRESHOLDS = (20_000, 20, 20)


def relax_collector() -> None:
    """Let the collector look rarely, and never at what is loaded by now.

    Rows, items and messages come in thousands, are held for a while and hold no circles; by default every 700 new
    objects are looked through, and all there are every time their number grew by a quarter. Call it once, in a process
    in which no user code runs, when what it needs is imported.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
