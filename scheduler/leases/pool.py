"""The lease pool: which slot computes which datums. Pure; time is passed in.

Rules:

* A datum is in exactly one place: queued, suspect, in a lease, stored, lost, or dropped by `cancel`.
* A lease stays with its worker until every datum of it is stored or given back. Computed is not stored.
* A lost worker may have stored a segment that it could not report. So its leases stay out until the controller has
  looked (`WorkerLost`, `settle`); what was not stored is then queued again.
* A lost lease that was not computed makes its datums *suspect*: they are leased one by one, so that the next loss has
  one cause. A datum that was alone in a lost lease is from then on leased to a worker that holds no other such datum;
  after `LOSSES_MAX` losses it is lost.
* Reports about leases that the pool no longer knows are ignored: each datum is counted once.
* Jobs share by slots in use; among equals the one served longest ago is next. A lease is sized to
  `TARGET_S` of work, and to half of an even share of what is left, so that no slot has a long tail alone.

Left out on purpose: waiting (`dask_plugin`), recalling datums from a slow slot, who is near which data.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from ...storage.errors import ErrorCode, NotFoundError
from ...worker.job import Lease
from ...worker.messages import Computed, GivenBack, LeaseRequest, Stored
from .executor import DatumFailed, JobFinished, JobOffer, Progressed, SegmentStored, WorkersChanged

__all__ = [
    "LOSSES_MAX",
    "PROGRESS_INTERVAL_S",
    "TARGET_S",
    "JobStatus",
    "LeasePool",
    "LostDatum",
    "PoolEvent",
    "WorkerLost",
]

TARGET_S = 0.5
"""Work that a lease should hold."""
LOSSES_MAX = 5
"""Workers lost with one datum alone in hand before it counts as lost."""
FAILURES_MAX = 100
"""`DatumFailed` events of one job."""
PROGRESS_INTERVAL_S = 0.2
_SMOOTHING = 0.5


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


PoolEvent = Progressed | SegmentStored | DatumFailed | LostDatum | WorkerLost | JobFinished | WorkersChanged


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


class _Span(NamedTuple):
    block: str
    start: int
    stop: int


class _Suspect(NamedTuple):
    block: str
    row: int
    losses: int


@dataclass(slots=True)
class _Out:
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

    @property
    def size(self) -> int:
        return len(self.closed)

    @property
    def computed(self) -> bool:
        return self.done + self.given >= self.size

    @property
    def exclusive(self) -> bool:
        return self.losses > 0

    def open_rows(self) -> list[int]:
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


@dataclass(slots=True)
class _Job:
    offer: JobOffer
    fold: int
    queue: deque[_Span] = field(default_factory=deque)
    suspects: deque[_Suspect] = field(default_factory=deque)
    queued: int = 0
    """Datums in `queue`."""
    blocks: set[str] = field(default_factory=set)
    fresh: set[str] = field(default_factory=set)
    """Blocks that no slot has begun."""
    out: dict[int, _Out] = field(default_factory=dict)
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

    @property
    def slots_needed(self) -> int:
        return max(1, math.ceil(self.offer.cpus))

    def in_use(self) -> int:
        return self.slots_needed * sum(1 for out in self.out.values() if not (out.computed or out.lost))


@dataclass(slots=True)
class _Worker:
    slots: int
    draining: bool = False
    out: dict[int, _Out] = field(default_factory=dict)
    last_report: dict[int, float] = field(default_factory=dict)
    reserved_for: str = ""
    """A job that needs more slots than are free here: nothing else is given until it fits."""


class LeasePool:
    """Jobs, blocks and leases of one scheduler.

    Examples
    --------
    >>> pool = LeasePool()
    >>> pool.add_worker("w", 2)
    >>> pool.offer(JobOffer(job="j", spec="", pipeline="p"))
    >>> pool.add_block("j", "b", 10)
    >>> lease = pool.take("w", 0, 0.0)
    >>> lease.start, lease.stop
    (0, 1)
    """

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}
        self._finished: set[str] = set()
        self._workers: dict[str, _Worker] = {}
        self._lost: dict[str, dict[int, _Out]] = {}
        """Leases of workers that are gone, until they are settled."""
        self._events: list[PoolEvent] = []
        self._next_lease = 1
        self._turn = 0

    # -- workers

    def add_worker(self, worker: str, slots: int) -> None:
        """A worker is there, with `slots` places that run user code."""
        if worker in self._workers:
            return
        self._workers[worker] = _Worker(max(1, slots))
        self._workers_changed()

    def remove_worker(self, worker: str) -> None:
        """A worker is gone: say which leases it held. They stay out until `settle`."""
        gone = self._workers.pop(worker, None)
        if gone is None:
            return
        self._lost[worker] = gone.out
        held: dict[str, list[Lease]] = {}
        for out in gone.out.values():
            out.lost = True
            held.setdefault(out.lease.job, []).append(out.lease)
        for job, leases in held.items():
            self._events.append(WorkerLost(job=job, worker=worker, leases=tuple(leases)))
        if not held:
            del self._lost[worker]
        self._workers_changed()

    def settle(self, job: str, worker: str, stored: Sequence[Stored] = ()) -> None:
        """Take what a lost worker had stored of a job; queue the rest of its leases. Idempotent."""
        outs = self._lost.get(worker)
        if outs is None:
            return
        for segment in stored:
            self._stored(outs, segment)
        # Newest first: each is put at the head of the queue, which then stands in the order it was leased.
        for out in sorted(outs.values(), key=lambda out: -out.lease.id):
            if out.lease.job == job:
                self._revoke(out)
        self._finish_if_done(job)

    def settle_all(self) -> None:
        """Settle every lost worker, as if it had stored nothing that it did not report."""
        for worker, outs in list(self._lost.items()):
            for job in {out.lease.job for out in outs.values()}:
                self.settle(job, worker)

    def has_worker(self, worker: str) -> bool:
        """Whether `worker` may hold leases."""
        return worker in self._workers

    def draining(self, worker: str) -> bool:
        """Whether `worker` said that it is about to leave."""
        found = self._workers.get(worker)
        return found is not None and found.draining

    def slots(self) -> int:
        """Slots that can take leases now."""
        return sum(worker.slots for worker in self._workers.values() if not worker.draining)

    def worker_count(self) -> int:
        """Workers that are there."""
        return len(self._workers)

    # -- jobs

    def offer(self, offer: JobOffer) -> None:
        """Announce a job. Idempotent while it is open; a finished one begins anew."""
        if offer.job in self._jobs:
            return
        self._finished.discard(offer.job)
        self._jobs[offer.job] = _Job(offer, offer.fold)

    def add_block(self, job: str, block: str, count: int) -> None:
        """Queue the datums of a block. Idempotent; ignored for a job that was cancelled or has finished."""
        found = self._find(job)
        if found is None or found.cancelled or found.ended or block in found.blocks or count <= 0:
            return
        found.blocks.add(block)
        found.fresh.add(block)
        found.queue.append(_Span(block, 0, count))
        found.queued += count

    def end_blocks(self, job: str) -> None:
        """No more blocks come."""
        found = self._find(job)
        if found is not None:
            found.ended = True
            self._finish_if_done(job)

    def advance_fold(self, job: str, fold: int) -> None:
        """Leases given from now on carry `fold` (never a smaller one than before)."""
        found = self._find(job)
        if found is not None:
            found.fold = max(found.fold, fold)

    def cancel(self, job: str) -> None:
        """Drop what no slot holds; the job finishes when its workers have stored or given back what they hold."""
        found = self._find(job)
        if found is None or found.cancelled:
            return
        found.cancelled = True
        found.queue.clear()
        found.suspects.clear()
        found.fresh.clear()
        found.queued = 0
        self._finish_if_done(job)

    def revoke(self, job: str) -> None:
        """Cancel, and take the leases away from workers that do not answer: what they store later is not counted."""
        self.cancel(job)
        found = self._jobs.get(job)
        if found is not None:
            for out in list(found.out.values()):
                self._revoke(out)
            self._finish_if_done(job)

    def jobs(self) -> list[str]:
        """Ids of the open jobs, in the order they were offered."""
        return list(self._jobs)

    def backlog(self, job: str) -> int:
        """Blocks that no slot has begun."""
        found = self._jobs.get(job)
        return len(found.fresh) if found is not None else 0

    def open_folds(self, job: str) -> tuple[int, ...]:
        """Folds of leases that are out."""
        found = self._jobs.get(job)
        return tuple(sorted({out.lease.fold for out in found.out.values()})) if found is not None else ()

    def status(self) -> list[JobStatus]:
        """Every open job."""
        return [
            JobStatus(
                job=name,
                pipeline=job.offer.pipeline,
                queued=job.queued + len(job.suspects),
                leased=sum(out.left for out in job.out.values()),
                backlog=len(job.fresh),
                open_folds=self.open_folds(name),
                cancelled=job.cancelled,
            )
            for name, job in self._jobs.items()
        ]

    # -- leases

    def report(self, request: LeaseRequest, now: float) -> None:
        """Take in what a worker says of its leases."""
        worker = self._workers.get(request.worker)
        if worker is None:
            return
        if request.draining and not worker.draining:
            worker.draining = True
            self._workers_changed()
        touched: set[str] = set()
        for computed in request.returned:
            self._computed(worker, request, computed, now)
        for failed in request.failures:
            job = self._jobs.get(failed.job)
            if job is not None and failed.key not in job.failures and len(job.failures) < FAILURES_MAX:
                job.failures.add(failed.key)
                self._events.append(DatumFailed(job=failed.job, key=failed.key, failure=failed.failure))
        for given in request.giving_back:
            touched |= self._given_back(request.worker, given)
        for stored in request.stored:
            touched |= self._stored(worker.out, stored)
        for name in touched:
            self._finish_if_done(name)

    def take(self, worker: str, slot: int, now: float) -> Lease | None:
        """Give `slot` of `worker` a lease, or None if there is nothing for it."""
        taker = self._workers.get(worker)
        if taker is None or taker.draining:
            return None
        exclusive = any(out.exclusive and not out.computed for out in taker.out.values())
        first = True
        for name, job in sorted(self._jobs.items(), key=lambda item: (item[1].in_use(), item[1].turn)):
            if not job.queue and not (job.suspects and (not exclusive or any(s.losses == 0 for s in job.suspects))):
                continue
            if not self._fits(taker, name, job, slot, first=first):
                first = False
                continue
            return self._give(name, job, worker, taker, slot, now, exclusive=exclusive)
        return None

    def flush_wanted(self, worker: str) -> bool:
        """Whether `worker` holds computed datums that it was not yet told to store; it counts as told now."""
        held = self._workers.get(worker)
        found = False
        if held is not None:
            for out in held.out.values():
                # Part of a lease may be computed while the rest runs: told about again when it has ended.
                if out.computed and not out.told_to_flush:
                    out.told_to_flush = found = True
        return found

    def cancelled_for(self, worker: str) -> tuple[str, ...]:
        """Cancelled jobs that `worker` holds leases of."""
        held = self._workers.get(worker)
        if held is None:
            return ()
        names = {out.lease.job for out in held.out.values()}
        return tuple(sorted(name for name in names if self._jobs[name].cancelled))

    def cancel_news(self, worker: str, slot: int) -> bool:
        """Whether `slot` of `worker` has not heard of one of `cancelled_for`; it counts as told now."""
        news = False
        for name in self.cancelled_for(worker):
            told = self._jobs[name].told
            if (worker, slot) not in told:
                told.add((worker, slot))
                news = True
        return news

    def holds(self, worker: str) -> int:
        """Leases that `worker` holds."""
        held = self._workers.get(worker)
        return len(held.out) if held is not None else 0

    # -- events

    def events(self) -> list[PoolEvent]:
        """What happened since the last call, oldest first."""
        events, self._events = self._events, []
        return events

    def progress(self, now: float) -> float | None:
        """Emit `Progressed` of jobs whose totals changed, at most every `PROGRESS_INTERVAL_S` each.

        Returns
        -------
        float | None
            When to call again, in the caller's time; None if no change waits.
        """
        again: float | None = None
        for name, job in self._jobs.items():
            if not job.changed:
                continue
            due = job.reported_at + PROGRESS_INTERVAL_S
            if now >= due:
                self._emit_progress(name, job, now)
            else:
                again = due if again is None else min(again, due)
        return again

    # -- inside

    def _find(self, job: str) -> _Job | None:
        found = self._jobs.get(job)
        if found is None and job not in self._finished:
            raise NotFoundError(f"job {job} was never offered to this lease pool", code=ErrorCode.NO_JOB)
        return found

    def _workers_changed(self) -> None:
        self._events.append(WorkersChanged(workers=len(self._workers), slots=self.slots()))

    def _emit_progress(self, name: str, job: _Job, now: float) -> None:
        running = sum(max(0, out.size - out.given - out.done) for out in job.out.values() if not out.lost)
        job.changed = False
        job.reported_at = now
        self._events.append(
            Progressed(job=name, computed=job.computed, failed=job.failed, running=running, seconds=job.seconds)
        )

    def _finish_if_done(self, name: str) -> None:
        job = self._jobs.get(name)
        if job is None or not (job.ended or job.cancelled) or job.queue or job.suspects or job.out:
            return
        self._emit_progress(name, job, job.reported_at)
        self._events.append(JobFinished(job=name))
        del self._jobs[name]
        self._finished.add(name)
        for worker in self._workers.values():
            if worker.reserved_for == name:
                worker.reserved_for = ""

    def _fits(self, taker: _Worker, name: str, job: _Job, slot: int, *, first: bool) -> bool:
        if taker.reserved_for and taker.reserved_for != name:
            reserved = self._jobs.get(taker.reserved_for)
            if reserved is not None and (reserved.queue or reserved.suspects):
                return False
            taker.reserved_for = ""
        if job.slots_needed > 1:
            used: dict[int, int] = {}
            for out in taker.out.values():
                if not out.computed and out.slot != slot:
                    needed = self._jobs[out.lease.job].slots_needed
                    used[out.slot] = max(used.get(out.slot, 0), needed)
            if used and sum(used.values()) + job.slots_needed > taker.slots:
                if first:
                    taker.reserved_for = name
                return False
        else:
            # A wide lease holds other slots of this worker: they may not run anything beside it.
            wide = [out for out in taker.out.values() if not out.computed and out.slot != slot]
            held = {out.slot: self._jobs[out.lease.job].slots_needed for out in wide}
            if any(needed > 1 for needed in held.values()) and sum(held.values()) + 1 > taker.slots:
                return False
        taker.reserved_for = ""
        return True

    def _size(self, job: _Job) -> int:
        slots = max(1, self.slots() // job.slots_needed)
        size = 1 if job.per_datum_s is None else int(TARGET_S / max(job.per_datum_s, 1e-6))
        size = max(1, min(size, job.queued // (2 * slots)))
        if job.offer.batch:
            # Whole batches: a vectorised transform is as fast as its batches are large.
            size = max(1, size // job.offer.batch) * job.offer.batch
        return size

    def _give(
        self, name: str, job: _Job, worker: str, taker: _Worker, slot: int, now: float, *, exclusive: bool
    ) -> Lease:
        losses = 0
        if job.queue:
            span = job.queue.popleft()
            stop = min(span.stop, span.start + self._size(job))
            if stop < span.stop:
                job.queue.appendleft(_Span(span.block, stop, span.stop))
            block, start = span.block, span.start
            job.queued -= stop - start
            job.fresh.discard(block)
        else:
            suspect = self._next_suspect(job, exclusive=exclusive)
            block, start, stop, losses = suspect.block, suspect.row, suspect.row + 1, suspect.losses
        lease = Lease(
            id=self._next_lease, job=name, spec=job.offer.spec, block=block, start=start, stop=stop, fold=job.fold
        )
        self._next_lease += 1
        self._turn += 1
        job.turn = self._turn
        job.changed = True
        out = _Out(lease, worker, slot, now, losses, bytearray(stop - start), stop - start)
        job.out[lease.id] = taker.out[lease.id] = out
        return lease

    @staticmethod
    def _next_suspect(job: _Job, *, exclusive: bool) -> _Suspect:
        for at, suspect in enumerate(job.suspects):
            if not exclusive or suspect.losses == 0:
                del job.suspects[at]
                return suspect
        raise AssertionError("take() looked for a suspect that this worker may have")

    def _computed(self, worker: _Worker, request: LeaseRequest, computed: Computed, now: float) -> None:
        out = worker.out.get(computed.lease)
        if out is None:
            return
        job = self._jobs[out.lease.job]
        done = max(0, min(computed.done, out.size - out.given - out.done))
        out.done += done
        out.failed += computed.failed
        job.computed += done
        job.failed += computed.failed
        job.seconds += computed.seconds
        job.changed = True
        if done:
            # Wall time at this slot, fetching included: a lease of a thousand tiny files must not take a minute.
            began = max(out.given_at, worker.last_report.get(out.slot, -math.inf))
            sample = max(now - began, computed.seconds if len(request.returned) == 1 else 0.0) / done
            old = job.per_datum_s
            job.per_datum_s = sample if old is None else old + _SMOOTHING * (sample - old)
        worker.last_report[out.slot] = now

    def _given_back(self, worker: str, given: GivenBack) -> set[str]:
        out = self._workers[worker].out.get(given.lease)
        if out is None:
            return set()
        rows = [index for index in range(given.start, given.stop) if out.close(index)]
        out.given += len(rows)
        job = self._jobs[out.lease.job]
        job.changed = True
        if not job.cancelled:
            if out.exclusive:
                job.suspects.extend(_Suspect(out.lease.block, index, out.losses) for index in rows)
            else:
                self._requeue(job, out.lease.block, rows)
        self._close_if_empty(out)
        return {out.lease.job}

    def _stored(self, outs: dict[int, _Out], stored: Stored) -> set[str]:
        fresh = 0
        for part in stored.leases:
            out = outs.get(part.lease)
            if out is None or out.lease.job != stored.job:
                continue
            rows = sum(1 for index in part.indexes if out.close(index))
            out.stored += rows
            fresh += rows
            self._close_if_empty(out)
        if fresh == 0:
            # Nothing here is ours to count: a repeated report, or leases that were revoked.
            return set()
        self._events.append(
            SegmentStored(job=stored.job, key=stored.key, rows=stored.rows, failed=stored.failed, fold=stored.fold)
        )
        return {stored.job}

    def _close_if_empty(self, out: _Out) -> None:
        if out.left:
            return
        job = self._jobs[out.lease.job]
        # Stored before it was reported as computed: the totals must still add up.
        job.computed += max(0, out.size - out.given - out.done)
        job.changed = True
        self._forget(out)

    def _forget(self, out: _Out) -> None:
        del self._jobs[out.lease.job].out[out.lease.id]
        worker = self._workers.get(out.worker)
        if worker is not None:
            del worker.out[out.lease.id]
        else:
            lost = self._lost[out.worker]
            del lost[out.lease.id]
            if not lost:
                del self._lost[out.worker]

    def _revoke(self, out: _Out) -> None:
        job = self._jobs[out.lease.job]
        rows = out.open_rows()
        self._forget(out)
        job.changed = True
        job.computed -= max(0, out.done - out.stored)
        if out.stored == 0:
            job.failed -= out.failed
        if job.cancelled:
            return
        block = out.lease.block
        if out.computed:
            self._requeue(job, block, rows)
        elif out.size > 1:
            job.suspects.extend(_Suspect(block, index, 0) for index in rows)
        else:
            for index in rows:
                self._lose(job, block, index, out.losses + 1)

    def _lose(self, job: _Job, block: str, index: int, losses: int) -> None:
        if losses < LOSSES_MAX:
            job.suspects.append(_Suspect(block, index, losses))
            return
        job.computed += 1
        job.failed += 1
        self._events.append(LostDatum(job=job.offer.job, block=block, index=index))

    @staticmethod
    def _requeue(job: _Job, block: str, rows: list[int]) -> None:
        """Put rows (ascending) at the head of the queue, as few spans."""
        spans: list[_Span] = []
        for index in rows:
            if spans and spans[-1].stop == index:
                spans[-1] = _Span(block, spans[-1].start, index + 1)
            else:
                spans.append(_Span(block, index, index + 1))
        job.queue.extendleft(reversed(spans))
        job.queued += len(rows)
