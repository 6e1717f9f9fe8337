"""A worker as a guest in a Dask worker that somebody else started: the pull loop runs on that worker's event loop.

The second place on this side that touches `distributed`. Dask's worker stays what it was and may run tasks of its own;
user code of datums runs in slot children all the same. Comms, and with them TLS, are those of the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from distributed.diagnostics.plugin import WorkerPlugin

from ..storage.store import Store
from ..storage.version import __version__
from .child.environment import clean_environment
from .child.zygote import Zygote
from .dask_seam import DaskLink
from .folders import release, worker_folder
from .messages import COMPARED_PACKAGES
from .peers.exchange import PeerExchange
from .pull import PATIENCE_S, PullLoop, PullSettings, new_worker_name
from .resources import RESOURCES_VARIABLE, found_resources
from .segments import FlushLimits
from .slots.devices import Devices, find_devices

__all__ = ["PLUGIN", "Guest"]

logger = logging.getLogger(__name__)

PLUGIN = "dmlpipe-guest"
DRAIN_S = 10.0


class Guest(WorkerPlugin):  # type: ignore[misc, unused-ignore]  # distributed has no stubs
    """Serves datums of one store from the Dask worker that this plugin is registered at.

    Parameters
    ----------
    store
        URL of the store, as the workers find it.
    cache_dir
        Folder of the file cache at the workers; empty: the default one.
    wanted
        dmlpipe's version where the plugin was made; a worker of another one refuses.
    only
        Addresses of the workers that serve; empty: all.
    """

    name = PLUGIN

    def __init__(
        self, store: str, cache_dir: str = "", wanted: str = __version__, only: frozenset[str] = frozenset()
    ) -> None:
        self._store = store
        self._cache_dir = cache_dir
        self._wanted = wanted
        self._only = only
        self._name = ""
        self._task: asyncio.Task[str] | None = None
        self._loop: PullLoop | None = None

    def __getstate__(self) -> tuple[str, str, str, frozenset[str]]:
        return self._store, self._cache_dir, self._wanted, self._only

    def __setstate__(self, state: tuple[str, str, str, frozenset[str]]) -> None:
        self.__init__(*state)  # type: ignore[misc]  # a plugin travels before it is set up: its settings are all of it

    async def setup(self, worker: Any) -> None:
        """Open the store, say at the scheduler that slots are here, begin to pull."""
        if self._wanted != __version__:
            raise RuntimeError(f"worker {worker.address} has dmlpipe {__version__}, the client {self._wanted}")
        if self._only and worker.address not in self._only:
            return
        name = self._name = new_worker_name()
        slots = int(worker.state.nthreads)
        cache = Path(self._cache_dir) if self._cache_dir else None
        store = await asyncio.to_thread(Store.open, self._store, cache_dir=cache, patience_s=PATIENCE_S)
        devices = find_devices(os.environ)
        resources = found_resources(devices, os.environ.get(RESOURCES_VARIABLE, "").split(","))
        # Children must know nothing of the cluster: the zygote is an interpreter of its own.
        zygote = Zygote(clean_environment(os.environ))
        folder = worker_folder(store.cache_dir, name)
        link = DaskLink(worker)
        exchange = store.cache.source = PeerExchange(store.cache, link.peers, worker=name)
        self._loop = PullLoop(
            store,
            link,
            zygote,
            worker=name,
            slots=slots,
            folder=folder,
            devices=Devices(devices[: int(resources.get("gpu", 0))]),
            packages={package: version(package) for package in COMPARED_PACKAGES},
            settings=PullSettings(limits=FlushLimits.from_environment(os.environ)),
        )
        await worker.scheduler.dml_join(address=worker.address, name=name, slots=slots, resources=resources)
        self._task = asyncio.create_task(self._serve(self._loop, exchange, zygote, folder))

    async def _serve(self, loop: PullLoop, exchange: PeerExchange, zygote: Zygote, folder: Path) -> str:
        joining = asyncio.create_task(exchange.join())
        try:
            error = await loop.run()
            if error:
                logger.error("%s", error)
            return error
        finally:
            joining.cancel()
            await asyncio.gather(joining, return_exceptions=True)
            await exchange.close()
            await asyncio.to_thread(zygote.close)
            release(folder)

    async def teardown(self, worker: Any) -> None:
        """Finish the datums that run, store, report, end."""
        if self._task is None or self._loop is None:
            return
        self._loop.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self._task
        with contextlib.suppress(OSError):  # the cluster may end, too
            await worker.scheduler.dml_leave(address=worker.address, name=self._name)
