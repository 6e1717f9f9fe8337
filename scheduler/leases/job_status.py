"""How far the jobs of a pool are: of each as of now, and of a pipeline's since the pool began."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from .held import PoolJob

__all__ = [
    "JobStatus",
    "Totals",
    "status_of",
]


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A job in the pool, as of now."""

    job: str
    pipeline: str
    queued: int
    """Datums in no slot's hands."""
    leased: int
    """Datums in leases, computed ones that are not stored yet included."""
    backlog: int
    """Blocks that no slot has begun."""
    open_folds: tuple[int, ...]
    cancelled: bool


class Totals(NamedTuple):
    """What became of a pipeline's datums since the pool began, whatever job they were of."""

    computed: int = 0
    """Ended in any way."""
    failed: int = 0
    seconds: float = 0.0
    """Sum of the datums' own."""

    def plus(self, job: PoolJob) -> Totals:
        """Add a job."""
        return Totals(self.computed + job.computed, self.failed + job.failed, self.seconds + job.seconds)


def status_of(name: str, job: PoolJob) -> JobStatus:
    """Say how far a job is."""
    return JobStatus(
        job=name,
        pipeline=job.offer.pipeline,
        queued=job.queue.waiting,
        leased=sum(out.left for out in job.out.values()),
        backlog=len(job.queue.fresh),
        open_folds=job.open_folds,
        cancelled=job.cancelled,
    )
