"""What controllers, runs and jobs do to the state. All but taking the store needs the epoch that has it."""

from __future__ import annotations

import msgspec

from .. import records as r
from ..errors import ConflictError, NotFoundError
from .needs import need_epoch, need_job, need_pipeline
from .scratch import Scratch, add_content, cause_key, next_place
from .view import IDENTITY, up


def fold_control(
    s: Scratch, record: r.ControllerTake | r.ControllerEnd | r.RunStart | r.RunDone, entry: r.Entry
) -> None:
    """A controller takes the store or ends; a run starts or is done."""
    if isinstance(record, r.ControllerTake):
        now = s.controller()
        epoch = now.epoch if now else 0
        if record.epoch != epoch + 1:
            raise ConflictError(f"controller epoch {record.epoch} cannot follow epoch {epoch}")
        s.put(
            "controller",
            r.ControllerState(
                epoch=record.epoch,
                host=record.host,
                boot=record.boot,
                pid=record.pid,
                started=record.started,
                kind=record.kind,
                n=entry.n,
            ),
        )
        return
    controller = need_epoch(s, record.epoch)
    match record:
        case r.ControllerEnd():
            s.put("controller", msgspec.structs.replace(controller, ended=True))
        case r.RunStart():
            if s.run(record.run) is not None:
                raise ConflictError(f"run {record.run} has started already")
            if s.open_run() is not None:
                raise ConflictError(f"run {record.run} cannot start before the one under way ends")
            s.put(
                f"run/{record.run}",
                r.RunState(
                    n=entry.n,
                    first=record.first,
                    last=record.last,
                    view=record.view,
                    versions=record.versions,
                    time=entry.ts,
                ),
            )
            s.put_text(next_place(s, "runn", entry.n), record.run)
            for cause in list(s.causes(record.last)):
                s.drop(cause_key(cause))
        case r.RunDone():
            run = s.run(record.run)
            if run is None:
                raise NotFoundError(f"no run {record.run}")
            s.put(f"run/{record.run}", msgspec.structs.replace(run, done=True))


def fold_job_start(s: Scratch, record: r.JobStart | r.JobUnrunnable, entry: r.Entry) -> None:
    """A job starts, or is known never to."""
    need_epoch(s, record.epoch)
    if s.job(record.job) is not None:
        raise ConflictError(f"job {record.job} has started already")
    run = s.run(record.run)
    if run is None:
        raise NotFoundError(f"no run {record.run}")
    need_pipeline(s, record.pipeline)
    job = r.JobState(
        run=record.run,
        pipeline=record.pipeline,
        version=record.version,
        context=record.context if isinstance(record, r.JobStart) else "",
        inputs=record.inputs,
        base=record.base if isinstance(record, r.JobStart) else "",
        start_n=entry.n,
        started=entry.ts,
    )
    if isinstance(record, r.JobUnrunnable):
        job = msgspec.structs.replace(job, state="unrunnable", end_n=entry.n, ended=entry.ts, because=record.because)
        _consider(s, record.job, job)
    s.put(f"job/{record.job}", job)
    s.put_text(next_place(s, "jobn", entry.n), record.job)
    s.put_text(next_place(s, f"jobp/{record.pipeline}", entry.n), record.job)
    s.put(f"run/{record.run}", msgspec.structs.replace(run, jobs=(*run.jobs, record.job)))


_END_STATES = {r.JobDone: "done", r.JobFailed: "failed", r.JobStopped: "stopped"}


def fold_job_end(s: Scratch, record: r.JobDone | r.JobFailed | r.JobStopped, entry: r.Entry) -> None:
    """A job ends: its results are a context from here on."""
    need_epoch(s, record.epoch)
    job = need_job(s, record.job)
    if job.state != "running":
        raise ConflictError(f"job {record.job} has ended already: {job.state}")
    job = msgspec.structs.replace(
        job,
        state=_END_STATES[type(record)],
        end_n=entry.n,
        ended=entry.ts,
        end=record.end,
        commit=record.commit if isinstance(record, r.JobDone) else "",
    )
    s.put(f"job/{record.job}", job)
    _keep_context(s, record.key, entry)
    s.put(f"ctx/{record.key}", record.context)
    add_content(s, entry, record.end.packs, record.end.index)
    _consider(s, record.job, job)


def _keep_context(s: Scratch, key: str, entry: r.Entry) -> None:
    """Keep the record that is about to be replaced for other jobs of its context, whose plans were made from it."""
    before = s.context(key)
    if any(job.context == key for _, job in s.running_jobs()):
        if before is not None:
            s.put(f"ctxold/{key}/{up(entry.n)}", before)
    else:
        for old, _ in list(s._names(f"ctxold/{key}/", r.Context)):
            s.drop(f"ctxold/{key}/{old}")


def _consider(s: Scratch, name: str, job: r.JobState) -> None:
    pipeline = s.pipeline(job.pipeline)
    version = s.version(job.pipeline, job.version)
    if pipeline is None or version is None:
        return
    considered = {f"{bound.repo}@{bound.branch}": bound.commit for bound in job.inputs if bound.repo}
    considered[IDENTITY] = version.identity
    s.put(
        f"pipe/{job.pipeline}",
        msgspec.structs.replace(pipeline, considered=considered, last_job=name, last_state=job.state),
    )
