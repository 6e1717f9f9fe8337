"""What a worker does between joining and leaving, wherever its leases come from: pull, and share files with peers."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ..storage.store import Store
from .child.zygote import Zygote
from .messages import LeaseSource
from .peers.exchange import PeerExchange
from .peers.transport import PeerTransport
from .pull import PullLoop, PullSettings
from .resources import RESOURCES_VARIABLE, found_resources
from .segments import FlushLimits
from .slots.devices import Devices, find_devices

__all__ = ["Equipment", "Link", "find_equipment", "serve_slots"]

logger = logging.getLogger("dmlpipe.worker")


class Link(LeaseSource, Protocol):
    """What a worker has of its cluster: the lease pool, and peers."""

    @property
    def peers(self) -> PeerTransport:
        """The way to other workers."""
        ...


class Equipment:
    """What a worker has beside slots.

    Attributes
    ----------
    resources
        As the lease pool is told: `memory` (bytes), `gpu`, named ones.
    devices
        Ids of the GPUs that its slots use.
    """

    def __init__(self, devices: Sequence[str], resources: Mapping[str, float]) -> None:
        self.resources = dict(resources)
        self.devices = tuple(devices)[: int(resources.get("gpu", 0))]


def find_equipment(environ: Mapping[str, str], declared: Sequence[str] = ()) -> Equipment:
    """Look at the machine, and at what was declared (`NAME=NUMBER`) here and in `$DMLPIPE_RESOURCES`.

    Raises
    ------
    InvalidInputError
        A declaration is something else.
    """
    devices = find_devices(environ)
    return Equipment(devices, found_resources(devices, [*environ.get(RESOURCES_VARIABLE, "").split(","), *declared]))


async def serve_slots(
    store: Store,
    link: Link,
    zygote: Zygote,
    *,
    name: str,
    slots: int,
    folder: Path,
    devices: Sequence[str],
    packages: Mapping[str, str] | None = None,
    peers: bool = True,
    begun: Callable[[PullLoop], None] = lambda loop: None,
) -> str:
    """Serve leases until the pool says stop, is gone, or the loop is told to end; return why, if that is an error.

    Parameters
    ----------
    store
        Opened for this alone: its file cache asks peers from now on.
    zygote
        Forks slot children. The caller closes it.
    name
        Of the worker; unique.
    folder
        Private to it (`worker_folder`). The caller releases it.
    devices
        Its GPUs.
    packages
        Versions that the pool compares with its own.
    peers
        False: everything is read from the store.
    begun
        Is handed the pull loop before it runs.
    """
    exchange = None
    joining = None
    if peers:
        exchange = store.cache.source = PeerExchange(store.cache, link.peers, worker=name)
        joining = asyncio.create_task(exchange.join())
    loop = PullLoop(
        store,
        link,
        zygote,
        worker=name,
        slots=slots,
        folder=folder,
        devices=Devices(devices),
        packages=packages,
        settings=PullSettings(limits=FlushLimits.from_environment(os.environ)),
    )
    begun(loop)
    logger.info("worker %s serves %s with %d slots", name, store.url, slots)
    try:
        return await loop.run()
    finally:
        if exchange is not None and joining is not None:
            joining.cancel()
            await asyncio.gather(joining, return_exceptions=True)
            await exchange.close()
