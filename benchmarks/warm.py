"""dmlpipe doing next to nothing to many datums, on a cluster that is up: `python -m benchmarks.warm KIND --items N`.

Printed as JSON: seconds from the call to the commit, with all that a run does (plan, leases, user code in its own
process, segments, folding, one entry), and the CPU of each process in us per datum: the budget in README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import dmlpipe as dml
from dmlpipe.scheduler.store import Store

KINDS = ("values", "folders", "commands")
WARM_ITEMS = 300


def _processes() -> dict[int, tuple[int, float, str]]:
    """Every process of this machine that can be seen: parent, CPU seconds, command line."""
    tick = os.sysconf("SC_CLK_TCK")
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        # A command's own processes are gone by now: their seconds are with who waited for them.
        seconds = sum(map(int, fields[11:15])) / tick
        found[int(entry.name)] = (int(fields[1]), seconds, command)
    return found


def _roles() -> dict[str, float]:
    """CPU seconds so far of this process and its descendants, by what they are."""
    processes = _processes()
    mine = {os.getpid()}
    while more := {pid for pid, (parent, _, _) in processes.items() if parent in mine} - mine:
        mine |= more
    seconds: dict[str, float] = {}
    for pid in mine & set(processes):
        _, used, command = processes[pid]
        if pid == os.getpid():
            role = "controller"
        elif "dmlpipe.worker.child.zygote" in command:
            role = "children"
        elif "scheduler_process" in command:
            role = "scheduler"
        elif "dmlpipe.worker" in command:
            role = "worker"
        else:
            continue
        seconds[role] = seconds.get(role, 0.0) + used
    return seconds


def _timed(owner: Any, name: str, steps: dict[str, float], step: str) -> None:
    """Count the CPU seconds of this thread in a method."""
    method: Callable[..., Any] = getattr(owner, name)

    @wraps(method)
    def timed(*args: Any, **options: Any) -> Any:
        began = time.thread_time()
        try:
            return method(*args, **options)
        finally:
            steps[step] = steps.get(step, 0.0) + time.thread_time() - began

    setattr(owner, name, timed)


def prepare(items: int, folder: Path) -> Store:
    """Make a store of `items` files, some more to warm up with, and the pipelines over both, none of which has run."""
    store = dml.init(folder / "store", cache_dir=folder / "cache")
    for repo, count in (("items", items), ("few", WARM_ITEMS)):
        with store.commit(repo) as commit:
            for number in range(count):
                commit.write(f"/{number:07d}.txt", b"%s %d" % (repo.encode(), number))
    # In a folder of its own, as a user's project is.
    store.submit(Path(shutil.copy(Path(__file__).with_name("dags") / "overhead.py", folder)))
    return store


def check(store: Store, kind: str, items: int) -> None:
    """Refuse a store in which a pipeline did not do what it was asked to.

    Raises
    ------
    RuntimeError
        It has other than `items` outputs.
    """
    found = len(list(store[kind].ls("/")))
    if found != items:
        raise RuntimeError(f"{kind} committed {found} files, expected {items}")


def run_on(store: Store, address: str, kind: str) -> float:
    """Run a pipeline on a cluster of dmlpipe's own, once it has slots; return the seconds from then to the commit.

    Raises
    ------
    RuntimeError
        The job failed.
    """
    from dmlpipe.scheduler.leases.dask_executor import DaskExecutor
    from dmlpipe.storage.digest import from_hex

    executor = DaskExecutor(address, lambda name: store.nodes.get(from_hex(name)), backend=store.backend)
    while not executor.slots():
        time.sleep(0.02)
    began = time.monotonic()
    summary = store.run(targets=[kind], executor=executor)
    seconds = time.monotonic() - began
    if not summary.ok:
        raise RuntimeError(f"{kind} failed: {summary}")
    return seconds


def run_cold(kind: str, store_path: Path, slots: int) -> None:
    """Start a cluster, run a pipeline of a prepared store there, end the cluster: what a whole script does."""
    from dmlpipe.scheduler.cluster.local import start_local

    store = dml.open(store_path)
    with tempfile.TemporaryDirectory(prefix="dmlpipe-logs-") as logs:
        with start_local(store.url, slots, folder=Path(logs), cache_dir=store.cache_dir) as cluster:
            run_on(store, cluster.address, kind)


def measure(kind: str, items: int, slots: int, folder: Path) -> dict[str, Any]:
    """Run a pipeline over `items` files on a cluster that has run its namesake."""
    from dmlpipe.scheduler.cluster.local import start_local
    from dmlpipe.scheduler.jobs.jobrun import JobRun
    from dmlpipe.scheduler.jobs.plan_reader import PlanReader

    store = prepare(items, folder)
    steps: dict[str, float] = {}

    with start_local(store.url, slots, folder=folder / "logs", cache_dir=folder / "cache") as cluster:
        run_on(store, cluster.address, f"warm-{kind}")
        _timed(PlanReader, "read", steps, "plan")
        _timed(JobRun, "stored", steps, "take segments")
        _timed(JobRun, "finish", steps, "fold")
        before = _roles()
        seconds = run_on(store, cluster.address, kind)
        after = _roles()
    check(store, kind, items)
    used = {role: after[role] - before.get(role, 0.0) for role in after}
    return {
        "items": items,
        "seconds": seconds,
        "cpu_s": sum(used.values()),
        "us_per_datum": {role: round(value / items * 1e6, 1) for role, value in sorted(used.items())},
        "controller_us_per_datum": {step: round(value / items * 1e6, 1) for step, value in steps.items()},
    }


def main() -> None:
    """Run what the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.warm")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--items", type=int, help="files to make, and to run over on a cluster that is up")
    parser.add_argument("--store", type=Path, help="prepared: start a cluster, run there, measure nothing")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--dir", type=Path)
    given = parser.parse_args()
    if (given.items is None) == (given.store is None):
        parser.error("give one of --items and --store")
    if given.store is not None:
        run_cold(given.kind, given.store, given.slots)
        return
    with tempfile.TemporaryDirectory(prefix="dmlpipe-warm-", dir=given.dir) as folder:
        print(json.dumps(measure(given.kind, given.items, given.slots, Path(folder))))


if __name__ == "__main__":
    main()
