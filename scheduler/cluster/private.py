"""Slots of one run's own: the lease pool and, while jobs are small, the worker live in the process that runs.

User code runs in child processes of the slots, here as anywhere. What a process of its own is for is the worker's part
in each datum: with many datums it would share one interpreter lock with planning and folding. So the first job of more
than `HERE_MAX_DATUMS` datums starts a worker process at the other end of a socket pair, and the slots here retire: a
slot there is let in when its namesake here has ended. The pool stays, and with it every job and lease.

No port is opened, and nothing of Dask is imported. Everything ends with this process, however that ends: children by
their zygote, whose socket closes; the worker process by the kernel (`tether`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from ...storage.backend import Backend
from ...storage.errors import DmlpipeError, InvalidInputError
from ...storage.logs import to_file
from ...storage.store import Store
from ...worker.child.environment import clean_environment
from ...worker.child.zygote import Zygote
from ...worker.folders import release, worker_folder
from ...worker.messages import LeaseReply, LeaseRequest
from ...worker.pipe import FramePipe, Join, LonePeers, open_pipe
from ...worker.pull import PATIENCE_S, PullLoop, new_worker_name
from ...worker.serving import find_equipment, serve_slots
from ...worker.threads import DaemonThreads
from ..leases.executor import JobOffer
from ..leases.pool_executor import Connection, PoolExecutor
from ..leases.service import LeaseService
from .head_start import worker_log
from .local import WORKER_GRACE_S, child_environment, is_shared, shared_url
from .supervise import PAUSE_FIRST_S, QUICK_S, kill_session, log_tail

__all__ = ["HERE_MAX_DATUMS", "PrivateExecutor"]

logger = logging.getLogger(__name__)

HERE_MAX_DATUMS = 10_000
"""Of a job; more are worth the start of a process: with 10,000 no-op datums that uses as much CPU as it takes off this
one, with 40,000 it takes off twice as much."""
QUICK_ENDS_MAX = 3
LOOK_S = 0.01
SWITCH_S = 0.0005
"""Slots' threads make a system call every few microseconds: none may wait five milliseconds for its turn after it."""
PLAIN = JobOffer(job="", spec="", pipeline="")


class PrivateExecutor(PoolExecutor):
    """Computes datums in slots that belong to this executor alone; closing it ends them.

    Parameters
    ----------
    store_url
        The store. One that only this process sees (``memory://``) is served here, whatever the jobs' size.
    slots
        Datums computed at a time (> 0).
    read_block, backend
        As of `PoolExecutor`.
    folder
        For the worker's log; made if missing.
    cache_dir
        The worker's cache folder; None: the default one.
    here_max
        Datums of a job beyond which a worker process is started; None: `HERE_MAX_DATUMS`.
    zygote
        One that was started ahead, which is this executor's from now on; None: it starts one when it needs it.

    Raises
    ------
    InvalidInputError
        `slots` is not positive.
    """

    def __init__(
        self,
        store_url: str,
        slots: int,
        read_block: Callable[[str], bytes],
        *,
        folder: Path,
        cache_dir: Path | None = None,
        backend: Backend | None = None,
        here_max: int | None = None,
        zygote: Zygote | None = None,
    ) -> None:
        if slots < 1:
            raise InvalidInputError(f"a run needs at least one slot, got {slots}")
        super().__init__("lease pool of this run", read_block, backend=backend, stop_workers=True, grows=False)
        self.log = worker_log(folder)
        self._zygote = zygote
        """Started ahead, and not used yet."""
        self._url = store_url
        self._slot_count = slots
        self._cache_dir = cache_dir
        wanted = HERE_MAX_DATUMS if here_max is None else here_max
        self._here_max = wanted if is_shared(store_url) else sys.maxsize
        self._datums = Counter[str]()
        self._asked_here = self._asked_apart = False
        self._whole = False
        """Some job needs more than a slot: what is held here must be free before it is used elsewhere."""
        self._service: LeaseService
        self._keeping: set[asyncio.Task[None]] = set()
        self._here: PullLoop | None = None
        self._here_store: Store | None = None
        self._joined = False
        """The worker process was there once."""
        self._pipe: FramePipe | None = None
        self._pipe_worker = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = False
        self._problem = ""
        self.start()

    # -- the caller's thread

    def offer(self, job: JobOffer) -> None:
        """See `Executor.offer`."""
        needs = (job.cpus, job.gpus, job.memory_bytes, job.resources)
        if needs != (PLAIN.cpus, PLAIN.gpus, PLAIN.memory_bytes, PLAIN.resources):
            self._whole = True
        super().offer(job)

    def add_block(self, job: str, block: str, count: int) -> None:
        """See `Executor.add_block`."""
        self._datums[job] += count
        if self._datums[job] > self._here_max:
            if not self._asked_apart:
                self._asked_apart = True
                self._loop.call_soon_threadsafe(self._begin, self._serve_apart)
        elif not (self._asked_here or self._asked_apart):
            self._asked_here = True
            self._loop.call_soon_threadsafe(self._begin, self._serve_here)
        super().add_block(job, block, count)

    def failure(self) -> str:
        """See `PoolExecutor.failure`."""
        return self._problem

    @property
    def worker_pid(self) -> int | None:
        """Process of the worker; None while its slots are threads of this process."""
        process = self._process
        return process.pid if process is not None else None

    # -- the event loop

    async def open(self) -> Connection:
        """See `PoolExecutor.open`."""
        self._service = LeaseService()
        self._service.tell_worker = self._tell
        return _Direct(self._service)

    async def shut(self) -> None:
        """See `PoolExecutor.shut`."""
        self._closing = True
        self._service.stop()
        if self._here_store is not None:
            # Somebody waits for us to end: a store that is away is not waited for.
            self._here_store.backend.be_patient(0.0)
        if self._keeping:
            await asyncio.wait(self._keeping, timeout=WORKER_GRACE_S)
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        if self._zygote is not None:
            # No slot of this process was needed.
            await asyncio.get_running_loop().run_in_executor(DaemonThreads(1), self._zygote.close)

    def _begin(self, serve: Callable[[], Awaitable[str]]) -> None:
        self._keeping.add(asyncio.create_task(self._keep(serve)))

    async def _keep(self, serve: Callable[[], Awaitable[str]]) -> None:
        """Have a worker serve; begin anew when it fails, but not for ever."""
        quick = 0
        while not self._problem:
            began = time.monotonic()
            try:
                why = await serve()
            except InvalidInputError as err:
                self._problem = str(err)
                return
            except (DmlpipeError, OSError) as err:
                why = str(err)
            except Exception as err:
                # Else the run would wait for ever for a worker that is gone.
                self._problem = f"the worker of this run has failed: {type(err).__name__}: {err}"
                logger.debug("the worker of this run has failed", exc_info=True)
                return
            if self._closing or not why:
                return
            logger.info("the worker of this run has failed: %s", why)
            quick = quick + 1 if time.monotonic() - began < QUICK_S else 0
            if quick >= QUICK_ENDS_MAX:
                self._problem = f"the worker of this run has failed: {why}\n{log_tail(self.log, 5)}".rstrip()
            # The first quick end of one that had lived long before is the common case: a kill. Be back at once.
            await asyncio.sleep(PAUSE_FIRST_S * 2 ** (quick - 1) if quick else 0)

    # -- slots that are threads of this process

    async def _serve_here(self) -> str:
        if self._joined:
            return ""
        name = new_worker_name()
        threads = DaemonThreads(1)
        run = asyncio.get_running_loop().run_in_executor
        equipment = find_equipment(os.environ)
        with to_file(self.log, "worker", "dmlpipe.worker") as log:
            ahead, self._zygote = self._zygote, None
            zygote = ahead or Zygote(clean_environment(os.environ), log=log)
            try:
                # While the zygote starts.
                store = await run(threads, self._open)
                self._here_store = store
                folder = worker_folder(store.cache_dir, name)
                self._service.add_worker(name, self._slot_count, equipment.resources)
                try:
                    with _switching():
                        return await serve_slots(
                            store,
                            _DirectLink(self._service),
                            zygote,
                            name=name,
                            slots=self._slot_count,
                            folder=folder,
                            devices=equipment.devices,
                            begun=self._here_begun,
                        )
                finally:
                    self._here = None
                    self._service.remove_worker(name)
                    release(folder)
            finally:
                await run(threads, zygote.close)
                threads.shutdown(wait=False)

    def _tell(self, name: str, message: dict[str, Any]) -> None:
        lease: int = message["lease"]
        if self._pipe is not None and name == self._pipe_worker:
            self._pipe.write(0, "recall", lease.to_bytes(8, "big"))
        elif self._here is not None:
            self._here.recall(lease)

    def _open(self) -> Store:
        return Store.open(self._url, cache_dir=self._cache_dir, patience_s=PATIENCE_S)

    def _here_begun(self, loop: PullLoop) -> None:
        self._here = loop
        if self._joined:
            # A worker process was there while the store was opened.
            self._keeping.add(asyncio.create_task(_retire(loop)))

    # -- slots of a process

    async def _serve_apart(self) -> str:
        ours, theirs = socket.socketpair()
        argv = [sys.executable, "-P", "-m", "dmlpipe.scheduler.cluster.tether", str(os.getpid()), "dmlpipe.worker"]
        argv += [f"fd:{theirs.fileno()}", "--store", shared_url(self._url), "--slots", str(self._slot_count)]
        with theirs, self.log.open("ab") as log:
            # From this thread, which lives as long as the executor: the process is tethered to it.
            process = self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=child_environment(self._cache_dir),
                pass_fds=(theirs.fileno(),),
                # Out of the terminal's group: Ctrl-C is for the controller, who stops it in order.
                start_new_session=True,
            )
        try:
            pipe = await open_pipe(ours)
            try:
                await self._answer(pipe)
            finally:
                await pipe.close()
        finally:
            code = await self._end(process)
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return f"its process (pid {process.pid}) ended {how}; its log is {self.log}"

    async def _answer(self, pipe: FramePipe) -> None:
        """Serve the worker at the other end until that is closed."""
        name = ""
        answering: set[asyncio.Task[None]] = set()
        try:
            while (frame := await pipe.read()) is not None:
                number, what, body = frame
                if what == "join":
                    join = msgspec.msgpack.decode(body, type=Join)
                    name = join.name
                    await self._take_over(pipe, join)
                    continue
                serve = self._lease if what == "lease" else self._service.peers
                task = asyncio.create_task(self._reply(pipe, number, what, serve(body)))
                answering.add(task)
                task.add_done_callback(answering.discard)
        finally:
            for task in answering:
                task.cancel()
            await asyncio.gather(*answering, return_exceptions=True)
            self._pipe = None
            self._service.remove_worker(name)

    async def _take_over(self, pipe: FramePipe, join: Join) -> None:
        """A worker process is there: the slots here retire."""
        first, self._joined = not self._joined, True
        if first and self._here is not None:
            await self._here.retire()
        self._pipe, self._pipe_worker = pipe, join.name
        self._service.add_worker(join.name, join.slots, join.resources)

    async def _reply(self, pipe: FramePipe, number: int, what: str, answer: Awaitable[bytes]) -> None:
        try:
            pipe.write(number, what, await answer)
        except Exception as err:  # noqa: BLE001 - else the worker would wait for ever; so it is lost, and another comes
            logger.warning("a worker's request (%s) was not answered: %s: %s", what, type(err).__name__, err)
            pipe.abort()

    async def _lease(self, body: bytes) -> bytes:
        request = msgspec.msgpack.decode(body, type=LeaseRequest)
        return msgspec.msgpack.encode(await self._let_in(request))

    async def _let_in(self, request: LeaseRequest) -> LeaseReply:
        """Answer a request; one for a lease when the slot of its number here has ended."""
        here = self._here
        slots = range(self._slot_count) if self._whole else [request.slot]
        if here is None or not request.want or all(map(here.has_ended, slots)):
            return await self._service.exchange(request)
        # What it reports is news, whatever it must wait for.
        reply = await self._service.exchange(msgspec.structs.replace(request, want=0, wait_s=0.0))
        if not (reply.stop or reply.cancelled or reply.error):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(request.wait_s):
                    for slot in slots:
                        await here.slot_ended(slot)
        # It asks again.
        return reply

    async def _end(self, process: subprocess.Popen[bytes]) -> int:
        """See a process end, which has closed its socket or lost ours; nothing is left of its session then."""
        try:
            until = time.monotonic() + WORKER_GRACE_S
            while process.poll() is None and time.monotonic() < until:
                await asyncio.sleep(LOOK_S)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            code = process.wait()
            kill_session(process.pid)
            self._process = None
        return code


async def _retire(loop: PullLoop) -> None:
    await loop.retire()


class _Direct:
    """The way to a pool on the same event loop."""

    def __init__(self, service: LeaseService) -> None:
        self._service = service

    async def call(self, op: str, request: bytes, *, connect_s: float = 5.0) -> bytes:
        return await self._service.control(request)

    def abort(self) -> None:
        """Nothing is under way that nobody awaits."""


class _DirectLink:
    """What a worker on the same event loop has of its pool: a `Link`."""

    def __init__(self, service: LeaseService) -> None:
        self._service = service
        self.peers = LonePeers(service.peers)

    async def lease(self, request: LeaseRequest) -> LeaseReply:
        return await self._service.exchange(request)

    def on_recall(self, recall: Callable[[int], None]) -> None:
        """`PrivateExecutor` calls it by the loop."""


@contextlib.contextmanager
def _switching() -> Iterator[None]:
    """Let threads of this process take turns more often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, SWITCH_S))
    try:
        yield
    finally:
        sys.setswitchinterval(before)
