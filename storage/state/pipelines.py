"""What versions of pipelines, their switches and the ticks of their schedules do to the state."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .. import records as r
from ..errors import ConflictError, ErrorCode, InvalidInputError, NotFoundError
from ..schedule import parse_time
from .needs import need_pipeline, need_repo
from .scratch import Scratch, add_cause, add_content
from .view import IDENTITY, down


def fold_pipeline(
    s: Scratch,
    record: r.PipelineSet
    | r.PipelineDelete
    | r.PipelineStop
    | r.PipelineStart
    | r.Hold
    | r.Release
    | r.Retry
    | r.DatumsRetry,
    entry: r.Entry,
    entry_hash: str,
) -> None:
    """A pipeline gets a version, ends, stops, starts, is held, released or tried again."""
    replace = msgspec.structs.replace
    match record:
        case r.PipelineSet():
            _fold_pipeline_set(s, record, entry, entry_hash)
        case r.PipelineDelete():
            pipeline = need_pipeline(s, record.name)
            for repo, branch in pipeline.inputs:
                s.drop(f"reads/{repo}/{branch}/{record.name}")
            _set_crons(s, record.name, (), entry)
            s.drop(f"pipe/{record.name}")
            if s.egress(record.name) is not None:
                s.drop(f"egress/{record.name}")
        case r.PipelineStop():
            pipeline = need_pipeline(s, record.name)
            s.put(f"pipe/{record.name}", replace(pipeline, stopped=True))
        case r.PipelineStart():
            pipeline = need_pipeline(s, record.name)
            s.put(f"pipe/{record.name}", replace(pipeline, stopped=False, considered=None, since=entry.n))
            add_cause(s, entry, entry_hash, "start", record.name)
        case r.Hold():
            pipeline = need_pipeline(s, record.pipeline)
            s.put(f"pipe/{record.pipeline}", replace(pipeline, hold=record, hold_n=entry.n))
        case r.Release():
            pipeline = need_pipeline(s, record.pipeline)
            if pipeline.hold is None:
                raise InvalidInputError(f"pipeline {record.pipeline!r} is not held")
            s.put(f"pipe/{record.pipeline}", replace(pipeline, hold=None, hold_n=0, since=entry.n))
            add_cause(s, entry, entry_hash, "release", record.pipeline)
        case r.Retry():
            for name in record.pipelines:
                pipeline = need_pipeline(s, name)
                s.put(f"pipe/{name}", replace(pipeline, considered=None))
                add_cause(s, entry, entry_hash, "retry", name)
        case r.DatumsRetry():
            _fold_datums_retry(s, record, entry, entry_hash)


def _fold_datums_retry(s: Scratch, record: r.DatumsRetry, entry: r.Entry, entry_hash: str) -> None:
    pipeline = need_pipeline(s, record.pipeline)
    context = s.context(record.key)
    if context is None:
        raise NotFoundError(f"no context {record.key[:12]}")
    running = next((name for name, job in s.running_jobs() if job.context == record.key), None)
    if running is not None:
        raise ConflictError(
            f"job {running[:6]} of {record.pipeline!r} is running",
            hint=f"wait for it: dmlpipe job wait {running[:6]}, or end it: dmlpipe job stop {running[:6]}",
        )
    s.put(f"ctx/{record.key}", msgspec.structs.replace(context, f=record.f))
    s.put(f"pipe/{record.pipeline}", msgspec.structs.replace(pipeline, considered=None))
    add_cause(s, entry, entry_hash, "retry", record.pipeline)


def _fold_pipeline_set(s: Scratch, record: r.PipelineSet, entry: r.Entry, entry_hash: str) -> None:
    last = next((version for version, _ in s.versions(record.name)), 0)
    if record.version != last + 1:
        raise ConflictError(f"pipeline {record.name!r} is at version {last}; version {record.version} cannot follow")
    need_repo(s, record.name)
    before = s.pipeline(record.name)
    for repo, branch in before.inputs if before else ():
        s.drop(f"reads/{repo}/{branch}/{record.name}")
    for repo, branch in record.inputs:
        s.put_text(f"reads/{repo}/{branch}/{record.name}", "")
    after = r.PipelineState(
        version=record.version,
        spec=record.spec,
        identity=record.identity,
        inputs=record.inputs,
        dag=record.dag,
        n=entry.n,
        quiet=record.quiet,
        standing=record.standing,
        branch=record.branch,
        every_commit=record.every_commit,
        since=entry.n,
    )
    _set_crons(s, record.name, record.crons, entry)
    if before is not None:
        after = msgspec.structs.replace(
            after,
            stopped=before.stopped,
            hold=before.hold,
            hold_n=before.hold_n,
            considered=_elsewhere(before.considered) if record.branch != before.branch else before.considered,
            last_job=before.last_job,
            last_state=before.last_state,
        )
    s.put(f"pipe/{record.name}", after)
    s.put(
        f"ver/{record.name}/{down(record.version)}",
        r.VersionState(n=entry.n, time=entry.ts, actor=entry.actor, spec=record.spec, identity=record.identity),
    )
    add_content(s, entry, record.packs, record.index)
    add_cause(s, entry, entry_hash, "pipeline", record.name)


def _elsewhere(considered: dict[str, str] | None) -> dict[str, str] | None:
    """What was considered, of a pipeline that publishes on another branch now: there it has published nothing."""
    return {key: value for key, value in considered.items() if key != IDENTITY} if considered is not None else None


def _set_crons(s: Scratch, pipeline: str, crons: Sequence[r.CronInput], entry: r.Entry) -> None:
    """Ticks go on from the last one, unless they are kept elsewhere now or begin later."""
    before = {name: cron for _, name, cron in s.crons(pipeline)}
    for name in before.keys() - {cron.name for cron in crons}:
        s.drop(f"cron/{pipeline}/{name}")
    for cron in crons:
        old = before.get(cron.name)
        since = cron.start or entry.ts
        if old is not None and old.repo == cron.repo:
            since = max(old.since, cron.start or old.since, key=parse_time) if cron.start != old.start else old.since
        s.put(
            f"cron/{pipeline}/{cron.name}",
            r.CronState(repo=cron.repo, spec=cron.spec, since=since, overwrite=cron.overwrite, start=cron.start),
        )


def fold_tick(s: Scratch, record: r.Tick) -> None:
    """A time of a schedule came: the next one is after it."""
    cron = s.cron(record.pipeline, record.input)
    if cron is None:
        raise NotFoundError(
            f"pipeline {record.pipeline!r} has no cron input {record.input!r}", code=ErrorCode.NO_PIPELINE
        )
    if record.manual:
        return
    if parse_time(record.time) <= parse_time(cron.since):
        raise ConflictError(f"input {record.input!r} of {record.pipeline!r} has ticked at {record.time} already")
    s.put(f"cron/{record.pipeline}/{record.input}", msgspec.structs.replace(cron, since=record.time))
