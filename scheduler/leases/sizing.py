"""How many datums a lease holds, and how many slots the open jobs could use. Pure.

A lease is sized to `TARGET_S` of work, and to half of an even share of what is left, so that no slot has a long tail
alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from .held import PoolJob

__all__ = ["TARGET_S", "lease_size", "slots_wanted", "smoothed"]

TARGET_S = 0.5
"""Work that a lease should hold, up to about a thousand slots."""
SLOT_S = 0.0004
"""For each slot: a request costs the scheduler about 200 us, and it should be busy for half of its time at most. Were
leases of a large cluster not longer, requests would wait, leases would seem to take that long, and become shorter."""
_SMOOTHING = 0.5


def lease_size(job: PoolJob, slots: int) -> int:
    """Choose how many datums of a job the next lease holds.

    Parameters
    ----------
    slots
        Of all workers.
    """
    target_s = max(TARGET_S, slots * SLOT_S)
    size = 1 if job.per_datum_s is None else int(target_s / max(job.per_datum_s, 1e-6))
    if job.ended:
        # Only then is what is queued all that is left: of a long plan no more than a few blocks wait here.
        size = min(size, job.queue.queued // (2 * max(1, slots // job.slots_needed)))
    size = max(1, size)
    if job.offer.batch:
        # Whole batches: a vectorised transform is as fast as its batches are large.
        size = max(1, size // job.offer.batch) * job.offer.batch
    return size


def smoothed(old: float | None, sample: float) -> float:
    """Take a sample into a moving average; None: it is the first."""
    return sample if old is None else old + _SMOOTHING * (sample - old)


def slots_wanted(jobs: Iterable[PoolJob], target_s: float) -> int:
    """Count the slots that would work off everything queued and leased in about `target_s` seconds.

    By what datums took so far; a job whose datums were never timed counts as one slot per datum.
    """
    wanted = 0
    for job in jobs:
        if job.cancelled:
            continue
        waiting = job.queue.waiting + sum(out.waiting for out in job.out.values())
        each_s = target_s if job.per_datum_s is None else job.per_datum_s
        wanted += job.slots_needed * min(waiting, math.ceil(waiting * each_s / target_s))
    return wanted
