"""The executor that drives a lease pool, wherever that is: in a Dask scheduler, or in this process.

One thread runs an event loop; the controller's thread calls in. Commands (`offer`, `add_block`, ...) are sent in order
and do not wait, also while the pool's process is still starting. A question (`backlog`, `open_folds`) waits for the
commands before it. Events stay with the pool until a later poll acknowledges them.

When the pool is gone, `poll` says `ExecutorFailed` and every other method does nothing: what is stored is stored, and
a new executor begins a new session. Beginning one ends the jobs of the session before *first*; so whoever resumes a
job makes the executor before it lists the job's segments.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, Self

from ...storage.backend import Backend
from ...storage.errors import DmlpipeError
from ...storage.version import __version__
from ...worker.job import decode_block
from ..errors import ClusterError
from ..peers.tracker import Traffic
from .control import (
    CONTROL_PROTOCOL,
    AddBlock,
    AdvanceFold,
    Bye,
    Cancel,
    ControlReply,
    ControlRequest,
    EndBlocks,
    Hello,
    Offer,
    Poll,
    Settle,
    Status,
    decode_reply,
    encode_request,
)
from .executor import DatumLost, Event, ExecutorFailed, JobOffer, JobStuck, WorkerRefused, WorkersChanged
from .pool_events import LostDatum, PoolEvent, WorkerLost
from .unreported import find_unreported

__all__ = ["Connection", "PoolExecutor"]

logger = logging.getLogger(__name__)

RPC_S = 30.0
"""A scheduler that does not answer for so long is given up."""
END_S = 3.0
"""How long `close` waits for workers to store what they computed."""


JOIN_S = 10.0
"""How long `close` waits for the event loop to end."""


class _GoneError(Exception):
    """The executor failed: nothing more is sent."""


class Connection(Protocol):
    """The way to a lease pool. Used from one event loop."""

    async def call(self, op: str, request: bytes, *, connect_s: float = 5.0) -> bytes:
        """Send one request and return the answer. Raises `OSError` when the pool is not there, or has gone."""
        ...

    def abort(self) -> None:
        """Drop what is under way."""
        ...


class PoolExecutor:
    """Computes datums on the workers of a lease pool. Subclasses say which (`open`), and what else begins and ends.

    Parameters
    ----------
    pool
        What errors call the pool: `scheduler tcp://127.0.0.1:8786`.
    read_block
        Returns the bytes of a block's node, for events that name a datum by its place.
    backend
        Of the store: is searched for what a lost worker stored and could not report. None: such datums are computed
        again.
    stop_workers
        Whether `close` also lets the workers end.
    grows
        Workers of other kinds may join later; else a job that none can take fails at once.
    connect_s
        How long the pool may take to be there.
    drain_s
        How long workers may take to store what they computed for an earlier controller.
    """

    def __init__(
        self,
        pool: str,
        read_block: Callable[[str], bytes],
        *,
        backend: Backend | None,
        stop_workers: bool,
        grows: bool,
        connect_s: float = 30.0,
        drain_s: float = 10.0,
    ) -> None:
        self.pool = pool
        self.session = secrets.token_hex(8)
        self._read_block = read_block
        self._backend = backend
        self._grows = grows
        self.stop_workers = stop_workers
        """Whether `close` also lets the workers end, which then need no signal."""
        self._connect_s = connect_s
        self._drain_s = drain_s
        self._failed: ExecutorFailed | None = None
        self._closed = False
        self._ack = 0
        self._found: WorkersChanged | None = None
        """Workers that were there before this session, whose coming is no event of it."""
        self._refused: set[str] = set()
        self._before = self._seen = Traffic()
        """What hosts took in all when this session began, and by the last answer."""
        self._pipelines: dict[str, str] = {}
        self._waiting_blocks: dict[str, int] = {}
        """Blocks added before the scheduler was there."""
        self._connected = concurrent.futures.Future[None]()
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._finish: asyncio.Event
        self._commands: asyncio.Queue[tuple[ControlRequest, concurrent.futures.Future[ControlReply] | None]]
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="dmlpipe-executor", daemon=True)

    def start(self) -> Self:
        """Begin the session; returns at once. Once, after everything of a subclass is made."""
        self._thread.start()
        self._started.wait()
        return self

    # -- of subclasses

    async def open(self) -> Connection:
        """Return the way to the pool. Once, on the event loop."""
        raise NotImplementedError

    async def shut(self) -> None:
        """End what `open` began. On the event loop, before it ends."""

    def failure(self) -> str:
        """Say why the pool or its workers cannot go on; "" while they can. Asked every second, from any thread."""
        return ""

    def closed(self) -> None:
        """End what belongs to this executor, its session and event loop having ended."""

    # -- Executor

    def offer(self, job: JobOffer) -> None:
        """Announce a job. Idempotent."""
        self._pipelines[job.job] = job.pipeline
        self._post(Offer(session=self.session, offer=job))

    def add_block(self, job: str, block: str, count: int) -> None:
        """Add the datums of the node `block` (hex) to the job's queue."""
        if not self._connected.done():
            self._waiting_blocks[job] = self._waiting_blocks.get(job, 0) + 1
        self._post(AddBlock(session=self.session, job=job, block=block, count=count))

    def end_blocks(self, job: str) -> None:
        """Say that no more blocks come."""
        self._post(EndBlocks(session=self.session, job=job))

    def backlog(self, job: str) -> int:
        """Blocks of the job that no slot has begun."""
        if not self._connected.done():
            return self._waiting_blocks.get(job, 0)
        reply = self._ask()
        return next((status.backlog for status in reply.jobs if status.job == job), 0)

    def advance_fold(self, job: str, fold: int) -> None:
        """Leases given from now on carry `fold`."""
        self._post(AdvanceFold(session=self.session, job=job, fold=fold))

    def open_folds(self, job: str) -> Sequence[int]:
        """Folds of leases that are still out."""
        reply = self._ask()
        return next((status.open_folds for status in reply.jobs if status.job == job), ())

    def cancel(self, job: str) -> None:
        """Drop what no slot has begun, end what runs; `JobFinished` follows."""
        self._post(Cancel(session=self.session, job=job))

    def poll(self, timeout_s: float) -> list[Event]:
        """Return what happened since the last call; wait up to `timeout_s` for something.

        Comes back early, with nothing, when a job's backlog runs low.
        """
        deadline = time.monotonic() + timeout_s
        while self._failed is None and not self._closed:
            began = time.monotonic()
            left = max(0.0, deadline - began)
            if not self._connected.done():
                concurrent.futures.wait([self._connected], timeout=left)
                if not self._connected.done():
                    return []
                continue
            if self._found is not None:
                found, self._found = self._found, None
                return [found]
            # Short steps, so that a cluster that fails silently is noticed.
            wait_s = min(left, 1.0)
            try:
                reply = self._await(
                    self._request(Poll(session=self.session, ack=self._ack, wait_s=wait_s)), wait_s + RPC_S
                )
            except _GoneError:
                break
            news = self._refusals(reply)
            if reply.events:
                self._ack = reply.events[-1].number
                events = [self._event(numbered.event) for numbered in reply.events]
                if told := [*news, *(event for event in events if event is not None)]:
                    return told
                continue
            if news:
                return [*news]
            if reply.refused and not reply.workers:
                self._fail(reply.refused[0], "install the same dmlpipe for the workers as here")
            elif problem := self.failure():
                self._fail(problem)
            elif time.monotonic() >= min(deadline, began + wait_s) and left > wait_s:
                continue
            else:
                return []
        return [self._failed] if self._failed is not None else []

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until this session has begun: the scheduler is there and no job of an earlier controller is open.

        Also True when the executor failed; `poll` then says so.
        """
        concurrent.futures.wait([self._connected], timeout=timeout_s)
        return self._connected.done()

    def slots(self) -> int:
        """Slots that can take leases now."""
        if not self._connected.done():
            return 0
        return self._ask().slots

    def traffic(self) -> Traffic:
        """Bytes of files from 1 MiB on that hosts took since this session began, by the last answer."""
        return Traffic(self._seen.from_store - self._before.from_store, self._seen.from_peers - self._before.from_peers)

    def close(self) -> None:
        """End the session (its jobs are cancelled), then what belongs to this executor. Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._failed is None and self._connected.done():
                reply = self._await(self._request(Bye(session=self.session, stop_workers=self.stop_workers)), 2.0)
                until = time.monotonic() + END_S
                # Its workers end what runs and store what they computed: worth a moment.
                while reply.jobs and time.monotonic() < until:
                    time.sleep(0.02)
                    reply = self._await(self._request(Status()), 2.0)
        except _GoneError:
            logger.debug("the scheduler was gone before its session ended")
        finally:
            self._loop.call_soon_threadsafe(self._finish.set)
            self._thread.join(JOIN_S)
            self.closed()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- inside, the caller's thread

    def _refusals(self, reply: ControlReply) -> list[WorkerRefused]:
        news = [text for text in reply.refused if text not in self._refused]
        self._refused.update(news)
        return [WorkerRefused(message=text) for text in news]

    def _event(self, event: PoolEvent) -> Event | None:
        if isinstance(event, JobStuck) and event.missing and not self._grows:
            # Waiting would be for ever.
            self._fail(
                f"{self._pipelines.get(event.job, event.job)} needs {event.missing}",
                "ask for less, or bring workers that have it: dmlpipe run --scheduler ADDRESS",
            )
            return None
        if isinstance(event, WorkerLost):
            stored = find_unreported(self._backend, self._read_block, event) if self._backend is not None else ()
            self._post(Settle(session=self.session, job=event.job, worker=event.worker, stored=stored))
            return None
        if isinstance(event, LostDatum):
            datum = decode_block(self._read_block(event.block))[event.index]
            return DatumLost(job=event.job, key=datum.key, fingerprint=datum.fingerprint)
        return event

    def _post(self, request: ControlRequest) -> None:
        if self._failed is None and not self._closed:
            self._loop.call_soon_threadsafe(self._commands.put_nowait, (request, None))

    def _ask(self) -> ControlReply:
        if self._failed is not None or self._closed:
            return ControlReply()
        answer = concurrent.futures.Future[ControlReply]()
        self._loop.call_soon_threadsafe(self._commands.put_nowait, (Status(), answer))
        try:
            return answer.result(self._connect_s + RPC_S)
        except (_GoneError, concurrent.futures.CancelledError):
            return ControlReply()
        except TimeoutError:
            self._fail(f"{self.pool} has not answered for {RPC_S:.0f} s")
            return ControlReply()

    def _await(self, work: Coroutine[Any, Any, ControlReply], timeout_s: float) -> ControlReply:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except concurrent.futures.CancelledError as err:
            raise _GoneError from err
        except TimeoutError as err:
            future.cancel()
            self._fail(f"{self.pool} has not answered for {timeout_s:.0f} s")
            raise _GoneError from err

    def _fail(self, message: str, hint: str = "") -> None:
        if self._failed is None:
            self._failed = ExecutorFailed(message=message, hint=hint)

    # -- inside, the loop's thread

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._commands = asyncio.Queue()
        self._finish = asyncio.Event()
        self._started.set()
        sender = asyncio.create_task(self._send_commands())
        await self._finish.wait()
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
        while not self._commands.empty():
            _, answer = self._commands.get_nowait()
            if answer is not None:
                answer.set_exception(_GoneError())
        if self._connection is not None:
            self._connection.abort()
        await self.shut()

    async def _send_commands(self) -> None:
        try:
            await self._connect()
        except (OSError, _GoneError) as err:
            self._fail(self.failure() or f"no {self.pool}: {err}")
        except DmlpipeError as err:
            self._fail(str(err), err.hint or "")
        self._connected.set_result(None)
        while True:
            request, answer = await self._commands.get()
            try:
                reply = await self._request(request)
            except _GoneError as err:
                if answer is not None:
                    answer.set_exception(err)
                continue
            if answer is not None and not answer.cancelled():
                answer.set_result(reply)

    async def _connect(self) -> None:
        self._connection = connection = await self.open()
        hello = Hello(session=self.session, protocol=CONTROL_PROTOCOL, version=__version__, drain_s=self._drain_s)
        deadline = time.monotonic() + self._connect_s
        while True:
            try:
                data = await connection.call("dml_control", encode_request(hello), connect_s=1.0)
                break
            except OSError:
                if time.monotonic() >= deadline or self.failure():
                    raise
                await asyncio.sleep(0.02)
        reply = decode_reply(data)
        if reply.error:
            raise ClusterError(f"{self.pool} refuses this controller: {reply.error}")
        self._before = self._seen = Traffic(reply.from_store, reply.from_peers)
        if reply.workers:
            self._found = WorkersChanged(workers=reply.workers, slots=reply.slots)

    async def _request(self, request: ControlRequest) -> ControlReply:
        if self._failed is not None or self._connection is None:
            raise _GoneError
        try:
            reply = decode_reply(await self._connection.call("dml_control", encode_request(request)))
        except OSError as err:
            self._fail(self.failure() or f"lost the {self.pool}: {err}")
            raise _GoneError from err
        if reply.error:
            self._fail(reply.error)
            raise _GoneError
        self._seen = Traffic(reply.from_store, reply.from_peers)
        return reply
