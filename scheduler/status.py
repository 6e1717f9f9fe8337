"""Where every pipeline stands: a reading of the folded ledger."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..storage import records as r
from ..storage.state import State
from ..storage.store import Store
from .jobs.runs import publishes, source_view, topological, why_due
from .report import PipelineStatus, StoreStatus

if TYPE_CHECKING:
    from .cluster.standing import Stood

SHOWN_DIGITS = 6


def store_status(store: Store) -> StoreStatus:
    """Read the ledger and say where everything stands."""
    state = store.refresh()
    pipelines = dict(state.pipelines())
    found: dict[str, PipelineStatus] = {}
    standing = _standing(store) if any(pipeline.standing for pipeline in pipelines.values()) else {}
    for name in topological(pipelines):
        found[name] = _pipeline_status(state, name, pipelines, found, standing)
    run = state.open_run()
    if any(each.state == "running" for each in found.values()):
        found = _with_progress(store, state, found)
    return StoreStatus(
        url=store.url,
        entries=state.n + 1,
        controller=_controller(store, state),
        run=run[0] if run else "",
        pipelines=tuple(found.values()),
        cluster=_cluster(store),
    )


def _pipeline_status(
    state: State,
    name: str,
    pipelines: Mapping[str, r.PipelineState],
    above: Mapping[str, PipelineStatus],
    standing: Mapping[str, Stood],
) -> PipelineStatus:
    pipeline = pipelines[name]
    head = state.output(name) or ""
    known = state.commit(name, head) if head else None
    if pipeline.standing:
        return PipelineStatus(
            name=name,
            version=pipeline.version,
            state="stopped" if pipeline.stopped else "stands" if name in standing else "waits for up",
            head=head,
            files=known.files if known else 0,
            detail=_stands(pipeline, standing.get(name)),
        )
    job = state.job(pipeline.last_job) if pipeline.last_job else None
    running = next((job_id for job_id, found in state.jobs(name) if found.state == "running"), "")
    view = source_view(state, pipelines)
    heads = {
        f"{repo}@{branch}": (
            state.head(repo, branch) or "" if publishes(pipelines, repo, branch) else view.get(f"{repo}@{branch}", "")
        )
        for repo, branch in pipeline.inputs
    }
    missing = [branch.removesuffix("@master") for branch, commit in heads.items() if not commit]
    due = why_due(state, name, pipeline, pipeline.version, heads)
    status, detail = "idle", ""
    if running:
        status = "running"
    elif pipeline.stopped:
        status = "stopped"
    elif pipeline.hold is not None:
        status, detail = "held", _held(state, name, pipeline, due)
    elif missing:
        status, detail = "waits for data", f"no commit in {', '.join(missing)}"
    elif pipeline.last_state == "failed" and not due:
        status = "failed"
        detail = f"job {pipeline.last_job[:SHOWN_DIGITS]}: {job.end.reason}" if job else ""
    elif pipeline.last_state == "unrunnable" and job is not None and not due:
        cause = state.job(job.because)
        status = "behind"
        detail = f"{cause.pipeline if cause else 'an input'} failed in job {job.because[:SHOWN_DIGITS]}"
    elif due:
        status, detail = "due", ", ".join(due)
    elif any(above[repo].state in ("failed", "behind") for repo, _ in pipeline.inputs if repo in above):
        worst = next(repo for repo, _ in pipeline.inputs if repo in above and above[repo].state in ("failed", "behind"))
        status, detail = "behind", f"{worst} failed in job {pipelines[worst].last_job[:SHOWN_DIGITS]}"
    return PipelineStatus(
        name=name,
        version=pipeline.version,
        state=status,
        head=head,
        files=known.files if known else 0,
        job=running or pipeline.last_job,
        counters=job.end.counters if job else None,
        detail=detail,
        ended=job.ended if job else "",
    )


def _with_progress(store: Store, state: State, found: Mapping[str, PipelineStatus]) -> dict[str, PipelineStatus]:
    from .jobs.epoch import progress_of

    holder = state.controller()
    told = progress_of(store.backend, holder.epoch) if holder is not None and not holder.ended else {}
    return {name: dataclasses.replace(each, progress=told.get(each.job)) for name, each in found.items()}


def _standing(store: Store) -> Mapping[str, Stood]:
    from .cluster.standing import read_standing

    return read_standing(store.cache_dir, store.repo_id)


def _stands(pipeline: r.PipelineState, process: Stood | None) -> str:
    if process is None:
        return pipeline.standing if pipeline.stopped else f"a {pipeline.standing}: dmlpipe up keeps it running"
    again = f", started again {process.restarts} times" if process.restarts else ""
    return f"{pipeline.standing}, pid {process.pid}{again}; log: {process.log}"


def _held(state: State, name: str, pipeline: r.PipelineState, due: tuple[str, ...]) -> str:
    hold = pipeline.hold
    assert hold is not None
    newer = 0
    for head in state.history(name, pipeline.branch):
        if head.commit == hold.commit and head.n < pipeline.hold_n:
            break
        if head.n < pipeline.hold_n:
            newer += 1
    text = f"at {hold.commit[:SHOWN_DIGITS]}"
    if newer:
        text += f", {newer} newer commit{'s' if newer > 1 else ''} set aside"
    if hold.why:
        text += f": {hold.why}"
    if due:
        text += f" ({', '.join(due)} since)"
    return text


def _controller(store: Store, state: State) -> str:
    from .jobs.epoch import is_alive

    holder = state.controller()
    if holder is None or holder.ended:
        return "none"
    alive = is_alive(holder, store.backend, silence_s=0.0)
    if not alive:
        return "none (the last one ended without a word; the next run resumes)"
    return f"{holder.kind} on {holder.host} (pid {holder.pid})"


def _cluster(store: Store) -> dict[str, object]:
    if not store.backend.properties.shared:
        return {}
    from .cluster.daemon import status as cluster_status

    found = cluster_status(store.cache_dir, store.repo_id)
    if found is None:
        return {}
    return {
        "address": found.address,
        "slots": found.slots,
        "since": found.since,
        "logs": found.folder,
        "processes": {name: process.pid for name, process in found.processes.items()},
    }
