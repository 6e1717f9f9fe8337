"""Work that makes millions of small objects, none of them in a cycle."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["without_cycles"]


@contextlib.contextmanager
def without_cycles() -> Iterator[None]:
    """Leave garbage in cycles alone: looking for it again and again costs more than the work."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
