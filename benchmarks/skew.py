"""How even slots end when the last datums take a hundred times as long: `python -m benchmarks.skew`.

One job of datums that sleep; the last one in a hundred of them, in the order they are given, a hundred times as long.
Real processes: the scheduler, a worker, its slots and their children. *Efficiency* is the work that the datums say
they did, divided by the slots and by the time from the first one's beginning to the last one's end: 1.0 is a schedule
without a gap. Sleeping takes no core, so any number of slots can be tried on a small machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dmlpipe as dml

from .inference import result_file
from .machine import commit, describe
from .rounds import Spread

LIMIT = 0.95
"""Efficiency that is asked for."""
DAG = Path(__file__).with_name("dags") / "skew.py"


@dataclasses.dataclass(frozen=True, slots=True)
class Skew:
    """What is slept."""

    datums: int = 4_000
    short_ms: float = 5.0
    times: int = 100
    share: float = 0.01

    @property
    def long_from(self) -> int:
        """The first datum that takes long."""
        return self.datums - round(self.datums * self.share)


def prepare(skew: Skew, folder: Path) -> dml.Store:
    """Put one file a datum, which says how long to sleep."""
    store = dml.init(folder / "store", cache_dir=folder / "cache")
    for repo, count in (("naps", skew.datums), ("few", 100)):
        with store.commit(repo) as commit:
            for number in range(count):
                long = repo == "naps" and number >= skew.long_from
                commit.write(f"/{number:07d}", repr(skew.short_ms / 1e3 * (skew.times if long else 1)).encode())
    # In a folder of its own, as a user's project is.
    store.submit(Path(shutil.copy(DAG, folder / "dag.py")))
    return store


def measure(skew: Skew, slots: int, folder: Path) -> dict[str, Any]:
    """Run it once, on slots that have their children already."""
    from dmlpipe.scheduler.cluster.local import start_local
    from dmlpipe.scheduler.leases.dask_executor import DaskExecutor
    from dmlpipe.storage.digest import from_hex

    store = prepare(skew, folder)
    with start_local(store.url, slots, folder=folder / "logs", cache_dir=folder / "cache") as cluster:
        for target in ("warm", "slept"):
            executor = DaskExecutor(
                cluster.address, lambda name: store.nodes.get(from_hex(name)), backend=store.backend
            )
            while not executor.slots():
                time.sleep(0.02)
            called = time.monotonic()
            store.run(targets=[target], executor=executor)
            whole_s = time.monotonic() - called
    view = store["slept"]
    naps = [tuple(map(float, view.read_bytes(each.path).split())) for each in view.ls("/")]
    if len(naps) != skew.datums:
        raise RuntimeError(f"{len(naps)} datums of {skew.datums} slept")
    work_s = sum(ended - began for began, ended in naps)
    makespan_s = max(ended for _, ended in naps) - min(began for began, _ in naps)
    return {
        "slots": slots,
        "datums": len(naps),
        "work_s": round(work_s, 3),
        "makespan_s": round(makespan_s, 3),
        "efficiency": round(work_s / slots / makespan_s, 4),
        "whole_s": round(whole_s, 3),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each number of slots, print and write the figures."""
    usual = Skew()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.skew", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--datums", type=int, default=usual.datums, help="default: %(default)s")
    parser.add_argument("--short-ms", type=float, default=usual.short_ms, help="default: %(default)s")
    parser.add_argument("--slots", type=int, nargs="+", default=[4], help="default: 4")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--dir", type=Path, help="where to work, default: the system's folder for temporary files")
    parser.add_argument("--out", type=Path, help="file or folder; default: benchmarks/results")
    given = parser.parse_args(arguments)
    out = result_file(given.out, "skew")
    skew = dataclasses.replace(usual, datums=given.datums, short_ms=given.short_ms)
    machine, taken_at = describe(), commit()
    runs = []
    for slots in [each for _ in range(given.rounds) for each in given.slots]:
        with tempfile.TemporaryDirectory(prefix="dmlpipe-skew-", dir=given.dir) as folder:
            runs.append(measure(skew, slots, Path(folder)))
        print(json.dumps(runs[-1]), flush=True)
    efficiency = {slots: [run["efficiency"] for run in runs if run["slots"] == slots] for slots in given.slots}
    result = {
        "benchmark": "skew",
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": taken_at,
        "machine": dataclasses.asdict(machine),
        "workload": dataclasses.asdict(skew),
        "runs": runs,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    for slots, values in efficiency.items():
        spread = Spread.of(values)
        print(f"{slots} slots: efficiency {spread:.3f}, {'within' if spread.median >= LIMIT else 'below'} {LIMIT}")
    print(f"figures: {out}")


if __name__ == "__main__":
    main()
