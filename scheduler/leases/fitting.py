"""What a lease takes of a worker, and whether a worker has it. Pure.

`cpu` is slots. A job that wants more slots than a worker has may have that worker alone. `memory` (bytes) counts only
where the worker says how much it has. Everything else (`gpu`, named resources) a worker has as it says, or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from .executor import JobOffer
from .held import PoolWorker

__all__ = ["SHARED", "describe_missing", "missing", "needs_of", "short_of"]

SHARED = frozenset({"cpu", "memory"})
"""What leases of every kind take: a large lease must be able to wait for it without being overtaken for ever."""


def needs_of(offer: JobOffer) -> dict[str, float]:
    """Return what one lease of a job takes.

    Examples
    --------
    >>> needs_of(JobOffer(job="j", spec="", pipeline="p", cpus=1.5, gpus=1, resources={"licence": 2}))
    {'cpu': 2, 'gpu': 1, 'licence': 2}
    """
    needs: dict[str, float] = {"cpu": max(1, math.ceil(offer.cpus))}
    if offer.gpus:
        needs["gpu"] = offer.gpus
    if offer.memory_bytes:
        needs["memory"] = offer.memory_bytes
    return needs | dict(offer.resources)


def _has(worker: PoolWorker, name: str) -> float:
    if name == "cpu":
        return worker.slots
    return worker.resources.get(name, math.inf if name == "memory" else 0.0)


def missing(needs: Mapping[str, float], worker: PoolWorker) -> str:
    """Name what the worker lacks even when nothing else runs there; empty if nothing."""
    return next((name for name, need in needs.items() if name != "cpu" and need > _has(worker, name)), "")


def short_of(
    needs: Mapping[str, float], worker: PoolWorker, slot: int, needs_of_job: Callable[[str], Mapping[str, float]]
) -> str:
    """Name what the worker has too little of, as long as its other slots hold what they hold; empty if it fits.

    Parameters
    ----------
    slot
        That the lease is for: what it held before ends now.
    needs_of_job
        Of a job that has leases there.
    """
    if not worker.out:
        return missing(needs, worker)
    used: dict[int, Mapping[str, float]] = {}
    for out in worker.out.values():
        if out.running and out.slot != slot:
            taken = needs_of_job(out.lease.job)
            before = used.get(out.slot)
            used[out.slot] = taken if before is None else _larger(before, taken)
    for name, need in needs.items():
        has = _has(worker, name)
        taken_now = sum(min(taken.get(name, 0), has) for taken in used.values())
        if taken_now + (min(need, has) if name == "cpu" else need) > has:
            return name
    return ""


def _larger(a: Mapping[str, float], b: Mapping[str, float]) -> Mapping[str, float]:
    return {name: max(a.get(name, 0), b.get(name, 0)) for name in {**a, **b}}


def describe_missing(needs: Mapping[str, float], workers: Iterable[PoolWorker]) -> str:
    """Say what no worker has enough of: `gpu: 2 (the most that a worker has is 1)`."""
    found = list(workers)
    lacking = []
    for name, need in needs.items():
        most = max((_has(worker, name) for worker in found), default=0)
        if name != "cpu" and need > most:
            lacking.append(f"{name}: {_amount(name, need)} (the most that a worker has is {_amount(name, most)})")
    if lacking:
        return ", ".join(lacking)
    together = ", ".join(f"{name}: {_amount(name, need)}" for name, need in needs.items() if name != "cpu")
    return f"{together} (no one worker has all of it)"


def _amount(name: str, value: float) -> str:
    if name == "memory":
        gib = value / 2**30
        return f"{gib:,.0f} GiB" if gib >= 100 else f"{gib:.3g} GiB"
    return f"{value:g}"
