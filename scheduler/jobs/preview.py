"""What a run would do now, and why, pipeline by pipeline: reads, never writes.

A pipeline below one that would run cannot be planned exactly, since its input is not made yet: it says what would
happen if that output changes.
"""

from __future__ import annotations

import dataclasses
import datetime
import html
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ...storage.digest import from_hex
from ...storage.objects.value import decode_value
from ...storage.records import InputBinding, PipelineState
from ...storage.state import State
from ...storage.store import Store
from ..inputs.expression import Array, Files
from ..inputs.walk import leaves
from ..pipelines.spec import PipelineSpec, decode_pipeline, identity, upstream
from ..pipelines.topology import topological_order
from ..planning.plan import job_context, plan_job
from ..planning.reasons import Why, explain
from ..planning.summary import PlanSummary, summarize
from .bindings import bind_inputs, is_single
from .runs import commits_ahead, wants_retry, why_due, working
from .ticks import count_due

_JOBS_TIMED = 8
"""Recent jobs that an estimate looks at."""


@dataclasses.dataclass(frozen=True, slots=True)
class PipelinePlan:
    """What would happen to one pipeline.

    Attributes
    ----------
    status
        `up to date`, `would run`, `would reuse` (a job with nothing to compute), `if` (depends on `if_upstream`),
        `waits for data`, `held`, `stopped`.
    change
        Against what is recorded: `new`, `changed`, `cosmetic`, or empty.
    total, run, skipped, removed
        Datums. Of a plan that depends on another's output, as if every input it reads from there were new.
    reasons
        (reason, datums, example), most datums first.
    jobs
        How many there would be: of a pipeline that has one for every commit, one for each that waits. Numbers of datums
        are those of the newest commit.
    seconds
        Estimate from the rate of the last job that computed something; None: unknown.
    """

    name: str
    status: str
    change: str = ""
    total: int = 0
    run: int = 0
    skipped: int = 0
    removed: int = 0
    reasons: tuple[tuple[str, int, str], ...] = ()
    if_upstream: str = ""
    detail: str = ""
    notices: tuple[str, ...] = ()
    seconds: float | None = None
    jobs: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain["reasons"] = [
            {"reason": reason, "count": count, "example": example} for reason, count, example in self.reasons
        ]
        plain["notices"] = list(self.notices)
        return plain


@dataclasses.dataclass(frozen=True, slots=True)
class Plans:
    """What a run would do."""

    pipelines: tuple[PipelinePlan, ...]

    @property
    def would_run(self) -> bool:
        """Whether any pipeline would start a job."""
        return any(plan.status in ("would run", "would reuse", "if") for plan in self.pipelines)

    def __getitem__(self, name: str) -> PipelinePlan:
        for plan in self.pipelines:
            if plan.name == name:
                return plan
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        return {"would_run": self.would_run, "pipelines": [plan.to_dict() for plan in self.pipelines]}

    def _repr_html_(self) -> str:
        rows = []
        for plan in self.pipelines:
            why = "; ".join(f"{reason} ({count:,})" for reason, count, _ in plan.reasons) or plan.detail
            numbers = f"{plan.run:,} of {plan.total:,} run" if plan.total else ""
            cells = (plan.name, plan.status, numbers, (plan.if_upstream and f"if {plan.if_upstream} changes") or why)
            rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
        return (
            "<table><tr><th>pipeline</th><th>status</th><th>datums</th><th>why</th></tr>" + "".join(rows) + "</table>"
        )


def preview(
    store: Store,
    state: State,
    given: Sequence[PipelineSpec] = (),
    *,
    only: Sequence[str] = (),
    notices: Mapping[str, Sequence[str]] | None = None,
) -> Plans:
    """Plan every pipeline as a run would now.

    Parameters
    ----------
    given
        Specs that were not recorded (an edited file): they replace the recorded ones of their names.
    only
        Names to report; empty: all (of `given`, if there are any, and what reads them).
    notices
        What building `given` had to say.
    """
    recorded = dict(state.pipelines())
    specs = {name: _recorded_spec(store, state, name, pipeline.version) for name, pipeline in recorded.items()}
    changes = {spec.name: _change(spec, recorded.get(spec.name), specs.get(spec.name)) for spec in given}
    specs |= {spec.name: spec for spec in given}
    above = upstream([spec for _, spec in sorted(specs.items())])
    single = {name: is_single(spec) for name, spec in specs.items()}
    plans: dict[str, PipelinePlan] = {}
    for name in topological_order(above):
        standing = specs[name].standing
        if standing is None:
            plan = _plan_one(store, state, specs[name], recorded.get(name), plans, above[name], single)
        else:
            plan = PipelinePlan(name, "up to date", detail=f"a {standing.kind}: dmlpipe up keeps it running")
        if name in changes:
            plan = dataclasses.replace(plan, change=changes[name])
        told = (notices or {}).get(name, ())
        claim = specs[name].claim
        if claim is not None:
            told = (*told, f"its code is the {claim}")
        if told:
            plan = dataclasses.replace(plan, notices=tuple(told))
        plans[name] = plan
    shown = set(only) or set(plans)
    return Plans(tuple(plan for name, plan in plans.items() if name in shown))


def _recorded_spec(store: Store, state: State, name: str, version: int) -> PipelineSpec:
    known = state.version(name, version)
    if known is None:
        raise KeyError(f"{name} v{version}")
    return decode_pipeline(store.nodes.get(from_hex(known.spec)))


def _change(spec: PipelineSpec, recorded: PipelineState | None, old: PipelineSpec | None) -> str:
    if recorded is None or old is None:
        return "new"
    if identity(spec) != recorded.identity:
        return "changed"
    return "" if spec.bundle == old.bundle and spec.options == old.options else "cosmetic"


def _plan_one(
    store: Store,
    state: State,
    spec: PipelineSpec,
    recorded: PipelineState | None,
    plans: Mapping[str, PipelinePlan],
    above: Sequence[str],
    single: Mapping[str, bool],
) -> PipelinePlan:
    name = spec.name
    if recorded is not None and recorded.stopped:
        return PipelinePlan(name, "stopped", detail="start it: dmlpipe pipeline start " + name)
    heads = {
        f"{leaf.repo}@{leaf.branch}": state.head(leaf.repo, leaf.branch) or ""
        for leaf in leaves(spec.input)
        if isinstance(leaf, Files | Array)
    }
    ticks = count_due(state, name, store.now()) if recorded is not None else 0
    unsure = [repo for repo in above if plans[repo].status in ("would run", "if")]
    missing = [branch for branch, commit in heads.items() if not commit]
    if unsure and any(branch.rpartition("@")[0] in unsure for branch in missing):
        return PipelinePlan(name, "if", if_upstream=", ".join(unsure), detail="runs when its inputs exist")
    if ticks and recorded is not None and recorded.hold is None:
        detail = f"{ticks:,} tick{'s' if ticks > 1 else ''} due"
        return PipelinePlan(name, "would run", total=ticks, run=ticks, reasons=((detail, ticks, ""),))
    if missing:
        wait = missing[0].removesuffix("@master")
        return PipelinePlan(name, "waits for data", detail=f"no commit in {wait}")
    due: tuple[str, ...] = ("first run",)
    if recorded is not None:
        pending = recorded if identity(spec) == recorded.identity else None
        due = why_due(state, name, recorded, recorded.version, heads) if pending is not None else ("pipeline changed",)
        if not due and wants_retry(recorded):
            due = ("tried again",)
    if recorded is not None and recorded.hold is not None:
        at = recorded.hold.commit[:6]
        behind = f", {len(due)} input{'s' if len(due) > 1 else ''} changed since" if due else ""
        return PipelinePlan(name, "held", detail=f"held at {at}{behind}: {recorded.hold.why}".rstrip(": "))
    if not due and not unsure:
        return PipelinePlan(name, "up to date", detail="nothing to do")
    bindings = bind_inputs(state, spec, heads, single)
    previous = _previous(store, state, recorded)
    why = explain(spec, bindings, previous) if due else []
    summary = _summary(store, state, spec, bindings, why)
    if unsure:
        return PipelinePlan(
            name,
            "if",
            total=summary.total,
            run=summary.total,
            if_upstream=", ".join(unsure),
            seconds=_estimate(state, recorded, summary.total),
        )
    return PipelinePlan(
        name,
        "would run" if summary.run else "would reuse",
        total=summary.total,
        run=summary.run,
        skipped=summary.skipped,
        removed=summary.removed,
        reasons=tuple((str(line), line.count, line.example) for line in summary.reasons),
        detail="" if summary.run else "every result is known",
        seconds=_estimate(state, recorded, summary.run),
        jobs=_jobs(state, spec, recorded),
    )


def _jobs(state: State, spec: PipelineSpec, recorded: PipelineState | None) -> int:
    """How many jobs the commits that wait would make; a version that is not recorded begins with the newest."""
    if recorded is None or not recorded.every_commit or identity(spec) != recorded.identity:
        return 1
    return max(1, commits_ahead(state, working(state), spec.name))


def _summary(
    store: Store, state: State, spec: PipelineSpec, bindings: Mapping[str, InputBinding], why: Sequence[Why]
) -> PlanSummary:
    context = state.context(job_context(spec, bindings).hex())
    plan = plan_job(
        spec,
        bindings,
        context,
        store.tree,
        read=lambda value: store.objects.read(decode_value(value)),
        why=why,
    )
    return summarize(plan, spec.name)


def _previous(
    store: Store, state: State, recorded: PipelineState | None
) -> tuple[PipelineSpec, tuple[InputBinding, ...]] | None:
    job = state.job(recorded.last_job) if recorded is not None and recorded.last_job else None
    return None if job is None else (_recorded_spec(store, state, job.pipeline, job.version), job.inputs)


def _estimate(state: State, recorded: PipelineState | None, datums: int) -> float | None:
    """Seconds by the rate of the recent job that computed most: a job of ten datums is mostly start-up."""
    if recorded is None or not recorded.last_job or not datums:
        return None
    last = state.job(recorded.last_job)
    if last is None:
        return None
    recent = [job for _, job in itertools.islice(state.jobs(last.pipeline), _JOBS_TIMED)]
    timed = max((job for job in recent if job.ended), key=lambda job: job.end.counters.run, default=None)
    if timed is None or not timed.end.counters.run:
        return None
    took = _moment(timed.ended) - _moment(timed.started)
    return took.total_seconds() / timed.end.counters.run * datums


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)
