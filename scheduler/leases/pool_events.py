"""What the pool tells: what became of leases and jobs, beside the events of every executor."""

from __future__ import annotations

import msgspec

from ...worker.job import Lease
from .executor import DatumFailed, JobFinished, JobStuck, Progressed, SegmentStored, WorkersChanged

__all__ = [
    "LostDatum",
    "PoolEvent",
    "WorkerLost",
]


class LostDatum(msgspec.Struct, frozen=True, kw_only=True, tag="lost"):
    """A datum that lost `LOSSES_MAX` workers; the pool knows its place, not its key."""

    job: str
    block: str
    index: int


class WorkerLost(msgspec.Struct, frozen=True, kw_only=True, tag="worker-lost"):
    """A worker is gone with leases of a job in hand; `LeasePool.settle` must follow."""

    job: str
    worker: str
    leases: tuple[Lease, ...]


PoolEvent = Progressed | SegmentStored | DatumFailed | LostDatum | WorkerLost | JobFinished | JobStuck | WorkersChanged
