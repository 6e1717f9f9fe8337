"""What ends a job: its record, its commit, and the records that publish both in one entry."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from ...storage import records as r
from ...storage.actor import actor_name
from ...storage.clock import utc_now
from ...storage.errors import DmlpipeError
from ...storage.objects.bodies import encode_body, read_job
from ...storage.objects.node import NodeStore
from ...storage.objects.writer import Written
from ...storage.state import State
from ...storage.store import Store
from ..peers.tracker import Traffic
from ..pipelines.spec import PipelineSpec
from ..planning.plan import job_context
from ..report import FailureGroup, JobEnded
from .fold import Folded
from .job_rows import PlacedRows
from .runs import SkipJob, StartJob
from .verdict import Verdict

__all__ = ["Ending", "JobFacts", "end_job", "refused", "unrunnable"]

MAX_PACKS_IN_RECORD = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended: what goes into the ledger, and what watchers are told."""

    records: tuple[r.Record, ...]
    report: JobEnded
    sync: tuple[str, ...] = ()
    """Keys beside nodes that must be durable before the records are published."""


@dataclasses.dataclass(frozen=True, slots=True)
class JobFacts:
    """What is known of a job, but for what became of its datums."""

    job: str
    run: str
    spec: PipelineSpec
    version: int
    spec_node: str
    bindings: tuple[r.InputBinding, ...]
    key: str
    """K of its context."""
    base_job: str
    """The last job that was done under the context; empty: none."""
    started: str
    """RFC 3339."""
    began: float
    """Monotonic seconds."""
    versions: Mapping[str, str]
    """Of packages that workers used."""
    host: str
    traffic: Traffic | None
    """None: nothing was offered to a worker."""


def end_job(
    store: Store,
    state: State,
    facts: JobFacts,
    folded: Folded,
    verdict: Verdict,
    *,
    epoch: int,
    known: int,
    rows: PlacedRows,
    written: Written,
    sync: tuple[str, ...] = (),
) -> Ending:
    """Store a job's record, and its commit if it is done; return the records that publish them.

    Parameters
    ----------
    known
        Results from memory that were found before it ended.
    rows
        Where its rows are.
    written, sync
        What was stored that is the job's own and no datum's; keys of it that must be durable.
    """
    counters = folded.counters
    if verdict.state != "done":
        counters = msgspec.structs.replace(counters, skipped=min(counters.skipped, known))
    origins = _origins(store.nodes, state, facts.base_job, folded) if verdict.state == "done" else {}
    end = r.JobEnd(
        counters=counters,
        reason=verdict.reason,
        record=store.nodes.put(encode_body(_job_record(facts, folded, verdict, counters, origins))).hex(),
        packs=rows.segments if len(rows.segments) <= MAX_PACKS_IN_RECORD else (),
        index=rows.index,
        rows=rows.tree,
    )
    repo, branch = facts.spec.name, facts.spec.output_branch
    head = state.head(repo, branch) or ""
    records: tuple[r.Record, ...]
    commit_id = ""
    match verdict.state:
        case "done":
            tree = folded.out.root.hex()
            body = r.Commit(
                tree=tree,
                parents=(head,) if head else (),
                message=f"job {facts.job[:6]}: {counters.run} run, {counters.skipped} skipped",
                author=actor_name(),
                time=utc_now(),
                job=facts.job,
                files=len(folded.out),
                size=folded.context.size,
                failed=folded.context.f,
            )
            commit_id = store.nodes.put(encode_body(body)).hex()
            records = (
                r.JobDone(job=facts.job, epoch=epoch, key=facts.key, context=folded.context, commit=commit_id, end=end),
                r.CommitMade(
                    repo=repo,
                    id=commit_id,
                    tree=tree,
                    files=body.files,
                    size=body.size,
                    job=facts.job,
                    packs=written.packs,
                    index=written.index,
                ),
                r.RefSet(repo=repo, branch=branch, old=head, new=commit_id),
            )
        case "failed":
            records = (r.JobFailed(job=facts.job, epoch=epoch, key=facts.key, context=folded.context, end=end),)
        case _:
            records = (r.JobStopped(job=facts.job, epoch=epoch, key=facts.key, context=folded.context, end=end),)
    traffic = facts.traffic or Traffic()
    report = JobEnded(
        job=facts.job,
        run=facts.run,
        pipeline=repo,
        state=verdict.state,
        counters=counters,
        seconds=time.monotonic() - facts.began,
        commit=commit_id,
        head=commit_id or head,
        reason=verdict.reason,
        failures=folded.failures,
        from_store=traffic.from_store,
        from_peers=traffic.from_peers,
    )
    return Ending(records, report, (*sync, *rows.sync))


def unrunnable(state: State, run: str, skip: SkipJob, bindings: Mapping[str, r.InputBinding], *, epoch: int) -> Ending:
    """End a job that cannot run, since one above it failed."""
    record = r.JobUnrunnable(
        job=skip.job,
        run=run,
        pipeline=skip.pipeline,
        version=skip.version,
        epoch=epoch,
        inputs=tuple(bindings.values()),
        because=skip.because,
    )
    above = state.job(skip.because)
    report = JobEnded(
        job=skip.job,
        run=run,
        pipeline=skip.pipeline,
        state="unrunnable",
        counters=r.Counters(),
        seconds=0.0,
        head=state.output(skip.pipeline) or "",
        reason=f"{above.pipeline if above else 'an input'} failed in job {skip.because[:6]}",
    )
    return Ending((record,), report)


def refused(
    state: State,
    run: str,
    start: StartJob,
    spec: PipelineSpec,
    bindings: Mapping[str, r.InputBinding],
    error: DmlpipeError,
    *,
    epoch: int,
) -> Ending:
    """End a job that cannot be planned as failed."""
    key = job_context(spec, bindings).hex()
    head = state.output(start.pipeline) or ""
    begun = r.JobStart(
        job=start.job,
        run=run,
        pipeline=start.pipeline,
        version=start.version,
        epoch=epoch,
        context=key,
        inputs=tuple(bindings.values()),
        base=head,
    )
    failed = r.JobFailed(
        job=start.job,
        epoch=epoch,
        key=key,
        context=state.context(key) or r.Context(inputs={}, order=()),
        end=r.JobEnd(reason=error.message),
    )
    report = JobEnded(
        job=start.job,
        run=run,
        pipeline=start.pipeline,
        state="failed",
        counters=r.Counters(),
        seconds=0.0,
        head=head,
        reason=error.message,
    )
    return Ending((begun, failed), report)


def _job_record(
    facts: JobFacts, folded: Folded, verdict: Verdict, counters: r.Counters, origins: dict[str, int]
) -> r.JobRecord:
    spec = facts.spec
    return r.JobRecord(
        id=facts.job,
        run=facts.run,
        pipeline=spec.name,
        version=facts.version,
        spec=facts.spec_node,
        code_id=spec.code_id,
        bundle=spec.bundle,
        context=facts.key,
        parameters=spec.parameters,
        env={**facts.versions, "declared": spec.env} if spec.env else dict(facts.versions),
        inputs=facts.bindings,
        base_job=facts.base_job,
        state=verdict.state,
        counters=counters,
        t=folded.context.t,
        p=folded.context.p,
        out=folded.context.out,
        origins=origins,
        started=facts.started,
        ended=utc_now(),
        host=facts.host,
        failures=tuple(_plain_group(group) for group in folded.failures),
        traffic={} if facts.traffic is None else dataclasses.asdict(facts.traffic),
    )


def _origins(nodes: NodeStore, state: State, base_job: str, folded: Folded) -> dict[str, int]:
    """Live datums by the job that computed them: those of the context's last job, and what changed since."""
    last = state.job(base_job) if base_job else None
    counts = dict(read_job(nodes, last.end.record).origins) if last is not None else {}
    for job, change in folded.origins.items():
        counts[job] = counts.get(job, 0) + change
    return {job: count for job, count in sorted(counts.items()) if count > 0}


def _plain_group(group: FailureGroup) -> dict[str, Any]:
    return {
        "cause": f"{group.failure.kind}: {group.failure.message}".splitlines()[0],
        "count": group.count,
        "datum": group.datum,
        "path": group.path,
        "where": group.failure.where,
        "line": group.failure.line,
        "traceback": group.failure.traceback,
    }
