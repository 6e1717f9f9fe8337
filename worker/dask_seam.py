"""Everything on this side that touches `distributed`: nothing else in `worker/` imports it.

Used of it: `Worker(...)` as an async context manager, its `scheduler` RPC, `stream_handlers`, `finished()`, `close()`,
and the configuration keys below. Dask runs no task here: it is membership, heartbeats, one RPC and one stream message.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import dask.config

from .messages import LeaseReply, LeaseRequest, LeaseSource, decode_reply, encode_request

CONFIG: dict[str, Any] = {
    "distributed.worker.profile.enabled": False,
    # Dask would watch this process, in which no user code runs.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.worker.http.routes": ["distributed.http.health"],
    "distributed.comm.timeouts.connect": "15s",
    "distributed.comm.timeouts.tcp": "30s",
    "distributed.comm.compression": False,
    # Both look at the clock and at /proc all the time, for pages that are not served: 2 % of a core when idle.
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.system-monitor.disk": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.admin.log-length": 1000,
    "distributed.diagnostics.nvml": False,
}
"""Settings of the worker process; EXECUTION §8 has the reasons of each."""

Body = Callable[[LeaseSource], Coroutine[Any, Any, str]]


class DaskLeases:
    """The lease pool behind a worker's scheduler."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    async def lease(self, request: LeaseRequest) -> LeaseReply:
        """Call `dml_lease`; `OSError` when the scheduler is gone."""
        answer = asyncio.ensure_future(self._worker.scheduler.dml_lease(request=encode_request(request)))
        gone = asyncio.ensure_future(self._worker.finished())
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ConnectionError("the Dask worker closed")
            return decode_reply(await answer)
        finally:
            for task in (answer, gone):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await task

    def on_recall(self, recall: Callable[[int], None]) -> None:
        """Hear of `dml-recall` on the scheduler's stream."""

        def heard(lease: int) -> None:
            recall(lease)

        self._worker.stream_handlers["dml-recall"] = heard


def _ignored(lease: int) -> None:
    """Before the pull loop listens there is no lease that could be recalled."""


async def serve(
    scheduler: str,
    body: Body,
    *,
    name: str,
    slots: int,
    host: str,
    local_directory: str,
    connect_timeout_s: float,
    resources: Mapping[str, float] | None = None,
) -> str:
    """Join a scheduler, run `body` with its leases, leave.

    Parameters
    ----------
    scheduler
        `tcp://127.0.0.1:8786`.
    name
        Of the worker: leases name it, too.
    host
        Address to listen on, for Dask's own comms and its HTTP server.
    resources
        What the worker has beside slots: `memory` (bytes), `gpu`, named ones.

    Returns
    -------
    str
        What `body` returned.

    Raises
    ------
    OSError
        There is no scheduler at that address.
    """
    with dask.config.set(CONFIG):
        from distributed.worker import Worker

        worker = Worker(
            scheduler,
            name=name,
            nthreads=slots,
            host=host,
            dashboard=False,
            dashboard_address=f"{host}:0",
            memory_limit=0,
            local_directory=local_directory,
            death_timeout=connect_timeout_s,
            resources=dict(resources or {}),
        )
        # From the first moment: a stream message that nobody knows ends a Dask worker.
        worker.stream_handlers["dml-recall"] = _ignored
        try:
            async with asyncio.timeout(connect_timeout_s):
                await worker
        except TimeoutError as err:
            raise ConnectionError(f"no scheduler answers at {scheduler} within {connect_timeout_s:g} s") from err
        try:
            return await body(DaskLeases(worker))
        finally:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(10):
                    await worker.close()
