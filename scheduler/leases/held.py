"""What the pool keeps of its workers, jobs and leases. Plain data: `pool` has the rules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...worker.job import Lease
from .executor import JobOffer
from .job_queue import JobQueue

__all__ = ["Out", "PoolJob", "PoolWorker"]


@dataclass(slots=True)
class Out:
    """A lease that is out."""

    lease: Lease
    worker: str
    slot: int
    given_at: float
    losses: int
    """Workers already lost with this datum alone; 0 for a lease of several."""
    closed: bytearray
    """One byte a datum: stored or given back."""
    left: int
    """Datums neither stored nor given back."""
    done: int = 0
    failed: int = 0
    stored: int = 0
    given: int = 0
    told_to_flush: bool = False
    lost: bool = False
    """Its worker is gone."""
    running: bool = True
    """It counts among its job's slots in use."""
    moved_at: float = -math.inf
    """When a datum of it last ended."""
    recalled_at: float = -math.inf
    """When its worker was last asked to give back what it has not begun."""

    @property
    def size(self) -> int:
        """Datums of the lease."""
        return len(self.closed)

    @property
    def computed(self) -> bool:
        """Every datum was tried or given back."""
        return self.done + self.given >= self.size

    @property
    def waiting(self) -> int:
        """Datums that have not ended; one of them may run."""
        return max(0, self.size - self.given - self.done)

    @property
    def exclusive(self) -> bool:
        """Its one datum took a worker along before."""
        return self.losses > 0

    def open_rows(self) -> list[int]:
        """Rows that are neither stored nor given back, ascending."""
        start = self.lease.start
        return [start + at for at, closed in enumerate(self.closed) if not closed]

    def close(self, index: int) -> bool:
        """Mark one datum; False if it was marked before or belongs to another lease."""
        at = index - self.lease.start
        if not 0 <= at < len(self.closed) or self.closed[at]:
            return False
        self.closed[at] = 1
        self.left -= 1
        return True

    def close_all(self, indexes: Sequence[int]) -> int:
        """Mark many, ascending, each once; return how many were not marked before."""
        start, stop = self.lease.start, self.lease.stop
        if len(indexes) == self.left == self.size and indexes[0] == start and indexes[-1] == stop - 1:
            self.closed[:] = b"\1" * self.size
            self.left = 0
            return self.size
        return sum(1 for index in indexes if self.close(index))


@dataclass(slots=True)
class PoolJob:
    """A job that is open."""

    offer: JobOffer
    fold: int
    queue: JobQueue = field(default_factory=JobQueue)
    """What no slot holds."""
    out: dict[int, Out] = field(default_factory=dict)
    ended: bool = False
    cancelled: bool = False
    told: set[tuple[str, int]] = field(default_factory=set)
    """(worker, slot) that heard of the cancellation."""
    computed: int = 0
    failed: int = 0
    seconds: float = 0.0
    per_datum_s: float | None = None
    turn: int = 0
    failures: set[bytes] = field(default_factory=set)
    changed: bool = False
    reported_at: float = -math.inf
    running: int = 0
    """Leases out that are neither computed nor lost."""
    stuck: bool = False
    """The controller was told that no worker can take it."""
    needs: dict[str, float] = field(default_factory=dict)
    """What one lease takes of a worker: see `fitting`."""

    @property
    def slots_needed(self) -> int:
        """Slots that one lease takes."""
        return max(1, math.ceil(self.offer.cpus))

    @property
    def open_folds(self) -> tuple[int, ...]:
        """Folds of leases that are out."""
        return tuple(sorted({out.lease.fold for out in self.out.values()}))

    @property
    def in_use(self) -> int:
        """Slots that its leases take now."""
        return self.slots_needed * self.running


@dataclass(slots=True)
class PoolWorker:
    """A worker that is there."""

    slots: int
    resources: Mapping[str, float] = field(default_factory=dict)
    """What it has beside slots: `memory` (bytes), `gpu`, named ones."""
    draining: bool = False
    out: dict[int, Out] = field(default_factory=dict)
    last_report: dict[int, float] = field(default_factory=dict)
    reserved_for: str = ""
    """A job that needs more slots than are free here: nothing else is given until it fits."""
