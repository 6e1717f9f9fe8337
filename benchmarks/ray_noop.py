"""Ray doing nothing to many items: `PYTHON benchmarks/ray_noop.py tasks|data N SLOTS [cold]`; that Python has Ray.

A few items go before those that are timed; not with `cold`, where whoever starts the process measures it as a whole.
Imports nothing of this repository: Ray lives in an environment of its own.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def _ray() -> Any:
    # When it is used: this module can be imported where there is none.
    import ray  # type: ignore[import-not-found, unused-ignore]  # pyright: ignore[reportMissingImports]

    return ray


def identity(item: Any) -> Any:
    """Do nothing."""
    return item


def tasks(count: int, *, cold: bool) -> float:
    """One task an item."""
    ray = _ray()
    remote = ray.remote(identity)
    if not cold:
        ray.get([remote.remote(b"") for _ in range(20)])
    began = time.monotonic()
    ray.get([remote.remote(b"%d" % number) for number in range(count)])
    return time.monotonic() - began


def data(count: int, *, cold: bool) -> float:
    """`ray.data`, a row an item."""
    ray = _ray()
    if not cold:
        ray.data.range(100).map(identity).take_all()
    began = time.monotonic()
    ray.data.range(count).map(identity).take_all()
    return time.monotonic() - began


def main() -> None:
    """Run what the arguments name."""
    name, count, slots = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    ray = _ray()
    ray.init(num_cpus=slots, include_dashboard=False, logging_level="ERROR")
    seconds = {"tasks": tasks, "data": data}[name](count, cold="cold" in sys.argv[4:])
    ray.shutdown()
    print(json.dumps({"items": count, "seconds": seconds}))


if __name__ == "__main__":
    main()
