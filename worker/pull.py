"""The pull loop: takes leases for every slot, reports what became of them, stores results in time.

One asyncio task per slot asks for leases; the work itself is done in one thread per slot. One more task, the pulse,
reports progress while slots are busy, stores what has waited long enough, and hears of cancelled jobs.

A lease is answered for until a `Stored` report covers its datums: reports go out with whichever request is next.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import shutil
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ..storage.digest import from_hex
from ..storage.errors import DmlpipeError
from ..storage.objects.segment import Outcome, Row
from ..storage.version import __version__
from .child.failure import UserFrames, failure_of
from .child.zygote import Zygote
from .job import Datum, Lease, decode_block, decode_spec
from .messages import (
    MAX_FAILURES_REPORTED,
    PROTOCOL,
    Computed,
    Expected,
    FailedDatum,
    GivenBack,
    LeaseReply,
    LeaseRequest,
    LeaseSource,
    Stored,
)
from .segments import FlushLimits, SegmentWriter, worker_host
from .slots.ahead import Ahead
from .slots.devices import Devices
from .slots.job_work import JobTable, JobWork, WorkerStore
from .slots.lease_rows import LeaseReport
from .slots.slot_worker import SlotWorker
from .threads import DaemonThreads

logger = logging.getLogger(__name__)

PATIENCE_S = 300.0
"""How long a store may be away before a worker gives up."""
_BLOCKS_KEPT = 32


@dataclass(frozen=True, slots=True)
class PullSettings:
    """Knobs of a worker; the defaults are what production uses."""

    limits: FlushLimits = field(default_factory=FlushLimits)
    pulse_s: float = 0.25
    """How often progress is reported and flushes are looked at."""
    silent_s: float = 1.0
    """The pulse asks at least this often, to hear of cancelled jobs."""
    wait_s: float = 5.0
    """How long an idle slot lets the scheduler hold back its answer."""


class Outbox:
    """What the scheduler is to hear, gathered from all slots. Safe for use by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._computed: dict[int, list[float]] = defaultdict(lambda: [0, 0, 0.0])
        self._failures: list[FailedDatum] = []
        self._reported: dict[str, int] = defaultdict(int)
        self._stored: list[Stored] = []
        self._given_back: list[GivenBack] = []

    def ended(self, job: str, lease: int, rows: Sequence[tuple[int, Row]]) -> None:
        """Datums ended."""
        failed = [row for _, row in rows if row.outcome is Outcome.FAILED]
        with self._lock:
            counts = self._computed[lease]
            counts[0] += len(rows)
            counts[1] += len(failed)
            counts[2] += sum(row.seconds for _, row in rows)
            for row in failed:
                if row.failure is not None and self._reported[job] < MAX_FAILURES_REPORTED:
                    self._reported[job] += 1
                    self._failures.append(FailedDatum(job, row.key, row.failure))

    def stored(self, reports: Sequence[Stored]) -> None:
        """Segments are in the store."""
        with self._lock:
            self._stored.extend(reports)

    def give_back(self, lease: int, indexes: Sequence[int]) -> None:
        """Datums that this worker will not begin."""
        with self._lock:
            for start, stop in _ranges(indexes):
                self._given_back.append(GivenBack(lease, start, stop))

    def __bool__(self) -> bool:
        with self._lock:
            return bool(self._computed or self._failures or self._stored or self._given_back)

    def fill(self, **own: object) -> LeaseRequest:
        """A request that carries everything, which is then no longer here."""
        with self._lock:
            request = LeaseRequest(
                protocol=PROTOCOL,
                version=__version__,
                returned=tuple(
                    Computed(lease, int(done), int(failed), seconds)
                    for lease, (done, failed, seconds) in self._computed.items()
                ),
                failures=tuple(self._failures),
                stored=tuple(self._stored),
                giving_back=tuple(self._given_back),
                **own,  # type: ignore[arg-type]  # worker, slot, want, ... as LeaseRequest declares them
            )
            self._computed.clear()
            self._failures, self._stored, self._given_back = [], [], []
        return request


def _ranges(indexes: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending indexes as half-open ranges."""
    found: list[tuple[int, int]] = []
    for index in sorted(indexes):
        if found and found[-1][1] == index:
            found[-1] = (found[-1][0], index + 1)
        else:
            found.append((index, index + 1))
    return found


class _Report(LeaseReport):
    """Passes what a lease's run says on to the outbox."""

    def __init__(
        self, outbox: Outbox, lease: Lease, notices: Callable[[str], None], hurry: Callable[[], object]
    ) -> None:
        self._outbox = outbox
        self._lease = lease
        self._notices = notices
        self._hurry = hurry

    def ended(self, rows: Sequence[tuple[int, Row]]) -> None:
        self._outbox.ended(self._lease.job, self._lease.id, rows)

    def given_back(self, indexes: Sequence[int]) -> None:
        self._outbox.give_back(self._lease.id, indexes)
        self._hurry()

    def notice(self, text: str) -> None:
        self._notices(text)


class PullLoop:
    """A worker's life between joining a scheduler and leaving it.

    Parameters
    ----------
    store
        Where inputs come from and results go.
    source
        The scheduler.
    zygote
        Forks slot children; started before anything that has threads. The caller closes it.
    worker
        Unique among all workers that ever wrote to the store; see `new_worker_name`.
    slots
        Places that run user code.
    folder
        Private to this worker, on the file system of the store's cache so that inputs can be linked; made here.
    environ
        The worker's environment: what children get of it is decided in `environment`.
    devices
        Its GPUs.
    packages
        Versions that the scheduler compares with its own.
    """

    def __init__(
        self,
        store: WorkerStore,
        source: LeaseSource,
        zygote: Zygote,
        *,
        worker: str,
        slots: int,
        folder: Path,
        environ: Mapping[str, str] | None = None,
        devices: Devices | None = None,
        packages: Mapping[str, str] | None = None,
        settings: PullSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._source = source
        self._zygote = zygote
        self._worker = worker
        self._folder = folder
        self._environ = dict(os.environ if environ is None else environ)
        self._devices = devices or Devices()
        self._packages = dict(packages or {})
        self._settings = settings or PullSettings()
        self._clock = clock
        self._host = worker_host()
        self._seq = itertools.count()
        self._outbox = Outbox()
        self._jobs = JobTable(self._make_job)
        self._numbers = range(slots)
        self._slots: list[SlotWorker] = []
        self._running = [0] * slots
        self._leases: dict[int, int] = {}
        """The lease that each slot is at."""
        self._hurry = asyncio.Event()
        """Something is about to be said that others wait for."""
        self._ending = asyncio.Event()
        self._draining = False
        self._retiring = asyncio.Event()
        self._slot_ends = [asyncio.Event() for _ in self._numbers]
        self._error = ""
        self._noticed: set[str] = set()
        self._ahead: dict[int, Ahead] = {}
        """What is being fetched for the next lease of each slot."""
        self._loop: asyncio.AbstractEventLoop
        self._blocks = lru_cache(maxsize=_BLOCKS_KEPT)(self._read_block)

    async def run(self) -> str:
        """Work until the scheduler says stop, is gone, or `drain` was called.

        Returns
        -------
        str
            Why it ended, if that is an error; else empty.
        """
        self._folder.mkdir(parents=True)
        self._loop = asyncio.get_running_loop()
        pool = DaemonThreads(len(self._numbers) + 2, "dmlpipe-slot")
        try:
            self._slots = [
                SlotWorker(
                    self._store,
                    self._zygote,
                    number,
                    self._folder / f"slot-{number}",
                    devices=self._devices,
                    clock=self._clock,
                )
                for number in self._numbers
            ]
            pulse = asyncio.create_task(self._pulse(pool))
            self._source.on_recall(self.recall)
            loops = [asyncio.create_task(self._slot_loop(slot, pool)) for slot in self._slots]
            try:
                await asyncio.gather(*loops)
            finally:
                self._ending.set()
                self._hurry.set()
                await pulse
                for ahead in self._ahead.values():
                    ahead.abandon()
            await self._leave(pool)
        finally:
            pool.shutdown(wait=True)
            # A signal may still come: it finds no slot to wake.
            ended, self._slots = self._slots, []
            for slot in ended:
                slot.close()
            self._jobs.close()
            shutil.rmtree(self._folder, ignore_errors=True)
        return self._error

    def drain(self) -> None:
        """Finish the datums that run, give back the rest, store, report, end. From the loop's thread."""
        self._draining = True
        self._end("")

    async def retire(self) -> None:
        """Take no lease any more and give back what was not begun; all else goes on until what runs has ended.

        Unlike `drain`, which nobody is to wait for: progress is told, and a cancelled job is ended.
        """
        self._draining = True
        self._retiring.set()
        for slot in self._slots:
            slot.draining.set()
            slot.wake()
        # The pool answers the slots that wait for a lease when it knows.
        await self._exchange(slot=-1, running=sum(self._running))

    def has_ended(self, slot: int) -> bool:
        """Whether nothing runs in a slot, and nothing will."""
        return self._slot_ends[slot].is_set()

    async def slot_ended(self, slot: int) -> None:
        """Return when `has_ended` is true."""
        await self._slot_ends[slot].wait()

    def recall(self, lease: int) -> None:
        """Give back half of what was not begun of a lease. From the loop's thread."""
        for slot in self._slots:
            if self._leases.get(slot.number) == lease:
                slot.recall(lease)

    def _end(self, error: str) -> None:
        self._error = self._error or error
        self._ending.set()
        self._hurry.set()
        for slot in self._slots:
            slot.draining.set()
            slot.wake()

    # --- slots ---

    async def _slot_loop(self, slot: SlotWorker, pool: DaemonThreads) -> None:
        try:
            while not (self._ending.is_set() or self._retiring.is_set()):
                reply = await self._exchange(slot=slot.number, want=1, wait_s=self._settings.wait_s)
                if reply is None:
                    return
                if reply.flush:
                    await self._flush(pool, all_=True)
                if reply.lease is not None:
                    await self._work(slot, reply.lease, reply.expected, pool)
        finally:
            self._slot_ends[slot.number].set()

    async def _work(self, slot: SlotWorker, lease: Lease, expected: Expected | None, pool: DaemonThreads) -> None:
        self._running[slot.number] = lease.stop - lease.start
        self._leases[slot.number] = lease.id
        try:
            await asyncio.get_running_loop().run_in_executor(pool, self._run_lease, slot, lease, expected)
        except DmlpipeError as err:
            logger.error("slot %d cannot go on: %s", slot.number, err)
            self._end(str(err))
        finally:
            self._running[slot.number] = 0
            self._leases.pop(slot.number, None)

    def _fetch_ahead(self, slot: SlotWorker, expected: Expected | None) -> None:
        """Begin to fetch the inputs of what the slot will be at next. In the slot's thread."""
        before = self._ahead.pop(slot.number, None)
        if before is not None:
            before.abandon()
        if expected is None:
            return
        try:
            datums = self._blocks(expected.block)[expected.start : expected.stop]
        except DmlpipeError as err:
            logger.debug("a block could not be read ahead: %s", err)
            return
        self._ahead[slot.number] = Ahead(self._store, datums, first=0)

    def _run_lease(self, slot: SlotWorker, lease: Lease, expected: Expected | None) -> None:
        """In the slot's thread."""
        self._fetch_ahead(slot, expected)
        datums = self._blocks(lease.block)[lease.start : lease.stop]
        report = _Report(self._outbox, lease, self._notice, self._speak_soon)
        try:
            job = self._jobs.enter(lease.job, lease.spec)
        except DmlpipeError as err:
            self._fail_lease(lease, datums, err)
            return
        try:
            slot.run(job, datums, start=lease.start, fold=lease.fold, lease=lease.id, report=report)
            if job.results.due():
                self._outbox.stored(job.results.flush())
        finally:
            self._jobs.leave(lease.job)
        self._jobs.trim()

    def _fail_lease(self, lease: Lease, datums: Sequence[Datum], err: DmlpipeError) -> None:
        """The job cannot be laid out here (a secret, an input, the code is missing): its datums fail with that."""
        failure = failure_of(err, UserFrames())
        writer = self._segment_writer(lease.job)
        rows = [
            (index, Row(datum.key, datum.fingerprint, Outcome.FAILED, [], 1, 0.0, b"", failure))
            for index, datum in enumerate(datums, lease.start)
        ]
        writer.add(lease.fold, lease.id, rows)
        self._outbox.ended(lease.job, lease.id, rows)
        self._outbox.stored(writer.flush())
        writer.close()

    def _speak_soon(self) -> None:
        """Others wait for what is in the outbox. From any thread."""
        self._loop.call_soon_threadsafe(self._hurry.set)

    def _notice(self, text: str) -> None:
        if text not in self._noticed:
            self._noticed.add(text)
            logger.warning("%s", text)

    # --- what the store holds ---

    def _read_block(self, block: str) -> list[Datum]:
        return decode_block(self._store.nodes.get(from_hex(block)))

    def _make_job(self, spec: str) -> JobWork:
        # What this worker finds in the store counts as there only as of the job's beginning (`objects/condemned.py`).
        self._store.refresh()
        decoded = decode_spec(self._store.nodes.get(from_hex(spec)))
        folder = self._folder / "jobs" / f"{decoded.job}-{uuid.uuid4().hex[:8]}"
        writer = self._segment_writer(decoded.job)
        try:
            return JobWork(self._store, decoded, folder=folder, results=writer, environ=self._environ)
        except DmlpipeError:
            writer.close()
            raise

    def _segment_writer(self, job: str) -> SegmentWriter:
        return SegmentWriter(
            self._store,
            job,
            worker=self._worker,
            host=self._host,
            next_seq=self._seq.__next__,
            limits=self._settings.limits,
            clock=self._clock,
        )

    # --- reports ---

    async def _exchange(self, **own: object) -> LeaseReply | None:
        """Report and ask; None if this worker is to end."""
        request = self._outbox.fill(
            worker=self._worker, packages=self._packages, draining=self._retiring.is_set(), **own
        )
        try:
            reply = await self._source.lease(request)
        except OSError as err:
            self._end(f"the scheduler is gone: {err}" if not self._ending.is_set() else "")
            return None
        # It knows them now.
        self._packages = {}
        if self._jobs.cancel(reply.cancelled):
            for slot in self._slots:
                slot.wake()
        if reply.error:
            self._end(f"the scheduler refuses this worker: {reply.error}")
        if reply.stop:
            self._end("")
        if self._ending.is_set() and reply.lease is not None:
            self._outbox.give_back(reply.lease.id, range(reply.lease.start, reply.lease.stop))
            return None
        return None if self._ending.is_set() else reply

    async def _pulse(self, pool: DaemonThreads) -> None:
        """Report and flush while slots are busy."""
        asked_at = self._clock()
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), self._settings.pulse_s)
            self._hurry.clear()
            if self._ending.is_set():
                return
            await self._flush(pool, all_=False)
            if self._outbox or self._clock() - asked_at >= self._settings.silent_s:
                asked_at = self._clock()
                reply = await self._exchange(slot=-1, running=sum(self._running))
                if reply is not None and reply.flush:
                    await self._flush(pool, all_=True)

    async def _flush(self, pool: DaemonThreads, *, all_: bool) -> None:
        """Store what waits (all of it, or what is due); an error ends the worker: its leases go elsewhere."""
        for job in self._jobs.all():
            if job.results.waiting and (all_ or job.cancelled.is_set() or job.results.due()):
                try:
                    stored = await asyncio.get_running_loop().run_in_executor(pool, job.results.flush)
                except DmlpipeError as err:
                    logger.error("results of job %s cannot be stored: %s", job.spec.job, err)
                    self._end(str(err))
                    return
                self._outbox.stored(stored)

    async def _leave(self, pool: DaemonThreads) -> None:
        """Store everything and say so, if anybody still listens."""
        await self._flush(pool, all_=True)
        if not self._outbox and not self._draining:
            return
        request = self._outbox.fill(worker=self._worker, slot=-1, draining=True)
        try:
            async with asyncio.timeout(5):
                await self._source.lease(request)
        except (OSError, TimeoutError) as err:
            # The segments are in the store: whoever resumes the job finds them there.
            logger.info("the scheduler did not hear the last report: %s", err)


def new_worker_name() -> str:
    """A name that no worker ever had: host, pid, and 8 random hex digits."""
    host = "".join(c if c.isascii() and c.isalnum() else "-" for c in worker_host())[:32] or "host"
    return f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
