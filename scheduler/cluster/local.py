"""A Dask cluster of this machine that lives as long as the process that started it: for measuring, and for tests.

One Dask scheduler and one worker with a slot per core, both on 127.0.0.1 and both started at once: the port is chosen
here, and held, before either exists. They die with this process, however it ends (`supervise`).

There is no password on the loopback address: any user of this machine who finds the port can run code as you.
"""

from __future__ import annotations

import atexit
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.info import CACHE_VARIABLE
from ..errors import ClusterError
from .supervise import ChildSpec, ProcessId, Supervisor, log_tail

__all__ = [
    "LOOPBACK",
    "Cluster",
    "child_environment",
    "child_specs",
    "reserve_port",
    "shared_url",
    "start_local",
]

LOOPBACK = "127.0.0.1"
WORKER_GRACE_S = 6.0
CLOSE_S = 15.0


def shared_url(store_url: str) -> str:
    """Return the URL by which other processes of this machine find the store.

    Raises
    ------
    InvalidInputError
        A `memory://` store: only the process that made it can see it.

    Examples
    --------
    >>> shared_url("s3://lab/store")
    's3://lab/store'
    >>> shared_url("/data/store")
    '/data/store'
    """
    scheme, colon, rest = store_url.partition("://")
    if not colon:
        return str(Path(store_url).expanduser().absolute())
    if scheme == "memory":
        raise InvalidInputError(
            f"no cluster can work on {store_url}: only this process sees it, and workers are processes of their own",
            code=ErrorCode.UNSUPPORTED,
            hint="use a folder or a bucket as the store, or dmlpipe run, which needs no cluster",
        )
    return str(Path(rest).absolute()) if scheme == "file" else store_url


def is_shared(store_url: str) -> bool:
    """Whether other processes of this machine can see the store: all but a ``memory://`` one."""
    return not store_url.startswith("memory://")


def reserve_port() -> tuple[socket.socket, int]:
    """Choose a free loopback port and keep it from others; a server that sets SO_REUSEADDR can still listen on it."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((LOOPBACK, 0))
    return held, int(held.getsockname()[1])


def child_specs(store_url: str, slots: int, port: int, folder: Path, *, restart_scheduler: bool) -> list[ChildSpec]:
    """Describe the scheduler and the worker of a local cluster; the worker is ended first."""
    address = f"tcp://{LOOPBACK}:{port}"
    return [
        ChildSpec(
            name="scheduler",
            module="dmlpipe.scheduler.leases.scheduler_process",
            args=(LOOPBACK, str(port)),
            log=folder / "scheduler.log",
            restart=restart_scheduler,
        ),
        ChildSpec(
            name="worker",
            module="dmlpipe.worker",
            args=(address, "--store", store_url, "--slots", str(slots)),
            log=folder / "worker.log",
            grace_s=WORKER_GRACE_S,
            quick_ends_max=0 if restart_scheduler else 3,
        ),
    ]


def child_environment(cache_dir: Path | None) -> dict[str, str]:
    """Environment of a cluster's processes: this one's, with the cache folder of the store that was opened."""
    environment = dict(os.environ)
    if cache_dir is not None:
        environment[CACHE_VARIABLE] = str(cache_dir.absolute())
    return environment


class Cluster:
    """A running local cluster. Close it, or use it as a context manager.

    Parameters
    ----------
    address
        Of the scheduler.
    folder
        Holds the logs.
    """

    def __init__(self, address: str, folder: Path, supervisor: Supervisor, held: socket.socket) -> None:
        self.address = address
        self.folder = folder
        self._supervisor = supervisor
        self._held = held
        started = threading.Event()
        self._problem: OSError | None = None
        # The children are tethered to this thread: it must live until they end.
        self._thread = threading.Thread(target=self._run, args=(started.set,), name="dmlpipe-cluster", daemon=True)
        self._thread.start()
        started.wait()
        if self._problem is not None:
            self.close()
            raise ClusterError(f"a cluster process could not be started: {self._problem}") from self._problem
        atexit.register(self.close)

    def _run(self, started: Callable[[], None]) -> None:
        try:
            self._supervisor.run(started)
        except OSError as err:
            self._problem = err
        finally:
            started()

    def processes(self) -> dict[str, ProcessId]:
        """`scheduler` and `worker`, as far as they run now."""
        return self._supervisor.processes()

    def failure(self) -> str:
        """Why the cluster cannot go on; empty while it can."""
        failure = self._supervisor.failure
        if failure:
            name = "scheduler" if failure.startswith("the scheduler") else "worker"
            tail = log_tail(self.folder / f"{name}.log", 5)
            return f"{failure}\n{tail}" if tail else failure
        return ""

    def close(self) -> None:
        """End the worker, then the scheduler; returns when nothing is left of them. Idempotent."""
        self._supervisor.stop()
        self._thread.join(CLOSE_S)
        self._held.close()
        atexit.unregister(self.close)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def start_local(store_url: str, slots: int, *, folder: Path, cache_dir: Path | None = None) -> Cluster:
    """Start a scheduler and a worker as children of this process; returns at once, while they start.

    Parameters
    ----------
    store_url
        The store that the worker reads and writes.
    slots
        Datums computed at a time (> 0).
    folder
        For the logs; made if missing.
    cache_dir
        The worker's cache folder; None: the default one.

    Raises
    ------
    InvalidInputError
        `slots` is not positive, or the store is one that only this process sees.
    ClusterError
        A process could not be started.
    """
    if slots < 1:
        raise InvalidInputError(f"a cluster needs at least one slot, got {slots}")
    url = shared_url(store_url)
    folder.mkdir(parents=True, exist_ok=True)
    held, port = reserve_port()
    specs = child_specs(url, slots, port, folder, restart_scheduler=False)
    supervisor = Supervisor(specs, env=child_environment(cache_dir))
    return Cluster(f"tcp://{LOOPBACK}:{port}", folder, supervisor, held)
