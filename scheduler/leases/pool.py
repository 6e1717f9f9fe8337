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
* Whose turn it is: `turns`. How much it is given: `sizing`. What a straggler has not begun is recalled (`recall`) when
  slots have nothing to do.
* A lease goes only to a worker that has what its job needs (`fitting`); a job that no worker can take is told of.

Left out on purpose: waiting (`service`), who holds what (`peers`).

Long for a module: a lease's whole life is one table of who holds what, which every rule above reads and changes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

from ...storage.errors import ErrorCode, NotFoundError
from ...worker.job import Lease
from ...worker.messages import Computed, GivenBack, LeaseRequest, Stored
from .executor import DatumFailed, JobFinished, JobOffer, JobStuck, Progressed, SegmentStored, WorkersChanged
from .expected import EXPECT_FROM_S, expect, forget, pop
from .fitting import describe_missing, missing, needs_of, short_of
from .held import Out, PoolJob, PoolWorker
from .job_queue import Span
from .job_status import JobStatus, Totals, status_of
from .pool_events import LostDatum, PoolEvent, WorkerLost
from .sizing import lease_size, slots_wanted, smoothed
from .turns import choose_job, holds_exclusive

__all__ = [
    "LOSSES_MAX",
    "PROGRESS_INTERVAL_S",
    "LeasePool",
]

LOSSES_MAX = 5
"""Workers lost with one datum alone in hand before it counts as lost."""
FAILURES_MAX = 100
"""`DatumFailed` events of one job."""
PROGRESS_INTERVAL_S = 0.2


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
        self._jobs: dict[str, PoolJob] = {}
        self._finished: set[str] = set()
        self._workers: dict[str, PoolWorker] = {}
        self._lost: dict[str, dict[int, Out]] = {}
        """Leases of workers that are gone, until they are settled."""
        self._events: list[PoolEvent] = []
        self._next_lease = 1
        self._totals: dict[str, Totals] = {}
        """Of jobs that have finished, by pipeline."""
        self._turn = 0
        self._slots = 0
        """Of the workers that can take leases."""

    # -- workers

    def add_worker(self, worker: str, slots: int, resources: Mapping[str, float] | None = None) -> None:
        """A worker is there, with `slots` places that run user code, and what it has beside them."""
        if worker in self._workers:
            return
        added = self._workers[worker] = PoolWorker(max(1, slots), dict(resources or {}))
        self._slots += added.slots
        self._workers_changed()
        for name, job in self._jobs.items():
            if job.stuck or self.worker_count() == 1:
                self._look_if_stuck(name, job)

    def remove_worker(self, worker: str) -> None:
        """A worker is gone: say which leases it held. They stay out until `settle`."""
        gone = self._workers.pop(worker, None)
        if gone is None:
            return
        for each in self._jobs.values():
            forget(each.queue, worker)
        self._lost[worker] = gone.out
        self._slots -= 0 if gone.draining else gone.slots
        held: dict[str, list[Lease]] = {}
        for out in gone.out.values():
            out.lost = True
            self._not_running(out)
            held.setdefault(out.lease.job, []).append(out.lease)
        for job, leases in held.items():
            self._events.append(WorkerLost(job=job, worker=worker, leases=tuple(leases)))
        if not held:
            del self._lost[worker]
        self._workers_changed()
        for name, job_left in self._jobs.items():
            self._look_if_stuck(name, job_left)

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
        return self._slots

    def worker_count(self) -> int:
        """Workers that are there."""
        return len(self._workers)

    # -- jobs

    def offer(self, offer: JobOffer) -> None:
        """Announce a job. Idempotent while it is open; a finished one begins anew."""
        if offer.job in self._jobs:
            return
        self._finished.discard(offer.job)
        job = self._jobs[offer.job] = PoolJob(offer, offer.fold, needs=needs_of(offer))
        self._look_if_stuck(offer.job, job)

    def add_block(self, job: str, block: str, count: int) -> None:
        """Queue the datums of a block. Idempotent; ignored for a job that was cancelled or has finished."""
        found = self._find(job)
        if found is None or found.cancelled or found.ended or count <= 0:
            return
        found.queue.add_block(block, count)

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
        return len(found.queue.fresh) if found is not None else 0

    def open_folds(self, job: str) -> tuple[int, ...]:
        """Folds of leases that are out."""
        found = self._jobs.get(job)
        return found.open_folds if found is not None else ()

    def status(self) -> list[JobStatus]:
        """Every open job."""
        return [status_of(name, job) for name, job in self._jobs.items()]

    def totals(self) -> dict[str, Totals]:
        """Datums so far by pipeline, those of open jobs included."""
        found = dict(self._totals)
        for job in self._jobs.values():
            found[job.offer.pipeline] = found.get(job.offer.pipeline, Totals()).plus(job)
        return found

    @property
    def leases_given(self) -> int:
        """Leases since the pool began."""
        return self._next_lease - 1

    # -- leases

    def report(self, request: LeaseRequest, now: float) -> None:
        """Take in what a worker says of its leases."""
        worker = self._workers.get(request.worker)
        if worker is None:
            return
        if request.draining and not worker.draining:
            worker.draining = True
            self._slots -= worker.slots
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

    def take(self, worker: str, slot: int, now: float, near: Collection[str] = ()) -> Lease | None:
        """Give `slot` of `worker` a lease, or None if there is nothing for it.

        Parameters
        ----------
        near
            Jobs whose large inputs the worker's host holds already.
        """
        taker = self._workers.get(worker)
        if taker is None or taker.draining:
            return None
        exclusive = holds_exclusive(self._jobs, taker)
        name = choose_job(self._jobs, taker, slot, near=near, slots=self._slots, exclusive=exclusive)
        return None if name is None else self._give(name, worker, taker, slot, now, exclusive=exclusive)

    def expect(self, worker: str, slot: int, lease: Lease) -> Span | None:
        """Say what `slot` will probably be given after `lease`, if its inputs are worth being fetched by then."""
        job = self._jobs.get(lease.job)
        if job is None or job.per_datum_s is None or job.per_datum_s < EXPECT_FROM_S or worker not in self._workers:
            return None
        return expect(job.queue, worker, slot, self._size(job))

    def wanted_files(self) -> dict[str, tuple[bytes, ...]]:
        """The large inputs of the open jobs, where there are several jobs to choose from."""
        if len(self._jobs) < 2:
            return {}
        return {name: job.offer.near for name, job in self._jobs.items() if job.offer.near}

    def recallable(self, idle: Collection[str]) -> Iterator[Out]:
        """Leases that workers are at, of jobs that a worker of `idle` (which has a free slot) could take datums of."""
        takers = [worker for name in idle if (worker := self._workers.get(name)) is not None and not worker.draining]
        for job in self._jobs.values():
            if not job.running or job.cancelled or job.queue.spans:
                continue
            if any(not short_of(job.needs, taker, -1, self._needs) for taker in takers):
                yield from (out for out in job.out.values() if out.running)

    def seconds_per_datum(self, job: str) -> float | None:
        """Moving average of a job; None before its first report."""
        found = self._jobs.get(job)
        return found.per_datum_s if found is not None else None

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
        cancelled = [name for name, job in self._jobs.items() if job.cancelled]
        if held is None or not cancelled:
            return ()
        names = {out.lease.job for out in held.out.values()}
        return tuple(sorted(names.intersection(cancelled)))

    def cancel_news(self, worker: str, slot: int) -> bool:
        """Whether `slot` of `worker` has not heard of one of `cancelled_for`; it counts as told now."""
        news = False
        for name in self.cancelled_for(worker):
            told = self._jobs[name].told
            if (worker, slot) not in told:
                told.add((worker, slot))
                news = True
        return news

    def slots_wanted(self, target_s: float) -> int:
        """Slots that would work off everything queued and leased in about `target_s` seconds, by what they took so far.

        A job whose datums were never timed counts as one slot per datum.
        """
        return slots_wanted(self._jobs.values(), target_s)

    def idle_workers(self) -> list[str]:
        """Workers that hold no lease: they may go without a loss."""
        return [name for name, worker in self._workers.items() if not worker.out]

    def holds(self, worker: str) -> int:
        """Leases that `worker` holds."""
        held = self._workers.get(worker)
        return len(held.out) if held is not None else 0

    # -- events

    @property
    def has_queued(self) -> bool:
        """Whether a slot might be given a lease."""
        return any(not job.queue.is_empty for job in self._jobs.values())

    @property
    def has_events(self) -> bool:
        """Whether `events` would return some."""
        return bool(self._events)

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

    def _find(self, job: str) -> PoolJob | None:
        found = self._jobs.get(job)
        if found is None and job not in self._finished:
            raise NotFoundError(f"job {job} was never offered to this lease pool", code=ErrorCode.NO_JOB)
        return found

    def _workers_changed(self) -> None:
        self._events.append(WorkersChanged(workers=len(self._workers), slots=self.slots()))

    def _emit_progress(self, name: str, job: PoolJob, now: float) -> None:
        running = sum(out.waiting for out in job.out.values() if not out.lost)
        job.changed = False
        job.reported_at = now
        self._events.append(
            Progressed(job=name, computed=job.computed, failed=job.failed, running=running, seconds=job.seconds)
        )

    def _finish_if_done(self, name: str) -> None:
        job = self._jobs.get(name)
        if job is None or not (job.ended or job.cancelled) or job.out or not job.queue.is_empty:
            return
        self._emit_progress(name, job, job.reported_at)
        self._events.append(JobFinished(job=name))
        self._totals[job.offer.pipeline] = self._totals.get(job.offer.pipeline, Totals()).plus(job)
        del self._jobs[name]
        self._finished.add(name)
        for worker in self._workers.values():
            if worker.reserved_for == name:
                worker.reserved_for = ""

    def _needs(self, job: str) -> Mapping[str, float]:
        return self._jobs[job].needs

    def _look_if_stuck(self, name: str, job: PoolJob) -> None:
        """Tell of a job that no worker can take, once; and when one can again."""
        if not self._workers:
            return
        # The first worker that could is found at once in all but the sad case.
        stuck = all(missing(job.needs, worker) for worker in self._workers.values())
        if stuck != job.stuck:
            lacking = describe_missing(job.needs, self._workers.values()) if stuck else ""
            self._events.append(JobStuck(job=name, missing=lacking))
        job.stuck = stuck

    def _not_running(self, out: Out) -> None:
        """Its slot is free for another lease: count it no longer. Idempotent."""
        if out.running:
            out.running = False
            self._jobs[out.lease.job].running -= 1

    def _size(self, job: PoolJob) -> int:
        return lease_size(job, self._slots)

    def _give(self, name: str, worker: str, taker: PoolWorker, slot: int, now: float, *, exclusive: bool) -> Lease:
        job = self._jobs[name]
        losses = 0
        if job.queue.spans:
            block, start, stop = job.queue.cut(pop(job.queue, worker, slot), self._size(job))
        else:
            block, start, losses = job.queue.take_suspect(exclusive=exclusive)
            stop = start + 1
        lease = Lease(
            id=self._next_lease, job=name, spec=job.offer.spec, block=block, start=start, stop=stop, fold=job.fold
        )
        self._next_lease += 1
        self._turn += 1
        job.turn = self._turn
        job.changed = True
        out = Out(lease, worker, slot, now, losses, bytearray(stop - start), stop - start, moved_at=now)
        job.running += 1
        job.out[lease.id] = taker.out[lease.id] = out
        return lease

    def _computed(self, worker: PoolWorker, request: LeaseRequest, computed: Computed, now: float) -> None:
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
            job.per_datum_s = smoothed(job.per_datum_s, sample)
            out.moved_at = now
        worker.last_report[out.slot] = now
        if out.computed:
            self._not_running(out)

    def _given_back(self, worker: str, given: GivenBack) -> set[str]:
        out = self._workers[worker].out.get(given.lease)
        if out is None:
            return set()
        rows = [index for index in range(given.start, given.stop) if out.close(index)]
        out.given += len(rows)
        out.recalled_at = -math.inf
        if out.computed:
            self._not_running(out)
        job = self._jobs[out.lease.job]
        job.changed = True
        if not job.cancelled:
            if out.exclusive:
                job.queue.suspect(out.lease.block, rows, out.losses)
            else:
                job.queue.put_back(out.lease.block, rows)
        self._close_if_empty(out)
        return {out.lease.job}

    def _stored(self, outs: dict[int, Out], stored: Stored) -> set[str]:
        fresh = 0
        for part in stored.leases:
            out = outs.get(part.lease)
            if out is None or out.lease.job != stored.job:
                continue
            rows = out.close_all(part.indexes)
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

    def _close_if_empty(self, out: Out) -> None:
        if out.left:
            return
        job = self._jobs[out.lease.job]
        # Stored before it was reported as computed: the totals must still add up.
        job.computed += max(0, out.size - out.given - out.done)
        job.changed = True
        self._forget(out)

    def _forget(self, out: Out) -> None:
        self._not_running(out)
        del self._jobs[out.lease.job].out[out.lease.id]
        worker = self._workers.get(out.worker)
        if worker is not None:
            del worker.out[out.lease.id]
        else:
            lost = self._lost[out.worker]
            del lost[out.lease.id]
            if not lost:
                del self._lost[out.worker]

    def _revoke(self, out: Out) -> None:
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
            job.queue.put_back(block, rows)
        elif out.size > 1:
            job.queue.suspect(block, rows, 0)
        else:
            for index in rows:
                self._lose(job, block, index, out.losses + 1)

    def _lose(self, job: PoolJob, block: str, index: int, losses: int) -> None:
        if losses < LOSSES_MAX:
            job.queue.suspect(block, [index], losses)
            return
        job.computed += 1
        job.failed += 1
        self._events.append(LostDatum(job=job.offer.job, block=block, index=index))
