"""What a worker has beside slots, as it tells the lease pool."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..storage.errors import InvalidInputError

RESOURCES_VARIABLE = "DMLPIPE_RESOURCES"
"""`licence=2,fpga=1`: what the workers started from here have."""

_CGROUP_LIMITS = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")


def found_resources(devices: Sequence[str], declared: Sequence[str]) -> dict[str, float]:
    """Return what was found (`memory` in bytes, `gpu`) and what was declared, which stands above it.

    Parameters
    ----------
    declared
        `NAME=NUMBER` each; empty words are skipped.

    Raises
    ------
    InvalidInputError
        A word is something else.

    Examples
    --------
    >>> found_resources(["0", "1"], ["memory=1000", "", "licence=2"])
    {'memory': 1000.0, 'gpu': 2.0, 'licence': 2.0}
    """
    resources = {"memory": float(memory_bytes())}
    if devices:
        resources["gpu"] = float(len(devices))
    for word in declared:
        name, equals, number = word.strip().partition("=")
        if not word.strip():
            continue
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not equals or not name.isidentifier() or not 0 <= value < float("inf"):
            raise InvalidInputError(f"a resource is NAME=NUMBER, such as licence=2; got {word!r}")
        resources[name] = value
    return resources


def memory_bytes(root: Path = Path("/")) -> int:
    """Memory of this machine, or what a control group leaves of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in _CGROUP_LIMITS:
        try:
            text = (root / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total
