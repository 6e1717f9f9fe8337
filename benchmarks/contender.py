"""One contender in a process of its own: `python -m benchmarks.contender NAME ...`; its marks are printed as JSON.

Whoever starts it measures the whole process; the marks say when, within it, the first file was handed out and when
the last result was where it belongs. All times are of the machine's monotonic clock, which processes share.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path

from .baselines import BASELINES, Work
from .models import MODELS
from .used import adopt_orphans, used_cpu_s

DMLPIPE = "dmlpipe"


@dataclass(frozen=True, slots=True)
class Marks:
    """Moments of a run, seconds of the monotonic clock."""

    leased: float
    """The first file could be handed to a slot that waited for it."""
    done: float
    """All results are written; for dmlpipe: committed."""
    computed: int
    """Files labelled."""
    cpu_s: float = 0.0
    """Used so far by this process and everything it started."""


def run_baseline(name: str, work: Work) -> Marks:
    """Run one of `BASELINES`."""
    began: list[float] = []
    work.out.mkdir(parents=True)
    BASELINES[name](work, lambda: began.append(time.monotonic()))
    done = time.monotonic()
    return Marks(began[0], done, sum(1 for _ in work.out.iterdir()))


def run_dmlpipe(store_path: Path, slots: int) -> Marks:
    """Bring a store's branches up to date with a cluster of its own, as `dmlpipe run` does."""
    import dmlpipe as dml
    from dmlpipe.scheduler.report import ClusterChanged, JobEnded, JobPlanned, Report

    planned: list[float] = []
    ready: list[float] = []
    ended: list[float] = []

    def observe(report: Report, /) -> None:
        match report:
            case JobPlanned():
                planned.append(time.monotonic())
            case ClusterChanged() if report.slots:
                ready.append(time.monotonic())
            case JobEnded():
                ended.append(time.monotonic())

    store = dml.open(store_path)
    summary = store.run(slots=slots, observer=observe)
    # A run that needs no cluster tells of no slots.
    return Marks(max(planned[0], *ready[:1]), ended[-1], summary.counters.run)


def main() -> None:
    """Run what the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contender")
    parser.add_argument("name", choices=[*BASELINES, DMLPIPE])
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--inputs", type=Path)
    parser.add_argument("--model", type=Path, help="folder of the persisted model")
    parser.add_argument("--scorer", choices=MODELS, default="forest")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--store", type=Path)
    given = parser.parse_args()
    adopt_orphans()
    if given.name == DMLPIPE:
        marks = run_dmlpipe(given.store, given.slots)
    else:
        marks = run_baseline(given.name, Work(given.inputs, given.model, given.out, given.slots, given.scorer))
    print(json.dumps(dataclasses.asdict(dataclasses.replace(marks, cpu_s=used_cpu_s()))))


if __name__ == "__main__":
    main()
