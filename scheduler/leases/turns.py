"""Whose turn it is: the job of which a free slot is given a lease.

A job of a higher priority goes first. Jobs of one priority share by slots in use, a little less strictly on a host that
holds their large inputs; among equals the one served longest ago is next. If the first in turn finds too few slots or
too little memory free, the worker is reserved for it: nothing else is given there until it fits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .fitting import SHARED, missing, short_of
from .held import PoolJob, PoolWorker

__all__ = ["choose_job", "holds_exclusive"]

NEAR_SLOTS_MIN = 2
NEAR_SHARE = 8
"""A job whose inputs a host holds is served there as if it used an eighth of all slots (at least 2) less."""


def choose_job(
    jobs: Mapping[str, PoolJob],
    taker: PoolWorker,
    slot: int,
    *,
    near: Collection[str],
    slots: int,
    exclusive: bool,
) -> str | None:
    """Choose the job of which `slot` of a worker is given a lease; None if there is nothing for it.

    Reserves the worker for a job, or frees it (`PoolWorker.reserved_for`).

    Parameters
    ----------
    near
        Jobs whose large inputs the worker's host holds already.
    slots
        Of all workers.
    exclusive
        As `holds_exclusive` says.
    """
    first = True
    for name, job in _in_order(jobs, near, slots):
        if not job.queue.has_for(exclusive=exclusive) or missing(job.needs, taker):
            continue
        if _fits(jobs, taker, name, slot, first=first):
            return name
        first = False
    return None


def holds_exclusive(jobs: Mapping[str, PoolJob], taker: PoolWorker) -> bool:
    """Whether a worker may be given no suspect that took a worker along, since it has one; False if there is none."""
    return any(job.queue.suspects for job in jobs.values()) and any(
        out.exclusive and not out.computed for out in taker.out.values()
    )


def _in_order(jobs: Mapping[str, PoolJob], near: Collection[str], slots: int) -> list[tuple[str, PoolJob]]:
    """Jobs, the one that is to be served next first."""
    if len(jobs) == 1:
        return list(jobs.items())
    # A job may be so many slots ahead of its share where its inputs are; never more, so that no other starves.
    ahead = max(NEAR_SLOTS_MIN, slots // NEAR_SHARE)

    def rank(item: tuple[str, PoolJob]) -> tuple[int, int, int]:
        name, job = item
        return (-job.offer.priority, job.in_use - (ahead if name in near else 0), job.turn)

    return sorted(jobs.items(), key=rank)


def _fits(jobs: Mapping[str, PoolJob], taker: PoolWorker, name: str, slot: int, *, first: bool) -> bool:
    if taker.reserved_for and taker.reserved_for != name:
        reserved = jobs.get(taker.reserved_for)
        if reserved is not None and not reserved.queue.is_empty:
            return False
        taker.reserved_for = ""
    short = short_of(jobs[name].needs, taker, slot, lambda other: jobs[other].needs)
    if short:
        if first and short in SHARED:
            taker.reserved_for = name
        return False
    taker.reserved_for = ""
    return True
