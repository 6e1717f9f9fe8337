"""Watching somebody else's controller: what `run` does where `up` already serves the store."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..storage.records import RunState
from ..storage.state import State
from ..storage.store import Store
from .report import JobEnded, JobPlanned, Observer, RunBegan, RunSummary
from .runs import plan_run

_LOOK_S = 0.2


def is_busy(state: State) -> bool:
    """Whether a run is under way or due."""
    return state.open_run() is not None or plan_run(state, dict(state.pipelines())) is not None


def follow(
    store: Store,
    observer: Observer,
    *,
    since: int,
    alive: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
) -> RunSummary:
    """Report the jobs that end after entry `since` until nothing is left to do, or nobody is left to do it.

    Notes
    -----
    Reads the ledger only; costs one request each time it looks.
    """
    began = clock()
    told: set[str] = set()
    planned: set[str] = set()
    runs: list[str] = []
    ended: list[JobEnded] = []
    while True:
        state = store.refresh()
        for name, run in reversed(_newer_runs(state, since)):
            if name not in runs:
                runs.append(name)
                observer(RunBegan(run=name, causes=(), pipelines=tuple(run.versions)))
            for job_name in run.jobs:
                job = state.job(job_name)
                if job is None:
                    continue
                if job_name not in planned:
                    planned.add(job_name)
                    observer(
                        JobPlanned(
                            job=job_name,
                            run=name,
                            pipeline=job.pipeline,
                            version=job.version,
                            total=job.end.counters.total,
                        )
                    )
                if job.state != "running" and job_name not in told:
                    told.add(job_name)
                    report = JobEnded(
                        job=job_name,
                        run=name,
                        pipeline=job.pipeline,
                        state=job.state,
                        counters=job.end.counters,
                        seconds=0.0,
                        commit=job.commit,
                        head=state.head(job.pipeline) or "",
                        reason=job.end.reason,
                    )
                    ended.append(report)
                    observer(report)
        if not is_busy(state) or not alive():
            return RunSummary(runs=tuple(runs), jobs=tuple(ended), seconds=clock() - began)
        store.ledger.wait(state.n, _LOOK_S)


def _newer_runs(state: State, since: int) -> list[tuple[str, RunState]]:
    """Runs that were under way at entry `since` or began after it, newest first."""
    found: list[tuple[str, RunState]] = []
    for name, run in state.runs():
        if run.n <= since and run.done:
            break
        found.append((name, run))
        if run.n <= since:
            break
    return found


__all__ = ["follow", "is_busy"]
