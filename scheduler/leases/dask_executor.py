"""The executor of a cluster: drives the lease pool in a Dask scheduler from another process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from ...storage.backend import Backend
from .control import ControlReply, Status, decode_reply, encode_request
from .pool_executor import Connection, PoolExecutor

__all__ = ["DaskExecutor", "scheduler_status"]


class DaskExecutor(PoolExecutor):
    """Computes datums on the workers of a Dask scheduler.

    Parameters
    ----------
    address
        `tcp://127.0.0.1:8786`. The scheduler may still be starting.
    failure
        Says why the cluster cannot go on, or "" while it can. Called about every second from any thread.
    on_close
        Ends the cluster, if that belongs to this executor.
    connection_args
        What Dask's comms want beside the address (TLS).
    read_block, backend, grows, connect_s, drain_s
        As of `PoolExecutor`.
    """

    def __init__(
        self,
        address: str,
        read_block: Callable[[str], bytes],
        *,
        backend: Backend | None = None,
        failure: Callable[[], str] = lambda: "",
        on_close: Callable[[], None] | None = None,
        grows: bool = True,
        connect_s: float = 30.0,
        drain_s: float = 10.0,
        connection_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            f"scheduler at {address}",
            read_block,
            backend=backend,
            stop_workers=on_close is not None,
            grows=grows,
            connect_s=connect_s,
            drain_s=drain_s,
        )
        self.address = address
        self._failure = failure
        self._on_close = on_close
        self._connection_args = connection_args
        self.start()

    async def open(self) -> Connection:
        """See `PoolExecutor.open`."""
        # Imported by this thread: half a second that the scheduler's own start hides.
        from .dask_seam import Connection

        return Connection(self.address, self._connection_args)

    def failure(self) -> str:
        """See `PoolExecutor.failure`."""
        return self._failure()

    def closed(self) -> None:
        """See `PoolExecutor.closed`."""
        if self._on_close is not None:
            self._on_close()


def scheduler_status(address: str, *, timeout_s: float = 5.0) -> ControlReply:
    """Ask the lease pool at `address` what it holds.

    Raises
    ------
    OSError
        Nobody answers there.
    """

    async def ask() -> ControlReply:
        from .dask_seam import Connection

        connection = Connection(address)
        try:
            async with asyncio.timeout(timeout_s):
                data = await connection.call("dml_control", encode_request(Status()), connect_s=timeout_s)
                return decode_reply(data)
        finally:
            connection.abort()

    return asyncio.run(ask())
