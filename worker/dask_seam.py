"""Everything on this side that touches `distributed`: nothing else in `worker/` imports it, but for `guest`.

Used of it: `Worker(...)` as an async context manager, its `scheduler` RPC, `handlers`, `stream_handlers`, `finished()`,
`close()`, `Security`, comms between workers, and the configuration keys below. Dask runs no task here: it is
membership, heartbeats, two RPCs, one stream message, and TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import dask.config

from ..storage.digest import Data
from .cluster_key import ClusterKey, check_listen, protocol
from .messages import LeaseReply, LeaseRequest, decode_reply, encode_request
from .peers.messages import Reason
from .peers.transport import ReadRange, RefusedError

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
"""Settings of the worker process: no tasks run in it, so what serves tasks only is off (docs/adr/0004)."""

UPLOADS_MAX = 3
"""Parts handed out at a time; what the tracker counts on."""
UPLOAD_WAIT_S = 2.0
"""How long a peer waits for its turn before it hears that this worker is busy."""
_DRAIN_LOOK_S = 0.005
_IDLE_COMMS_MAX = 4


class DaskLink:
    """What a worker has of its cluster: the lease pool, and peers."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self.peers = DaskPeers(worker)

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


Body = Callable[[DaskLink], Coroutine[Any, Any, str]]


class DaskPeers:
    """A `PeerTransport` over Dask's comms, encrypted where they are.

    What peers send is taken as frames of bytes; they are never handed to Dask's deserialisation.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._idle: dict[str, list[Any]] = {}
        self._uploads = asyncio.Semaphore(UPLOADS_MAX)

    @property
    def address(self) -> str:
        """Where peers reach this worker."""
        return str(self._worker.contact_address or self._worker.address)

    async def ask(self, request: bytes) -> bytes:
        """Call `dml_peers`."""
        answer = await self._worker.scheduler.dml_peers(request=request)
        if not isinstance(answer, bytes):
            raise ConnectionError("this scheduler keeps no track of peers")
        return answer

    async def read(self, address: str, file: bytes, start: int, stop: int) -> Sequence[Data]:
        """Call `dml_read` of a peer."""
        message = {"op": "dml_read", "file": file, "start": start, "stop": stop, "reply": True}
        idle = self._idle.setdefault(address, [])
        if idle:
            with contextlib.suppress(OSError):  # it may have been closed while nobody looked
                return _frames(await self._exchange(address, idle.pop(), message))
        return _frames(await self._exchange(address, await self._connect(address), message))

    async def _connect(self, address: str) -> Any:
        from distributed.comm.core import connect

        arguments = self._worker.security.get_connection_args("worker")
        return await connect(address, deserialize=False, **arguments)  # type: ignore[no-untyped-call]

    async def _exchange(self, address: str, comm: Any, message: dict[str, Any]) -> Any:
        try:
            await comm.write(message)
            answer = await comm.read()
        except BaseException:
            # Cancelled or broken in the middle: the answer of this call must never be read as another's.
            comm.abort()
            raise
        idle = self._idle.setdefault(address, [])
        if len(idle) < _IDLE_COMMS_MAX:
            idle.append(comm)
        else:
            comm.abort()
        return answer

    def serve(self, read: ReadRange) -> None:
        """Answer `dml_read` by `read`."""
        from distributed.core import Status
        from distributed.protocol.serialize import to_serialize

        loop = asyncio.get_running_loop()

        async def dml_read(comm: Any, file: bytes, start: int, stop: int) -> Any:
            try:
                async with asyncio.timeout(UPLOAD_WAIT_S):
                    await self._uploads.acquire()
            except TimeoutError:
                return {"status": "busy"}
            try:
                data = await loop.run_in_executor(None, read, file, start, stop)
                if data is None:
                    return {"status": "absent"}
                body = to_serialize(memoryview(data))  # type: ignore[no-untyped-call]
                await comm.write({"status": "ok", "data": body})
                # `write` returns once all is queued; an upload lasts until it has left.
                while (stream := getattr(comm, "stream", None)) is not None and stream.writing():
                    await asyncio.sleep(_DRAIN_LOOK_S)
            finally:
                self._uploads.release()
            return Status.dont_reply

        self._worker.handlers["dml_read"] = dml_read

    def close(self) -> None:
        """Drop the comms that are not in use."""
        for comm in [comm for comms in self._idle.values() for comm in comms]:
            comm.abort()
        self._idle.clear()


def _frames(answer: Any) -> Sequence[Data]:
    """The bytes of an answer, as they came; no frames where it is not what `dml_read` sends."""
    if not isinstance(answer, dict):
        raise RefusedError(Reason.GONE)
    match answer.get("status"):
        case "ok":
            data = answer.get("data")
            compressed = any(getattr(data, "header", {}).get("compression") or ())
            return [] if compressed else list(getattr(data, "frames", ()))
        case "absent":
            raise RefusedError(Reason.ABSENT)
        case "busy":
            raise RefusedError(Reason.BUSY)
    raise RefusedError(Reason.GONE)


def security(key: ClusterKey | None) -> Any:
    """Dask's `Security` for a worker of a cluster with this key; None without one."""
    if key is None:
        return None
    from distributed.security import Security

    cert, secret = str(key.cert), str(key.key)
    return Security(  # type: ignore[no-untyped-call]
        require_encryption=True, tls_ca_file=cert, tls_worker_cert=cert, tls_worker_key=secret
    )


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
    key: ClusterKey | None = None,
    insecure: bool = False,
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
    key
        The cluster's; None for plain comms, which stay on this machine.
    insecure
        Plain comms may leave this machine.

    Returns
    -------
    str
        What `body` returned.

    Raises
    ------
    OSError
        There is no scheduler at that address.
    InvalidInputError
        `host` is not loopback, and there is no key.
    """
    check_listen(host, key, insecure=insecure)
    with dask.config.set(CONFIG):
        from distributed.worker import Worker

        worker = Worker(
            scheduler,
            name=name,
            nthreads=slots,
            host=host,
            protocol=protocol(key),
            security=security(key),
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
        link = DaskLink(worker)
        try:
            return await body(link)
        finally:
            link.peers.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(10):
                    await worker.close()
