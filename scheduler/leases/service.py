"""The lease pool as a service: two RPCs and two hooks around the pure `LeasePool`.

It is served by a Dask scheduler (`dask_plugin`), or by the process of a `run` itself (`cluster.private`). All state is
soft: when the process that holds it dies, the controller offers again what is not stored.

Everything runs on one event loop; between two awaits the pool is consistent. A worker is known from `add_worker` to
`remove_worker`, so a lease is never given to one whose connection has closed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ...storage.errors import DmlpipeError
from ...storage.version import __version__
from ...worker import messages
from ...worker.messages import Expected, LeaseReply, LeaseRequest
from ..peers.service import PeerService
from . import control
from .control import (
    AddBlock,
    AdvanceFold,
    Bye,
    Cancel,
    ControlReply,
    ControlRequest,
    EndBlocks,
    Hello,
    NumberedEvent,
    Offer,
    Poll,
    Settle,
    Status,
)
from .executor import Progressed
from .pool import LeasePool
from .recall import RECALL_EVERY_S, choose_recalls

__all__ = ["LeaseService"]

logger = logging.getLogger(__name__)

WAIT_MAX_S = 10.0
"""Longest long poll."""
REGISTRATION_S = 10.0
"""How long an unknown worker may take to be added: its first request may overtake that."""
BACKLOG_LOW = 8
"""A poll is answered early when the backlog of an unended job falls below this."""


@cache
def _installed(package: str) -> str:
    """Version of a package. Asking reads and parses a file: five times the cost of a lease."""
    # Imported by whoever has workers elsewhere: 15 ms that a run which computes a few datums here need not wait for.
    from importlib.metadata import version

    return version(package)


class LeaseService:
    """Serves leases to workers and the pool's events to one controller.

    Parameters
    ----------
    clock
        Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.pool = LeasePool()
        self.sharing = PeerService(clock=clock)
        self._clock = clock
        self._gone: set[str] = set()
        self._refused: dict[str, str] = {}
        self._session = ""
        self._beginning = False
        """A session waits for the jobs of the one before to end."""
        self._stopping = False
        self._outbox: list[NumberedEvent] = []
        self._next_event = 1
        self._progress_timed = False
        """A poll knows when the next totals are due."""
        self._low: set[str] = set()
        """Jobs whose low backlog the controller was told of."""
        self._news = asyncio.Event()
        """Set, and replaced, when the controller may have something to hear."""
        self._work = asyncio.Event()
        """The same, when any waiting slot may have something to do."""
        self._own: dict[str, asyncio.Event] = {}
        """The same, of the slots that wait for a lease, by worker."""
        self._idle = Counter[str]()
        """Slots that wait for a lease now, by worker."""
        self._looking: asyncio.TimerHandle | None = None
        """The next look for leases to recall."""
        self.tell_worker: Callable[[str, dict[str, Any]], None] = _nobody

    # -- hooks

    def add_worker(self, name: str, slots: int, resources: Mapping[str, float] | None = None) -> None:
        """There is a new worker."""
        self._gone.discard(name)
        self.pool.add_worker(name, slots, resources)
        self._wake()

    def remove_worker(self, name: str) -> None:
        """A worker is gone."""
        self._gone.add(name)
        self.sharing.remove_worker(name)
        self.pool.remove_worker(name)
        if not self._session or self._beginning:
            # Nobody is there to look at what it had stored.
            self.pool.settle_all()
        self._wake()

    def stop(self) -> None:
        """End the session, as `Bye` does, and let the workers store what they computed and end."""
        self._end_session()
        self._stopping = True
        self._wake()

    def slots_wanted(self, target_s: float) -> int:
        """Slots that the backlog is worth."""
        return self.pool.slots_wanted(target_s)

    def idle_workers(self) -> list[str]:
        """Names of workers that hold no lease."""
        return self.pool.idle_workers()

    # -- RPCs

    async def lease(self, data: bytes) -> bytes:
        """Answer `dml_lease`."""
        return messages.encode_reply(await self.exchange(messages.decode_request(data)))

    async def peers(self, data: bytes) -> bytes:
        """Answer `dml_peers`."""
        return await self.sharing.peers(data)

    async def control(self, data: bytes) -> bytes:
        """Answer `dml_control`."""
        try:
            reply = await self._control(control.decode_request(data))
        except DmlpipeError as err:
            reply = ControlReply(error=str(err))
        return control.encode_reply(reply)

    # -- inside

    def _wake(self, *, slots: bool = True, controller: bool = True) -> None:
        if controller:
            self._news.set()
            self._news = asyncio.Event()
        if slots:
            self._work.set()
            self._work = asyncio.Event()
            for event in self._own.values():
                event.set()
            self._own.clear()

    def _wake_worker(self, name: str) -> None:
        event = self._own.pop(name, None)
        if event is not None:
            event.set()

    async def _wait(self, event: asyncio.Event, deadline: float) -> bool:
        """Wait for a change; False when the deadline came first."""
        left = deadline - self._clock()
        if left <= 0:
            return False
        try:
            async with asyncio.timeout(left):
                await event.wait()
        except TimeoutError:
            return False
        return True

    def _refuse(self, request: LeaseRequest) -> str:
        """Why a worker of other versions gets nothing; empty if it fits."""
        own = __version__
        if request.protocol != messages.PROTOCOL:
            return (
                f"worker {request.worker} speaks lease protocol {request.protocol} (dmlpipe {request.version}), "
                f"this scheduler {messages.PROTOCOL} (dmlpipe {own})"
            )
        versions = {"dmlpipe": request.version} | request.packages
        wrong = [
            f"{name} {theirs} (here {ours})"
            for name, theirs in versions.items()
            if (ours := own if name == "dmlpipe" else _installed(name)) != theirs
        ]
        return f"worker {request.worker} has {', '.join(wrong)}" if wrong else ""

    async def exchange(self, request: LeaseRequest) -> LeaseReply:
        """Take in what a worker reports, and answer when there is something to say or its time is over."""
        name = request.worker
        unfit = self._refuse(request)
        if unfit:
            if name not in self._refused:
                logger.error("%s", unfit)
                self._refused[name] = unfit
                self._wake(slots=False)
            return LeaseReply(error=unfit, stop=True)
        now = self._clock()
        registered_by = now + REGISTRATION_S
        while not self.pool.has_worker(name):
            if name in self._gone or not await self._wait(self._work, registered_by):
                return LeaseReply(stop=True)
        self.pool.report(request, self._clock())
        # A worker's reports overtake each other: what this one completes, another of its slots may be waiting to store,
        # or have room for. Slots of others have nothing from it unless datums are queued: at the end of a job most
        # wait, and each that is woken costs a look at the pool. The controller, if it waits for the time to hear new
        # totals, is left alone until there is more than totals.
        if request.returned or request.stored or request.giving_back or request.failures or request.draining:
            self._wake(slots=self.pool.has_queued, controller=self.pool.has_events or not self._progress_timed)
            self._wake_worker(name)
        deadline = now + min(request.wait_s, WAIT_MAX_S)
        while True:
            if self._stopping or not self.pool.has_worker(name):
                return LeaseReply(stop=True, cancelled=self.pool.cancelled_for(name))
            lease = None
            if request.want and not request.draining:
                lease = self.pool.take(name, request.slot, self._clock(), self._near(name))
            flush = lease is None and request.want > 0 and self.pool.flush_wanted(name)
            news = self.pool.cancel_news(name, request.slot)
            if lease is not None:
                self._wake_controller(lease.job)
            draining = self.pool.draining(name)
            if lease is not None or flush or news or draining or not await self._wait_idle(request, deadline):
                expected = self.pool.expect(name, request.slot, lease) if lease is not None else None
                return LeaseReply(
                    lease=lease,
                    flush=flush,
                    cancelled=self.pool.cancelled_for(name),
                    expected=Expected(*expected) if expected is not None else None,
                )

    async def _wait_idle(self, request: LeaseRequest, deadline: float) -> bool:
        """Wait for a change, on behalf of a slot that has nothing to do if it wants a lease."""
        if not request.want:
            return await self._wait(self._work, deadline)
        self._idle[request.worker] += 1
        self._look_again()
        try:
            return await self._wait(self._own.setdefault(request.worker, asyncio.Event()), deadline)
        finally:
            self._idle[request.worker] -= 1
            if not self._idle[request.worker]:
                del self._idle[request.worker]

    def _look_again(self) -> None:
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(RECALL_EVERY_S, self._recall)

    def _recall(self) -> None:
        """Ask stragglers for what they have not begun, as long as slots wait and leases are out."""
        self._looking = None
        if not self._idle:
            return
        chosen = choose_recalls(
            self.pool.recallable(self._idle),
            self.pool.seconds_per_datum,
            idle=self._idle.total(),
            now=self._clock(),
        )
        for out in chosen:
            self.tell_worker(out.worker, {"op": "dml-recall", "lease": out.lease.id})
        if self.pool.jobs():
            self._look_again()

    def _near(self, worker: str) -> list[str]:
        """Open jobs whose large inputs the worker's host holds."""
        holds = self.sharing.tracker.holds
        return [job for job, files in self.pool.wanted_files().items() if all(holds(worker, file) for file in files)]

    def _wake_controller(self, job: str) -> None:
        if job not in self._low and self.pool.backlog(job) < BACKLOG_LOW:
            self._low.add(job)
            self._wake(slots=False)

    async def _control(self, request: ControlRequest) -> ControlReply:
        match request:
            case Status():
                return self._status()
            case Hello():
                return await self._hello(request)
        if request.session != self._session:
            return ControlReply(superseded=True, error="another controller drives this scheduler now")
        match request:
            case Poll():
                return await self._poll(request)
            case Offer(offer=offer):
                self.pool.offer(offer)
            case AddBlock(job=job, block=block, count=count):
                self.pool.add_block(job, block, count)
                if self.pool.backlog(job) >= BACKLOG_LOW:
                    self._low.discard(job)
            case EndBlocks(job=job):
                self.pool.end_blocks(job)
                self._low.add(job)
            case AdvanceFold(job=job, fold=fold):
                self.pool.advance_fold(job, fold)
            case Cancel(job=job):
                self.pool.cancel(job)
            case Settle(job=job, worker=worker, stored=stored):
                self.pool.settle(job, worker, stored)
            case Bye(stop_workers=stop_workers):
                self._end_session()
                self._stopping = stop_workers
        self._wake()
        return self._status()

    def _end_session(self) -> None:
        for job in self.pool.jobs():
            self.pool.cancel(job)
        self.pool.settle_all()
        self._session = ""

    async def _hello(self, request: Hello) -> ControlReply:
        if request.protocol != control.CONTROL_PROTOCOL:
            return ControlReply(
                error=f"the controller speaks protocol {request.protocol} (dmlpipe {request.version}), "
                f"the scheduler {control.CONTROL_PROTOCOL} (dmlpipe {__version__})"
            )
        if request.session == self._session:
            return self._status()
        self._end_session()
        self._session = request.session
        self._stopping = False
        self._beginning = True
        self._wake()
        deadline = self._clock() + request.drain_s
        while self.pool.jobs() and self._session == request.session:
            if not await self._wait(self._news, deadline):
                break
        if self._session != request.session:
            return ControlReply(superseded=True, error="another controller drives this scheduler now")
        for job in self.pool.jobs():
            logger.warning("workers did not give back job %s of an earlier controller in time", job)
            self.pool.revoke(job)
        self._beginning = False
        self.pool.events()
        self._outbox.clear()
        self._low.clear()
        return self._status()

    async def _poll(self, request: Poll) -> ControlReply:
        self._outbox = [event for event in self._outbox if event.number > request.ack]
        deadline = self._clock() + min(request.wait_s, WAIT_MAX_S)
        low = len(self._low)
        while True:
            again = self.pool.progress(self._clock())
            self._collect()
            if self._outbox or len(self._low) > low:
                return self._status(events=tuple(self._outbox))
            until = deadline if again is None else min(deadline, again)
            self._progress_timed = again is not None
            try:
                woken = await self._wait(self._news, until)
            finally:
                self._progress_timed = False
            if not woken and self._clock() >= deadline:
                return self._status()
            if self._session != request.session:
                return ControlReply(superseded=True, error="another controller drives this scheduler now")

    def _collect(self) -> None:
        for event in self.pool.events():
            if isinstance(event, Progressed):
                # Only the newest totals of a job matter: a slow controller finds one, not hundreds.
                self._outbox = [
                    old
                    for old in self._outbox
                    if not (isinstance(old.event, Progressed) and old.event.job == event.job)
                ]
            self._outbox.append(NumberedEvent(self._next_event, event))
            self._next_event += 1

    def _status(self, *, events: tuple[NumberedEvent, ...] = ()) -> ControlReply:
        status = self.pool.status()
        return ControlReply(
            events=events,
            jobs=tuple(status),
            workers=self.pool.worker_count(),
            slots=self.pool.slots(),
            driven=bool(self._session),
            refused=tuple(self._refused.values()),
            from_store=self.sharing.traffic.from_store,
            from_peers=self.sharing.traffic.from_peers,
        )


def _nobody(name: str, message: dict[str, Any]) -> None:
    """Stands for the way to workers until whoever serves gives one."""
