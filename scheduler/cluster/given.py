"""A Dask cluster that somebody else started (dask-gateway, Coiled, `LocalCluster`): used for one run, then left alone.

The lease pool is installed at its scheduler once and stays there, idle; the workers get a guest (`worker/guest.py`)
that goes when the executor is closed. dmlpipe of this version must be installed at both, and the store must be one
that the workers reach under the same URL.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from typing import Any

from ...storage.backend import Backend
from ...storage.version import __version__
from ..errors import ClusterError
from ..leases.dask_executor import DaskExecutor
from .local import shared_url

__all__ = ["connect", "given_executor"]

CONNECT_S = 15.0


def _install(dask_scheduler: Any) -> str:
    """Run at the scheduler: serve leases there; return dmlpipe's version."""
    from dmlpipe.scheduler.leases.dask_seam import install
    from dmlpipe.scheduler.leases.service import LeaseService

    if "dml_lease" not in dask_scheduler.handlers:
        install(dask_scheduler, LeaseService(), guests=True)
    return __version__


def connect(address: str, *, timeout_s: float = CONNECT_S) -> Any:
    """Return a Dask client of the scheduler at `address` (TLS as Dask's own configuration says).

    Raises
    ------
    ClusterError
        Nobody answers there.
    """
    from distributed import Client

    try:
        return Client(address, timeout=timeout_s, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as err:
        raise ClusterError(
            f"no Dask scheduler answers at {address}: {err}", hint="is it up? dask scheduler prints its address"
        ) from err


def dashboard_of(client: Any) -> str:
    """Return where the cluster shows its own page; empty where it has none, or this client is told of none."""
    try:
        return str(client.dashboard_link or "")
    except (AttributeError, KeyError):
        return ""


def given_executor(
    client: Any,
    store_url: str,
    read_block: Callable[[str], bytes],
    *,
    backend: Backend | None = None,
    cache_dir: str = "",
    only: Collection[str] = (),
) -> DaskExecutor:
    """Return an executor on the cluster of a Dask client; closing it leaves the cluster as it was.

    Parameters
    ----------
    client
        `distributed.Client`, which stays open; or the address of a scheduler.
    store_url
        Of a store that the workers reach, too: a bucket, or a folder that all hosts share.
    read_block, backend
        As of `DaskExecutor`.
    cache_dir
        Folder of the file cache at the workers; empty: the default one.
    only
        Addresses of the workers that compute; empty: all that are there and all that come.

    Raises
    ------
    InvalidInputError
        A `memory://` store.
    ClusterError
        dmlpipe is missing at the scheduler or a worker, is of another version, or the store cannot be opened there.
    """
    from ...worker.guest import PLUGIN, Guest

    url = shared_url(store_url)
    own = isinstance(client, str)
    client = connect(client) if own else client
    hint = f"install dmlpipe {__version__} where the scheduler and its workers run"
    try:
        found = client.run_on_scheduler(_install)
    except Exception as err:  # what the other side raised comes here as it is
        raise ClusterError(
            f"the scheduler at {client.scheduler.address} cannot serve leases: {err}", hint=hint
        ) from err
    if found != __version__:
        raise ClusterError(f"the scheduler has dmlpipe {found}, this is {__version__}", hint=hint)

    def leave() -> None:
        # The cluster may have gone first.
        with contextlib.suppress(OSError, TimeoutError, ValueError, RuntimeError):
            client.unregister_worker_plugin(PLUGIN)
            if own:
                client.close()

    executor = DaskExecutor(
        client.scheduler.address,
        read_block,
        backend=backend,
        on_close=leave,
        connection_args=client.connection_args,
    )
    # The end of the session before told its guests to stop: those of this one come after its beginning.
    executor.wait_ready(CONNECT_S)
    try:
        client.register_plugin(Guest(url, cache_dir, only=frozenset(only)))
    except Exception as err:
        executor.close()
        raise ClusterError(f"a worker cannot take part: {err}", hint=hint) from err
    return executor
