"""Where the controller's datums are computed: the protocol between deciding and doing.

The controller offers blocks of datums and hears what became of them; it never calls user code. Two implementations:
`pool_executor.PoolExecutor` (slots, near or far) and `inline.InlineExecutor` (this process, for `testing.run`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from ...storage.objects.segment import Failure
from ..peers.tracker import Traffic


class JobOffer(msgspec.Struct, frozen=True, kw_only=True):
    """A job that datums will be offered for."""

    job: str
    spec: str
    """Node of the `JobSpec`, hex."""
    pipeline: str
    batch: int = 0
    cpus: float = 1.0
    gpus: int = 0
    memory_bytes: int = 0
    """0: not said."""
    resources: dict[str, float] = {}
    """Named ones: workers that do not announce them get nothing of this job."""
    priority: int = 0
    """Datums of a job are leased before those of jobs with a smaller number."""
    fold: int = 0
    near: tuple[bytes, ...] = ()
    """Names in the file cache of large files that every datum reads: hosts that have them are preferred."""


class Progressed(msgspec.Struct, frozen=True, kw_only=True, tag="progressed"):
    """Totals since the job was offered. Computed is not yet stored."""

    job: str
    computed: int
    failed: int
    running: int
    seconds: float
    """Sum of the datums' own seconds."""


class SegmentStored(msgspec.Struct, frozen=True, kw_only=True, tag="stored"):
    """A segment is in the store; `rows` of its datums are finished."""

    job: str
    key: str
    rows: int
    failed: int
    fold: int


class DatumFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """A datum used up its tries. Comes at most 100 times a job; the rows in the segments are complete."""

    job: str
    key: bytes
    failure: Failure


class DatumLost(msgspec.Struct, frozen=True, kw_only=True, tag="lost"):
    """Five workers were lost with this datum alone in hand: it counts as failed. There is no row for it."""

    job: str
    key: bytes
    fingerprint: bytes


class JobFinished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """No more blocks come, and every datum is in a stored segment or lost."""

    job: str


class WorkersChanged(msgspec.Struct, frozen=True, kw_only=True, tag="workers"):
    """Slots that can take leases now."""

    workers: int
    slots: int


class JobStuck(msgspec.Struct, frozen=True, kw_only=True, tag="stuck"):
    """No worker that is there can take a datum of this job, not even when it has nothing else to do."""

    job: str
    missing: str
    """`gpu: 1 (the most that a worker has is 0)`; empty: it was so, and a worker came that can."""


class WorkerRefused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """A worker was turned away; others go on."""

    message: str


class ExecutorFailed(msgspec.Struct, frozen=True, kw_only=True, tag="executor-failed"):
    """The executor cannot go on (its scheduler died, a worker refuses to start)."""

    message: str
    hint: str = ""


Event = (
    Progressed
    | SegmentStored
    | DatumFailed
    | DatumLost
    | JobFinished
    | JobStuck
    | WorkersChanged
    | WorkerRefused
    | ExecutorFailed
)


class Executor(Protocol):
    """Computes datums. All methods are called from one thread."""

    def offer(self, job: JobOffer) -> None:
        """Announce a job. Idempotent."""
        ...

    def add_block(self, job: str, block: str, count: int) -> None:
        """Add the datums of the node `block` (hex) to the job's queue."""
        ...

    def end_blocks(self, job: str) -> None:
        """Say that no more blocks come. `JobFinished` follows, at once if nothing is open."""
        ...

    def backlog(self, job: str) -> int:
        """Blocks of the job that no slot has begun. The controller keeps this at 16 or fewer."""
        ...

    def advance_fold(self, job: str, fold: int) -> None:
        """Leases given from now on carry `fold`."""
        ...

    def open_folds(self, job: str) -> Sequence[int]:
        """Folds of leases that are still out: segments of these may still arrive."""
        ...

    def cancel(self, job: str) -> None:
        """Drop what no slot has begun, end what runs, flush what is computed; then `JobFinished`. Idempotent."""
        ...

    def poll(self, timeout_s: float) -> list[Event]:
        """Return what happened since the last call; wait up to `timeout_s` for something."""
        ...

    def slots(self) -> int:
        """Slots that can take leases now."""
        ...

    def traffic(self) -> Traffic:
        """Bytes of large files that hosts took since this executor was made, as far as it has heard; asks nobody."""
        ...

    def close(self) -> None:
        """End everything this executor started. Idempotent."""
        ...
