"""A cluster that outlives the terminal: what `up` starts, `status` shows and `down` ends.

One detached supervisor process keeps a scheduler, a worker and a controller running; each is started again when it
ends, all are killed by the kernel if the supervisor is. It holds a lock file for as long as it lives, so that one
store has one cluster per user and host, and rewrites a state file at every change. A process is only ever signalled if
pid *and* start time are those that the state file names.

::

    <cache_dir>/cluster/<repo_id>.lock     held by the supervisor
    <cache_dir>/cluster/<repo_id>.json     ClusterState
    <cache_dir>/cluster/<repo_id>/*.log    one per process
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec

from ...storage.actor import host_name
from ...storage.clock import utc_now
from ...storage.digest import from_hex
from ...storage.errors import HeldError
from ...storage.host import boot_id
from ...storage.logs import FIELDS, is_json, log_to_stderr
from ...storage.state import State
from ..errors import ClusterError
from ..leases.control import ControlReply
from ..leases.dask_executor import DaskExecutor, scheduler_status
from .local import LOOPBACK, child_environment, child_specs, reserve_port, shared_url
from .standing import Keeper
from .supervise import ChildSpec, ProcessId, Supervisor, kill_session, log_tail

__all__ = ["ClusterState", "ProcessState", "down", "live_status", "status", "up"]

logger = logging.getLogger(__name__)

SUPERVISOR = "supervisor"
HELD_EXIT = 4
CONTROLLER_GRACE_S = 10.0
READY_S = 30.0
RESTARTS_MAX = 2
"""A process that was started more often while `up` waits will not come up."""
DOWN_S = 30.0


class ProcessState(msgspec.Struct, frozen=True, kw_only=True):
    """A process of a cluster."""

    pid: int
    started: str
    restarts: int = 0

    def alive(self) -> bool:
        """Whether it still runs."""
        return ProcessId(self.pid, self.started).alive()


class ClusterState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a detached cluster."""

    v: int = 1
    store: str
    repo_id: str
    address: str
    """Of the scheduler."""
    slots: int
    host: str
    boot: str
    since: str
    """When it came up."""
    folder: str
    """Holds the logs."""
    processes: dict[str, ProcessState]
    """`supervisor`, `scheduler`, `worker`, `controller`; one that is just being started again is missing."""
    ending: bool = False

    def alive(self) -> bool:
        """Whether its supervisor still runs on this host."""
        return self.boot == boot_id() and SUPERVISOR in self.processes and self.processes[SUPERVISOR].alive()


def _folder(cache_dir: Path, repo_id: str) -> Path:
    return cache_dir / "cluster" / repo_id


def _state_file(cache_dir: Path, repo_id: str) -> Path:
    return cache_dir / "cluster" / f"{repo_id}.json"


def _open_lock(cache_dir: Path, repo_id: str) -> int:
    """Open what a supervisor holds from before it is forked until it has ended."""
    return os.open(cache_dir / "cluster" / f"{repo_id}.lock", os.O_RDWR | os.O_CREAT, 0o600)


def _is_supervised(cache_dir: Path, repo_id: str) -> bool:
    lock = _open_lock(cache_dir, repo_id)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _read(cache_dir: Path, repo_id: str) -> ClusterState | None:
    try:
        return msgspec.json.decode(_state_file(cache_dir, repo_id).read_bytes(), type=ClusterState)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def status(cache_dir: Path, repo_id: str) -> ClusterState | None:
    """Return the cluster that serves a store on this host; None if none is up."""
    state = _read(cache_dir, repo_id)
    return state if state is not None and state.alive() else None


def live_status(state: ClusterState, *, timeout_s: float = 3.0) -> ControlReply | None:
    """Ask the cluster's lease pool for jobs, workers and slots; None if it does not answer. Imports Dask."""
    try:
        return scheduler_status(state.address, timeout_s=timeout_s)
    except OSError:
        return None


def up(store_url: str, slots: int, *, repo_id: str, cache_dir: Path, timeout_s: float = 30.0) -> ClusterState:
    """Start a detached scheduler, worker and controller for a store, and wait until a slot and a controller are there.

    Parameters
    ----------
    store_url
        The store; a `memory://` one is refused.
    slots
        Datums computed at a time.
    repo_id
        The store's id; one cluster serves it on this host.
    cache_dir
        Holds the state file and the logs.
    timeout_s
        How long the processes may take to start.

    Raises
    ------
    HeldError
        A cluster is up for this store.
    ClusterError
        The processes did not start, or were ended meanwhile (`down`); nothing of them is left.
    """
    url = shared_url(store_url)
    running = status(cache_dir, repo_id)
    if running is not None:
        raise _held(running)
    folder = _folder(cache_dir, repo_id)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{SUPERVISOR}.log"
    argv = [
        sys.executable,
        "-P",
        "-m",
        "dmlpipe.scheduler.cluster.daemon",
        "supervise",
        "--store",
        url,
        "--slots",
        str(slots),
    ]
    argv += ["--repo-id", repo_id, "--cache-dir", str(cache_dir.absolute())]
    with log.open("wb") as out:
        # It forks once more and returns: the supervisor is nobody's child and holds no terminal.
        code = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder, start_new_session=True, check=False
        ).returncode
    if code == HELD_EXIT:
        raise _held(_read(cache_dir, repo_id))
    if code != 0:
        raise ClusterError(f"the supervisor ended with {code}\n{log_tail(log)}")
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        supervised = _is_supervised(cache_dir, repo_id)
        state = status(cache_dir, repo_id)
        if state is None and not supervised:
            # Nothing is left to be ended here: what is there by now is another's.
            told = "\n".join(filter(None, ("the cluster was ended while it came up", log_tail(log))))
            raise ClusterError(told, hint="start it again: dmlpipe up")
        if state is not None and len(state.processes) == 4:
            live = live_status(state, timeout_s=1.0)
            if live is not None and live.slots and live.driven:
                return state
        if state is not None and any(process.restarts >= RESTARTS_MAX for process in state.processes.values()):
            break
        time.sleep(0.05)
    tails = [f"{name}.log:\n{log_tail(folder / f'{name}.log', 6)}" for name in ("controller", "worker", "scheduler")]
    down(cache_dir, repo_id)
    raise ClusterError("the cluster did not come up, and was ended\n" + "\n".join(tails))


def down(cache_dir: Path, repo_id: str, *, timeout_s: float = DOWN_S) -> bool:
    """End the cluster of a store, and only it; returns when its processes are gone.

    Returns
    -------
    bool
        False if there was none.
    """
    state = _read(cache_dir, repo_id)
    if state is None or state.boot != boot_id():
        return False
    ended = False
    supervisor = state.processes[SUPERVISOR]
    if supervisor.alive():
        ended = True
        os.kill(supervisor.pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        while supervisor.alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        if supervisor.alive():
            logger.warning("the supervisor (pid %d) did not end in %.0f s: killed", supervisor.pid, timeout_s)
            os.kill(supervisor.pid, signal.SIGKILL)
    # Only if the supervisor was killed is anything left here.
    for name, process in (_read(cache_dir, repo_id) or state).processes.items():
        if name != SUPERVISOR and process.alive():
            ended = True
            kill_session(process.pid)
    _state_file(cache_dir, repo_id).unlink(missing_ok=True)
    return ended


def _held(state: ClusterState | None) -> HeldError:
    where = f" since {state.since}, {state.slots} slots, at {state.address}" if state is not None else ""
    return HeldError(f"a cluster is already up for this store{where}", hint="end it with: dmlpipe down")


# -- the supervisor's process


def _supervise(options: argparse.Namespace) -> int:
    cache_dir, repo_id = Path(options.cache_dir), str(options.repo_id)
    folder = _folder(cache_dir, repo_id)
    lock = _open_lock(cache_dir, repo_id)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return HELD_EXIT
    if os.fork():
        # The lock belongs to the open file, which the child shares.
        os._exit(0)
    held, port = reserve_port()
    address = f"tcp://{LOOPBACK}:{port}"
    specs = child_specs(options.store, options.slots, port, folder, restart_scheduler=True)
    specs.append(
        ChildSpec(
            name="controller",
            module="dmlpipe.scheduler.cluster.daemon",
            args=("control", "--store", options.store, "--address", address),
            log=folder / "controller.log",
            grace_s=CONTROLLER_GRACE_S,
        )
    )
    since = utc_now()
    ending = False

    def write() -> None:
        restarts = supervisor.restarts()
        processes = {
            name: ProcessState(pid=process.pid, started=process.started, restarts=restarts[name])
            for name, process in supervisor.processes().items()
        }
        own = ProcessId.of(os.getpid())
        processes[SUPERVISOR] = ProcessState(pid=own.pid, started=own.started)
        state = ClusterState(
            store=options.store,
            repo_id=repo_id,
            address=address,
            slots=options.slots,
            host=host_name(),
            boot=boot_id(),
            since=since,
            folder=str(folder),
            processes=processes,
            ending=ending,
        )
        path = _state_file(cache_dir, repo_id)
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(state)))
        fresh.replace(path)

    def end(number: int, frame: object) -> None:
        nonlocal ending
        ending = True
        supervisor.stop()

    supervisor = Supervisor(specs, on_change=write, env=child_environment(cache_dir), cwd=folder)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    write()
    try:
        supervisor.run()
    finally:
        _state_file(cache_dir, repo_id).unlink(missing_ok=True)
        held.close()
        os.close(lock)
    return 0


# -- the controller's process


def _control(options: argparse.Namespace) -> int:
    from ...storage.store import Store
    from ..jobs.controller import Controller

    store = Store.open(options.store)

    executors: list[DaskExecutor] = []

    def read_block(block: str) -> bytes:
        return store.nodes.get(from_hex(block))

    def make_executor() -> DaskExecutor:
        executors.append(DaskExecutor(options.address, read_block, backend=store.backend))
        return executors[-1]

    def holds(state: State) -> bool:
        holder = state.controller()
        return holder is not None and not holder.ended and (holder.host, holder.pid) == (host_name(), os.getpid())

    keeper = Keeper(Store.open(options.store), _folder(store.cache_dir, store.repo_id) / "standing", holds=holds)
    # It starts its children, which end with it: it lives until they do.
    keeping = threading.Thread(target=keeper.run, name="dmlpipe-standing")
    waiting: list[DaskExecutor] = []
    controller = Controller(
        store, lambda: waiting.pop() if waiting else make_executor(), kind="up", observer=_log_report
    )

    def end(number: int, frame: object) -> None:
        # The supervisor ends the controller first, then the workers: they can begin to leave now.
        for executor in executors:
            executor.stop_workers = True
        # In a thread: `stop` takes a lock, which the interrupted code may hold.
        threading.Thread(target=controller.stop, name="dmlpipe-stop").start()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Made now: a first commit that comes later does not wait for the import of Dask, and what the workers of an
    # earlier controller had computed is stored before this one looks.
    waiting.append(make_executor())
    try:
        waiting[0].wait_ready(READY_S)
        keeping.start()
        controller.serve()
    except HeldError as err:
        logger.warning("%s", err)
        return HELD_EXIT
    finally:
        if keeping.is_alive():
            keeper.stop()
            keeping.join()
        for executor in waiting:
            executor.close()
    return 0


def _log_report(report: object) -> None:
    told = msgspec.to_builtins(report) if is_json() else {}
    logger.info("%s", report, extra={FIELDS: {"event": told.pop("type", ""), **told}})


def main(argv: list[str]) -> int:
    """Run one of the two roles; `up` and the supervisor call it."""
    parser = argparse.ArgumentParser(prog="dmlpipe.scheduler.cluster.daemon")
    roles = parser.add_subparsers(dest="role", required=True)
    supervise = roles.add_parser("supervise")
    supervise.add_argument("--slots", type=int, required=True)
    supervise.add_argument("--repo-id", required=True)
    supervise.add_argument("--cache-dir", required=True)
    control = roles.add_parser("control")
    control.add_argument("--address", required=True)
    for role in (supervise, control):
        role.add_argument("--store", required=True)
    options = parser.parse_args(argv)
    log_to_stderr("supervisor" if options.role == "supervise" else "controller")
    return _supervise(options) if options.role == "supervise" else _control(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
