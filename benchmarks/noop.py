"""One contender that does nothing to many items, in a process of its own: `python -m benchmarks.noop NAME --items N`.

Printed as JSON: seconds from the first item handed out to the last result taken, CPU seconds of the process and all it
started. A few items go before, so that everything is up; not with `--cold`, where whoever starts the process measures
it as a whole. None of these keeps anything. `benchmarks/ray_noop.py` has those that need an environment with Ray.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Protocol

from .used import adopt_orphans, used_cpu_s

CHUNK = 100
"""Items a message where the alternative is told how many."""


def identity(item: object) -> object:
    """Do nothing."""
    return item


def inputs(count: int) -> list[bytes]:
    """Return the items, all different."""
    return [b"%d" % number for number in range(count)]


def run_pool(count: int, slots: int, *, cold: bool = False) -> float:
    """A pool of processes, many items a message."""
    with ProcessPoolExecutor(slots) as pool:
        if not cold:
            list(pool.map(identity, inputs(CHUNK * slots), chunksize=CHUNK))
        began = time.monotonic()
        list(pool.map(identity, inputs(count), chunksize=CHUNK))
        return time.monotonic() - began


def run_pool_single(count: int, slots: int, *, cold: bool = False) -> float:
    """A pool of processes, a message an item."""
    with ProcessPoolExecutor(slots) as pool:
        if not cold:
            list(pool.map(identity, inputs(slots)))
        began = time.monotonic()
        list(pool.map(identity, inputs(count)))
        return time.monotonic() - began


def run_client_map(count: int, slots: int, *, cold: bool = False) -> float:
    """Dask tasks, one an item."""
    with _client(slots) as client:
        if not cold:
            client.gather(client.map(identity, inputs(10), pure=False))
        began = time.monotonic()
        client.gather(client.map(identity, inputs(count), pure=False))
        return time.monotonic() - began


def run_bag(count: int, slots: int, *, cold: bool = False) -> float:
    """`dask.bag` as it comes: on its own pool of processes."""
    import dask.bag

    def run(items: list[bytes]) -> None:
        bag = dask.bag.from_sequence(items)  # type: ignore[no-untyped-call]
        bag.map(identity).compute(scheduler="processes", num_workers=slots)

    if not cold:
        run(inputs(10))
    began = time.monotonic()
    run(inputs(count))
    return time.monotonic() - began


def _client(slots: int) -> Any:
    from distributed import Client, LocalCluster

    cluster = LocalCluster(  # type: ignore[no-untyped-call]  # distributed annotates little
        n_workers=slots,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,  # pyright: ignore[reportArgumentType]  # its docstring allows None: no dashboard
    )
    client = Client(cluster)  # type: ignore[no-untyped-call]
    client.wait_for_workers(slots, timeout=60)
    return client


class Contender(Protocol):
    """Hands a number of items out to a number of slots; returns the seconds until it has all of them back."""

    def __call__(self, count: int, slots: int, *, cold: bool = False) -> float: ...


CONTENDERS: Mapping[str, Contender] = {
    "ProcessPool": run_pool_single,
    f"ProcessPool in {CHUNK}s": run_pool,
    "client.map": run_client_map,
    "dask.bag": run_bag,
}


def main() -> None:
    """Run what the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.noop")
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("--items", type=int, required=True)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--cold", action="store_true", help="begin with the first item that is counted")
    given = parser.parse_args()
    adopt_orphans()
    seconds = CONTENDERS[given.name](given.items, given.slots, cold=given.cold)
    print(json.dumps({"items": given.items, "seconds": seconds, "cpu_s": used_cpu_s()}))


if __name__ == "__main__":
    main()
