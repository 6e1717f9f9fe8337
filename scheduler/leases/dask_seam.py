"""Everything on this side that touches `distributed`: nothing else in `scheduler/` imports it.

Used of it: `Scheduler(...)`, `handlers`, `add_plugin`, `workers`, `SchedulerPlugin.add_worker/remove_worker`,
`connect`/`Comm`, the configuration keys below. A test pins each of them against the installed release.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import dask.config

__all__ = ["CONFIG", "Connection", "Service", "install", "run_scheduler"]

CONFIG: dict[str, Any] = {
    # A frozen node is noticed in a minute; Dask's five are too long for leases of half a second.
    "distributed.scheduler.worker-ttl": "60s",
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.worker-saturation": float("inf"),
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.idle-timeout": None,
    "distributed.scheduler.no-workers-timeout": None,
    "distributed.scheduler.http.routes": ["distributed.http.health"],
    "distributed.scheduler.dashboard.status.task-stream-length": 1,
    "distributed.comm.timeouts.connect": "15s",
    "distributed.comm.timeouts.tcp": "30s",
    "distributed.comm.compression": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.admin.log-length": 1000,
    "distributed.diagnostics.nvml": False,
}
"""Settings of the scheduler process; EXECUTION §8 has the reasons of each."""


class Service(Protocol):
    """What a scheduler serves besides its own: two RPCs, and the news of workers."""

    def add_worker(self, name: str, slots: int) -> None:
        """Dask knows a new worker."""

    def remove_worker(self, name: str) -> None:
        """Dask lost a worker."""

    async def lease(self, data: bytes) -> bytes:
        """Answer `dml_lease`."""
        ...

    async def control(self, data: bytes) -> bytes:
        """Answer `dml_control`."""
        ...


def install(scheduler: Any, service: Service) -> None:
    """Serve `service` from a Dask scheduler: handlers `dml_lease`, `dml_control`, and the worker hooks."""
    from distributed.diagnostics.plugin import SchedulerPlugin

    names: dict[str, str] = {}

    class LeasePlugin(SchedulerPlugin):  # type: ignore[misc, unused-ignore]  # distributed has no stubs
        def add_worker(self, scheduler: Any, worker: str) -> None:
            state = scheduler.workers[worker]
            names[worker] = str(state.name)
            service.add_worker(names[worker], int(state.nthreads))

        def remove_worker(self, scheduler: Any, worker: str, **kwargs: Any) -> None:
            name = names.pop(worker, None)
            if name is not None:
                service.remove_worker(name)

    async def dml_lease(request: bytes) -> bytes:
        return await service.lease(request)

    async def dml_control(request: bytes) -> bytes:
        return await service.control(request)

    scheduler.handlers["dml_lease"] = dml_lease
    scheduler.handlers["dml_control"] = dml_control
    scheduler.add_plugin(LeasePlugin(), name="dmlpipe-leases")
    for address, state in scheduler.workers.items():
        names[address] = str(state.name)
        service.add_worker(names[address], int(state.nthreads))


async def run_scheduler(host: str, port: int, service: Service, stop: asyncio.Event) -> None:
    """Run a Dask scheduler on `host`:`port` (no dashboard; its HTTP server on `host` too) until `stop` is set."""
    with dask.config.set(CONFIG):
        from distributed.scheduler import Scheduler

        scheduler = Scheduler(host=host, port=port, dashboard=False, dashboard_address=f"{host}:0")
        # Before it listens: the first worker may ask at once.
        install(scheduler, service)
        async with scheduler:
            await stop.wait()


class Connection:
    """Comms to one scheduler. Use it from one event loop.

    Parameters
    ----------
    address
        `tcp://127.0.0.1:8786`.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._idle: list[Any] = []
        self._busy: set[Any] = set()

    async def call(self, op: str, request: bytes, *, connect_s: float = 5.0) -> bytes:
        """Send one request and return the answer.

        Raises
        ------
        OSError
            The scheduler is not there, or went away before it answered.
        """
        comm = self._idle.pop() if self._idle else await self._connect(connect_s)
        self._busy.add(comm)
        try:
            await comm.write({"op": op, "request": request, "reply": True})
            answer = await comm.read()
        except BaseException:
            # Cancelled or broken in the middle: the answer of this call must never be read as another's.
            comm.abort()
            raise
        finally:
            self._busy.discard(comm)
        self._idle.append(comm)
        if not isinstance(answer, bytes | bytearray | memoryview):
            raise OSError(f"scheduler {self.address} answered {op} with {str(answer)[:200]}")
        return bytes(answer)

    async def _connect(self, timeout_s: float) -> Any:
        from distributed.comm.core import connect

        return await connect(self.address, timeout=timeout_s, deserialize=False)  # type: ignore[no-untyped-call]

    def abort(self) -> None:
        """Drop every comm at once."""
        for comm in [*self._idle, *self._busy]:
            comm.abort()
        self._idle.clear()
