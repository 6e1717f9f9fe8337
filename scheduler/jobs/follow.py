"""Watching somebody else's controller: what `run` does where `up` already serves the store."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Collection
from typing import Any

from ...storage.objects.bodies import read_job
from ...storage.objects.segment import Failure
from ...storage.records import JobState, RunState
from ...storage.state import State
from ...storage.store import Store
from ..report import FailureGroup, JobEnded, JobPlanned, Observer, RunBegan, RunSummary
from .epoch import BEAT_EVERY_S, LOCAL_BEAT_S, progress_of
from .runs import plan_run, working

_LOOK_S = 0.2


def is_busy(state: State) -> bool:
    """Whether a run is under way or due."""
    return state.open_run() is not None or plan_run(state, working(state)) is not None


def follow(
    store: Store,
    observer: Observer,
    *,
    since: int,
    alive: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
) -> RunSummary:
    """Report the jobs that run or end after entry `since` until nothing is left to do, or nobody is left to do it.

    Notes
    -----
    Reads the ledger, one request each time it looks, the record of each job that has ended, and while one runs what
    the controller's heartbeat says of it, as often as it beats.
    """
    began = clock()
    beat_s = BEAT_EVERY_S if store.backend.properties.remote else LOCAL_BEAT_S
    heard = began
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
                if job_name not in planned and job.state != "unrunnable":
                    planned.add(job_name)
                    observer(_planned(job_name, job))
                if job.state != "running" and job_name not in told:
                    told.add(job_name)
                    report = _ended(store, state, job_name, job)
                    ended.append(report)
                    observer(report)
        if planned - told and clock() - heard >= beat_s:
            heard = clock()
            _tell_progress(store, state, planned - told, observer)
        if not is_busy(state) or not alive():
            return RunSummary(runs=tuple(runs), jobs=tuple(ended), seconds=clock() - began)
        store.ledger.wait(state.n, _LOOK_S)


def _tell_progress(store: Store, state: State, running: Collection[str], observer: Observer) -> None:
    holder = state.controller()
    if holder is not None and not holder.ended:
        for job, advanced in progress_of(store.backend, holder.epoch).items():
            if job in running:
                observer(advanced)


def _planned(name: str, job: JobState) -> JobPlanned:
    """The plan of a job that has not ended is in its controller's hands: the total is not known here."""
    total = -1 if job.state == "running" else job.end.counters.total
    return JobPlanned(job=name, run=job.run, pipeline=job.pipeline, version=job.version, total=total)


def _ended(store: Store, state: State, name: str, job: JobState) -> JobEnded:
    record = read_job(store.nodes, job.end.record) if job.end.record else None
    reason = job.end.reason
    if job.because:
        above = state.job(job.because)
        reason = f"{above.pipeline if above else 'an input'} failed in job {job.because[:6]}"
    return JobEnded(
        job=name,
        run=job.run,
        pipeline=job.pipeline,
        state=job.state,
        counters=job.end.counters,
        seconds=_seconds(record.started, record.ended) if record else 0.0,
        commit=job.commit,
        head=state.output(job.pipeline) or "",
        reason=reason,
        failures=tuple(_group(plain) for plain in record.failures) if record else (),
    )


def _seconds(started: str, ended: str) -> float:
    return (datetime.datetime.fromisoformat(ended) - datetime.datetime.fromisoformat(started)).total_seconds()


def _group(plain: dict[str, Any]) -> FailureGroup:
    kind, _, message = str(plain["cause"]).partition(": ")
    failure = Failure(kind, message, plain["where"], plain["line"], plain["traceback"])
    return FailureGroup(failure=failure, count=plain["count"], datum=plain["datum"], path=plain["path"])


def _newer_runs(state: State, since: int) -> list[tuple[str, RunState]]:
    """Runs that were under way at entry `since` or began after it, newest first."""
    found: list[tuple[str, RunState]] = []
    for name, run in state.runs():
        if run.n > since:
            found.append((name, run))
            continue
        # Runs follow each other: only the newest of the earlier ones can have been under way, and have ended since.
        ends = [job.end_n for job_name in run.jobs if (job := state.job(job_name)) is not None]
        if not run.done or max(ends, default=0) > since:
            found.append((name, run))
        break
    return found


__all__ = ["follow", "is_busy"]
