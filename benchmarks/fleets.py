"""Where a scaling benchmark runs: this machine, a Dask cluster that is there, or jobs of Slurm.

A fleet gives so many workers for one point and takes them back after it. Caches are new for each point: a file that a
host read before would not be read again.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from dmlpipe.scheduler.cluster.local import Cluster, child_specs, reserve_port, start_local
from dmlpipe.scheduler.cluster.supervise import ChildSpec, Supervisor
from dmlpipe.scheduler.errors import ClusterError
from dmlpipe.scheduler.leases.dask_executor import DaskExecutor
from dmlpipe.scheduler.store import Store
from dmlpipe.storage.digest import from_hex
from dmlpipe.storage.errors import ErrorCode, InvalidInputError

from .cluster_key import make_key
from .machine import describe_here

WAIT_S = 60.0
CONNECT_S = 15.0
SLURM_WAIT_S = 3600.0
_LOOK_S = 0.05


class Crew:
    """Workers for one point."""

    def __init__(self, executor: DaskExecutor, slots: int, hosts: list[dict[str, Any]]) -> None:
        self.executor = executor
        self.slots = slots
        self.hosts = hosts


class Fleet(Protocol):
    """A source of workers."""

    kind: str

    def settings(self) -> dict[str, Any]:
        """What must be the same when a benchmark is resumed."""
        ...

    def crew(self, store: Store, workers: int, cache: Path, *, apart: bool) -> contextlib.AbstractContextManager[Crew]:
        """Yield `workers` workers, all of whose slots wait for work.

        Parameters
        ----------
        cache
            Folder of the file cache at the workers, new.
        apart
            Each worker has a cache of its own even if it shares a host.

        Raises
        ------
        ClusterError
            There are not so many workers in time.
        """
        ...


def fleet_for(cluster: str, *, folder: Path, wait_s: float | None, slots: int, host: str, sbatch: str) -> Fleet:
    """Return the fleet that `--cluster` names.

    Raises
    ------
    InvalidInputError
        It is neither `local`, `slurm` nor an address.
    """
    if cluster == "local":
        return LocalFleet(folder, wait_s or WAIT_S)
    if cluster == "slurm":
        return SlurmFleet(folder, wait_s or SLURM_WAIT_S, slots=slots, host=host, sbatch=sbatch)
    if urlsplit(cluster).scheme in ("tcp", "tls", "ws", "wss", "ucx"):
        return GivenFleet(cluster, wait_s or WAIT_S)
    raise InvalidInputError(
        f"--cluster {cluster}: neither local, slurm, nor the address of a Dask scheduler",
        hint="an address is tcp://HOST:8786 or tls://HOST:8786",
    )


def await_slots(executor: DaskExecutor, wanted: int, wait_s: float, what: str) -> None:
    """Wait until `wanted` slots are there.

    Raises
    ------
    ClusterError
        They are not, in time, or the cluster failed.
    """
    deadline = time.monotonic() + wait_s
    while (there := executor.slots()) < wanted:
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} has {there} of {wanted} slots after {wait_s:g} s", hint="--wait S waits longer")
        time.sleep(_LOOK_S)


class LocalFleet:
    """Slots of this machine. A worker is one slot; several share one process, as in `dmlpipe run -j N`."""

    kind = "local"

    def __init__(self, folder: Path, wait_s: float) -> None:
        self._folder, self._wait_s = folder, wait_s

    def settings(self) -> dict[str, Any]:
        """See `Fleet`."""
        return {"kind": self.kind, "host": socket.gethostname()}

    @contextlib.contextmanager
    def crew(self, store: Store, workers: int, cache: Path, *, apart: bool) -> Iterator[Crew]:
        """See `Fleet`."""
        logs = self._folder / "logs"
        started = _start_apart(store, workers, cache, logs) if apart else _start_together(store, workers, cache, logs)
        with started as cluster:
            executor = _executor(store, cluster.address, failure=cluster.failure)
            try:
                await_slots(executor, workers, self._wait_s, "this machine")
                yield Crew(executor, workers, [describe_here()])
            finally:
                executor.close()
                shutil.rmtree(cache, ignore_errors=True)


def _start_together(store: Store, slots: int, cache: Path, logs: Path) -> Cluster:
    return start_local(store.url, slots, folder=logs, cache_dir=cache)


def _start_apart(store: Store, workers: int, cache: Path, logs: Path) -> Cluster:
    logs.mkdir(parents=True, exist_ok=True)
    held, port = reserve_port()
    scheduler, worker = child_specs(store.url, 1, port, logs, restart_scheduler=False)
    children = [scheduler]
    for number in range(workers):
        words = ("--cache-dir", str(cache / str(number)))
        children.append(
            ChildSpec(name=f"worker-{number}", module=worker.module, args=(*worker.args, *words), log=worker.log)
        )
    supervisor = Supervisor(children, env=dict(os.environ))
    return Cluster(f"tcp://127.0.0.1:{port}", logs, supervisor, held)


def _executor(store: Store, address: str, **options: Any) -> DaskExecutor:
    return DaskExecutor(address, lambda name: store.nodes.get(from_hex(name)), backend=store.backend, **options)


class GivenFleet:
    """Workers of a Dask cluster that somebody else started. The first so many take part, host by host."""

    kind = "given"

    def __init__(self, address: str, wait_s: float) -> None:
        from dmlpipe.scheduler.cluster.given import connect

        self._address, self._wait_s = address, wait_s
        self.client = connect(address, timeout_s=min(wait_s, CONNECT_S))

    def settings(self) -> dict[str, Any]:
        """See `Fleet`."""
        return {"kind": self.kind}

    def addresses(self, workers: int) -> dict[str, int]:
        """Return so many workers of the cluster and their threads, those of one host together.

        Raises
        ------
        ClusterError
            There are fewer, in time.
        """
        deadline = time.monotonic() + self._wait_s
        while len(there := self.client.nthreads()) < workers:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"{self._address} has {len(there)} workers, {workers} are wanted",
                    hint="scale it up, ask for fewer with --workers, or wait longer with --wait S",
                )
            time.sleep(_LOOK_S)
        return dict(sorted(there.items())[:workers])

    @contextlib.contextmanager
    def crew(self, store: Store, workers: int, cache: Path, *, apart: bool) -> Iterator[Crew]:
        """See `Fleet`. Workers of one host share its cache: a file's parts come to it once."""
        from dmlpipe.scheduler.cluster.given import given_executor

        chosen = self.addresses(workers)
        executor = given_executor(
            self.client,
            store.url,
            lambda name: store.nodes.get(from_hex(name)),
            backend=store.backend,
            cache_dir=str(cache),
            only=list(chosen),
        )
        try:
            slots = sum(chosen.values())
            await_slots(executor, slots, self._wait_s, self._address)
            hosts = self.client.run(describe_here, workers=list(chosen))
            yield Crew(executor, slots, _distinct(hosts))
        finally:
            executor.close()
            self.client.run(shutil.rmtree, str(cache), ignore_errors=True)


def _distinct(hosts: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for host in hosts.values():
        if host not in found:
            found.append(host)
    return found


SBATCH = """#!/bin/bash
#SBATCH --job-name=dmlpipe-bench
#SBATCH --array=1-{workers}
#SBATCH --cpus-per-task={slots}
#SBATCH --output={logs}/slurm-%A-%a.log
exec {python} -m dmlpipe.worker {address} --store {store} --slots {slots} \\
    --host "$(hostname -i | cut -d' ' -f1)" --key {key} --cache-dir {cache}-"$SLURM_ARRAY_TASK_ID" --connect-timeout 300
"""


class SlurmFleet:
    """Workers as tasks of a job array; the scheduler runs here, its key is a file that all nodes can read.

    Parameters
    ----------
    folder
        On a file system that all nodes share: logs, the key.
    slots
        Of each worker, and CPUs of each task.
    host
        Address of this machine that nodes reach; empty: that of its host name.
    sbatch
        More options of `sbatch`: `-p gpu -A account`.
    """

    kind = "slurm"

    def __init__(self, folder: Path, wait_s: float, *, slots: int, host: str, sbatch: str) -> None:
        if shutil.which("sbatch") is None:
            raise InvalidInputError(
                "--cluster slurm: there is no sbatch here", code=ErrorCode.UNSUPPORTED, hint="call it on a login node"
            )
        self._folder, self._wait_s, self._slots = folder.absolute(), wait_s, slots
        self._host = host or socket.gethostbyname(socket.gethostname())
        self._more = shlex.split(sbatch)

    def settings(self) -> dict[str, Any]:
        """See `Fleet`."""
        return {"kind": self.kind, "slots": self._slots, "sbatch": " ".join(self._more)}

    @contextlib.contextmanager
    def crew(self, store: Store, workers: int, cache: Path, *, apart: bool) -> Iterator[Crew]:
        """See `Fleet`."""
        from distributed import Client
        from distributed.security import Security

        logs = self._folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        key = make_key(self._folder / "key")
        cert, secret = str(key / "cert.pem"), str(key / "key.pem")
        security = Security(  # type: ignore[no-untyped-call]
            require_encryption=True, tls_ca_file=cert, tls_client_cert=cert, tls_client_key=secret
        )
        with scheduler_with(self._host, key, logs / "scheduler.log") as address:
            script = logs / "workers.sh"
            script.write_text(
                SBATCH.format(
                    workers=workers,
                    slots=self._slots,
                    logs=shlex.quote(str(logs)),
                    python=shlex.quote(sys.executable),
                    address=address,
                    store=shlex.quote(store.url),
                    key=shlex.quote(str(key)),
                    cache=shlex.quote(str(cache)),
                )
            )
            job = _sbatch([*self._more, str(script)])
            arguments = security.get_connection_args("client")  # type: ignore[no-untyped-call]
            executor = _executor(store, address, connection_args=arguments)
            try:
                await_slots(executor, workers * self._slots, self._wait_s, f"Slurm's job {job}")
                with Client(address, security=security, set_as_default=False) as client:  # type: ignore[no-untyped-call]
                    hosts = _distinct(cast("dict[str, dict[str, Any]]", client.run(describe_here)))
                yield Crew(executor, workers * self._slots, hosts)
            finally:
                executor.stop_workers = True
                executor.close()
                subprocess.run(["scancel", job], check=False, capture_output=True)
                shutil.rmtree(key, ignore_errors=True)


def _sbatch(words: list[str]) -> str:
    done = subprocess.run(["sbatch", "--parsable", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(
            f"sbatch refused: {done.stderr.strip()}", hint="--sbatch '-p PARTITION -A ACCOUNT' adds options"
        )
    return done.stdout.strip().partition(";")[0]


@contextlib.contextmanager
def scheduler_with(host: str, key: Path, log: Path) -> Iterator[str]:
    """Run a scheduler with a key; yield its address."""
    with socket.socket() as held:
        held.bind((host, 0))
        port = held.getsockname()[1]
    command = [sys.executable, "-m", "dmlpipe.scheduler.leases.scheduler_process", host, str(port), "--key", str(key)]
    with log.open("ab") as errors:
        process = subprocess.Popen(command, stderr=errors)
    try:
        yield f"tls://{host}:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
