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


def measure(kind: str, items: int, slots: int, folder: Path) -> dict[str, Any]:
    """Run a pipeline over `items` files on a cluster that has run its namesake."""
    from dmlpipe.scheduler.cluster.local import start_local
    from dmlpipe.scheduler.jobs.jobrun import JobRun
    from dmlpipe.scheduler.leases.dask_executor import DaskExecutor
    from dmlpipe.storage.digest import from_hex

    store = dml.init(folder / "store", cache_dir=folder / "cache")
    for repo, count in (("items", items), ("few", WARM_ITEMS)):
        with store.commit(repo) as commit:
            for number in range(count):
                commit.write(f"/{number:07d}.txt", b"%s %d" % (repo.encode(), number))
    # In a folder of its own, as a user's project is.
    store.submit(Path(shutil.copy(Path(__file__).with_name("dags") / "overhead.py", folder)))
    steps: dict[str, float] = {}

    def run(target: str) -> float:
        executor = DaskExecutor(cluster.address, lambda name: store.nodes.get(from_hex(name)), backend=store.backend)
        while not executor.slots():
            time.sleep(0.02)
        began = time.monotonic()
        summary = store.run(targets=[target], executor=executor)
        seconds = time.monotonic() - began
        if not summary.ok:
            raise RuntimeError(f"{target} failed: {summary}")
        return seconds

    with start_local(store.url, slots, folder=folder / "logs", cache_dir=folder / "cache") as cluster:
        run(f"warm-{kind}")
        _timed(JobRun, "_read_plan", steps, "plan")
        _timed(JobRun, "stored", steps, "take segments")
        _timed(JobRun, "finish", steps, "fold")
        before = _roles()
        seconds = run(kind)
        after = _roles()
    if len(list(store[kind].ls("/"))) != items:
        raise RuntimeError(f"{kind} committed other than {items} files")
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
    parser.add_argument("--items", type=int, required=True)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--dir", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dmlpipe-warm-", dir=given.dir) as folder:
        print(json.dumps(measure(given.kind, given.items, given.slots, Path(folder))))


if __name__ == "__main__":
    main()
