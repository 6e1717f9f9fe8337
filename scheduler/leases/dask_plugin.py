"""The lease pool in any Dask scheduler: ``dask scheduler --preload dmlpipe.scheduler.leases.dask_plugin``."""

from __future__ import annotations

from typing import Any

__all__ = ["dask_setup"]


async def dask_setup(scheduler: Any) -> None:
    """Entry point of ``--preload``: serve leases from `scheduler`."""
    from .dask_seam import install
    from .service import LeaseService

    install(scheduler, LeaseService())
