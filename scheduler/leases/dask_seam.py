"""Everything on this side that touches `distributed`: nothing else in `scheduler/` imports it.

Used of it: `Scheduler(...)`, `handlers`, `worker_send`, `add_plugin`, `workers` (`name`, `nthreads`, `resources`),
`SchedulerPlugin.add_worker/remove_worker`, `connect`/`Comm`, the configuration keys below. `test_contract` pins what
each of them does, with the oldest and the newest release that is supported.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import dask.config
from distributed.http.utils import RequestHandler

from ...worker.cluster_key import ClusterKey, check_listen, protocol

__all__ = ["CONFIG", "Connection", "RequestHandler", "Service", "install", "run_scheduler"]

CONFIG: dict[str, Any] = {
    # A frozen node is noticed in a minute; Dask's five are too long for leases of half a second.
    "distributed.scheduler.worker-ttl": "60s",
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.worker-saturation": float("inf"),
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.idle-timeout": None,
    "distributed.scheduler.no-workers-timeout": None,
    "distributed.scheduler.http.routes": ["distributed.http.health", "dmlpipe.scheduler.leases.metrics"],
    "distributed.scheduler.dashboard.status.task-stream-length": 1,
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
"""Settings of the scheduler process: no tasks run in it, so what serves tasks only is off (docs/adr/0004)."""


logger = logging.getLogger(__name__)

HTTP_PORT_VARIABLE = "DMLPIPE_HTTP_PORT"
"""Port of the scheduler's HTTP server (health, metrics); by default any that is free."""
ADAPT_TARGET_S = 5.0
"""Adaptive scaling aims at working off the backlog in this time, unless it says another."""


class Service(Protocol):
    """What a scheduler serves besides its own: two RPCs, and the news of workers."""

    tell_worker: Callable[[str, dict[str, Any]], None]
    """Set by `install`: send a stream message to a worker by its name. One that is gone hears nothing."""

    def add_worker(self, name: str, slots: int, resources: Mapping[str, float]) -> None:
        """Dask knows a new worker."""

    def remove_worker(self, name: str) -> None:
        """Dask lost a worker."""

    async def lease(self, data: bytes) -> bytes:
        """Answer `dml_lease`."""
        ...

    async def control(self, data: bytes) -> bytes:
        """Answer `dml_control`."""
        ...

    async def peers(self, data: bytes) -> bytes:
        """Answer `dml_peers`."""
        ...

    def slots_wanted(self, target_s: float) -> int:
        """Slots that the backlog is worth."""
        ...

    def idle_workers(self) -> list[str]:
        """Names of workers that may go."""
        ...


def install(scheduler: Any, service: Service, *, guests: bool = False) -> None:
    """Serve `service` from a Dask scheduler: handlers `dml_lease`, `dml_control`, `dml_peers`, and worker hooks.

    Dask's own adaptive scaling sees tasks only, of which there are none: it is given the lease pool's backlog instead.

    Parameters
    ----------
    guests
        The cluster is somebody else's: only workers that said so by `dml_join` have slots for datums, and adaptive
        scaling is left as it is.
    """
    from dask.utils import parse_timedelta
    from distributed.diagnostics.plugin import SchedulerPlugin

    names: dict[str, str] = {}
    addresses: dict[str, str] = {}

    def joined(worker: str, state: Any) -> None:
        know(worker, str(state.name), int(state.nthreads), dict(state.resources or {}))

    def know(worker: str, name: str, slots: int, resources: dict[str, float]) -> None:
        names[worker] = name
        addresses[name] = worker
        service.add_worker(name, slots, resources)

    def tell_worker(name: str, message: dict[str, Any]) -> None:
        address = addresses.get(name)
        if address is not None:
            scheduler.worker_send(address, message)

    service.tell_worker = tell_worker

    class LeasePlugin(SchedulerPlugin):  # type: ignore[misc, unused-ignore]  # distributed has no stubs
        def add_worker(self, scheduler: Any, worker: str) -> None:
            if not guests:
                joined(worker, scheduler.workers[worker])

        def remove_worker(self, scheduler: Any, worker: str, **kwargs: Any) -> None:
            name = names.pop(worker, None)
            if name is not None:
                addresses.pop(name, None)
                service.remove_worker(name)

        def valid_workers_downscaling(self, scheduler: Any, workers: list[Any]) -> list[Any]:
            idle = set(service.idle_workers())
            # Of a cluster of somebody else, workers without slots for datums are none of this pool's business.
            return [
                state
                for state in workers
                if (names.get(state.address) in idle) or (guests and state.address not in names)
            ]

    def adaptive_target(target_duration: Any = None) -> int:
        """Workers that the backlog is worth, by the slots that those here have on average."""
        wanted = service.slots_wanted(parse_timedelta(target_duration) if target_duration else ADAPT_TARGET_S)
        here = [int(state.nthreads) for state in scheduler.workers.values()]
        needed = math.ceil(wanted * len(here) / sum(here)) if here else wanted
        return max(needed, len(here) - len(service.idle_workers()))

    async def dml_join(address: str, name: str, slots: int, resources: dict[str, float]) -> None:
        """A guest began in the worker at `address`; it takes the place of one that was there before."""
        if address in scheduler.workers:
            before = names.get(address)
            if before is not None:
                service.remove_worker(before)
            know(address, name, slots, resources | dict(scheduler.workers[address].resources or {}))

    async def dml_leave(address: str, name: str) -> None:
        """The guest `name` ended in the worker at `address`, which stays."""
        if names.get(address) == name:
            del names[address], addresses[name]
            service.remove_worker(name)

    async def dml_lease(request: bytes) -> bytes:
        return await service.lease(request)

    async def dml_control(request: bytes) -> bytes:
        return await service.control(request)

    async def dml_peers(request: bytes) -> bytes:
        return await service.peers(request)

    scheduler.handlers["dml_lease"] = dml_lease
    scheduler.handlers["dml_peers"] = dml_peers
    scheduler.handlers["dml_control"] = dml_control
    scheduler.add_plugin(LeasePlugin(), name="dmlpipe-leases")
    if guests:
        scheduler.handlers["dml_join"] = dml_join
        scheduler.handlers["dml_leave"] = dml_leave
        return
    scheduler.handlers["adaptive_target"] = adaptive_target
    for address, state in scheduler.workers.items():
        joined(address, state)


async def run_scheduler(
    host: str,
    port: int,
    service: Service,
    stop: asyncio.Event,
    *,
    key: ClusterKey | None = None,
    insecure: bool = False,
) -> None:
    """Run a Dask scheduler on `host`:`port` (no dashboard; its HTTP server on `host` too) until `stop` is set.

    Raises
    ------
    InvalidInputError
        `host` is not loopback, there is no key, and `insecure` is not set.
    """
    check_listen(host, key, insecure=insecure)
    with dask.config.set(CONFIG):
        from distributed.scheduler import Scheduler

        scheduler: Any = Scheduler(
            host=host,
            port=port,
            protocol=protocol(key),
            security=_security(key),
            dashboard=False,
            dashboard_address=f"{host}:{os.environ.get(HTTP_PORT_VARIABLE, '0')}",
        )
        # Before it listens: the first worker may ask at once.
        install(scheduler, service)
        # What the routes of its HTTP server tell of (`metrics`).
        scheduler.dmlpipe = service
        async with scheduler:
            logger.info("metrics: http://%s:%d/metrics", host, scheduler.http_server.port)
            await stop.wait()


def _security(key: ClusterKey | None) -> Any:
    if key is None:
        return None
    from distributed.security import Security

    cert, secret = str(key.cert), str(key.key)
    return Security(  # type: ignore[no-untyped-call]
        require_encryption=True, tls_ca_file=cert, tls_scheduler_cert=cert, tls_scheduler_key=secret
    )


class Connection:
    """Comms to one scheduler. Use it from one event loop.

    Parameters
    ----------
    address
        `tcp://127.0.0.1:8786`.
    connection_args
        What Dask's comms want beside it (TLS).
    """

    def __init__(self, address: str, connection_args: Mapping[str, Any] | None = None) -> None:
        self.address = address
        self._connection_args = dict(connection_args or {})
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

        return await connect(  # type: ignore[no-untyped-call]
            self.address, timeout=timeout_s, deserialize=False, **self._connection_args
        )

    def abort(self) -> None:
        """Drop every comm at once."""
        for comm in [*self._idle, *self._busy]:
            comm.abort()
        self._idle.clear()
