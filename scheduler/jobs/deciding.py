"""What can be decided now: runs that begin and end, jobs that begin, are resumed, end or cannot run.

Everything is decided on a draft, which one entry then makes true, or which is thrown away. Of a job that begins, the
plan is read until it is known whether anything has to run; what is stored by that is content alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...storage import records as r
from ...storage.errors import ConflictError, InvalidInputError, NotFoundError
from ...storage.state import State
from ...storage.store import Store
from ..pipelines.spec import PipelineSpec
from ..planning.reasons import explain
from ..report import PipelineHeld, RunBegan, RunEnded
from .bindings import bind_inputs
from .draft import Draft
from .ending import Ending, refused, unrunnable
from .jobrun import JobRun
from .own_epoch import OwnEpoch
from .recorded_specs import RecordedSpecs
from .runs import (
    RunStep,
    StartJob,
    describe_cause,
    next_step,
    plan_run,
    topological,
    without_data,
    working,
)

__all__ = ["Decider", "Decision", "why_stop"]


class Decision(NamedTuple):
    """What becomes true with a draft."""

    endings: list[Ending]
    """Of jobs."""
    prepared: dict[str, JobRun]
    """Jobs that go to the executor then, by id."""


class Decider:
    """Decides for one controller.

    Parameters
    ----------
    epoch
        The controller's.
    specs
        The versions that the ledger names.
    ends
        Whether the controller gives up its epoch when nothing is left to do.
    targets
        Pipelines to bring up to date with what they need; empty: all.
    """

    def __init__(
        self, store: Store, epoch: OwnEpoch, specs: RecordedSpecs, *, ends: bool, targets: Sequence[str]
    ) -> None:
        self.store = store
        self._epoch = epoch
        self._specs = specs
        self._ends = ends
        self._targets = tuple(targets)
        self._held_told: set[tuple[str, int]] = set()
        self._run_began: dict[str, float] = {}
        self.no_data: dict[str, str] = {}
        """Pipelines that wait for a first commit, and of what repo."""

    def run_began(self, run: str) -> None:
        """The entry that begins a run stands."""
        self._run_began[run] = time.monotonic()

    def decide(self, draft: Draft, jobs: Mapping[str, JobRun]) -> Decision:
        """Add to a draft everything that can be decided.

        Parameters
        ----------
        jobs
            That are under way, by id.
        """
        endings: list[Ending] = []
        prepared: dict[str, JobRun] = {}
        ended: set[str] = set()
        taken_epoch = False
        while True:
            pipelines = working(draft.state)
            current = draft.state.open_run()
            if current is None:
                if draft.unnamed_causes:
                    # A branch followed what a job publishes here: the run that this causes is named after the entry.
                    break
                begun = plan_run(draft.state, pipelines, targets=self._targets)
                if begun is None:
                    self.no_data = {**without_data(draft.state, pipelines, targets=self._targets)}
                    break
                run, pinned, step = begun
                if self._epoch.number is None and not taken_epoch:
                    draft.add(self._epoch.record(draft.state))
                    taken_epoch = True
                causes = list(draft.state.causes(pinned.last))
                draft.add(
                    r.RunStart(
                        run=run,
                        epoch=self._epoch.of(draft.state),
                        first=pinned.first,
                        last=pinned.last,
                        view=pinned.view,
                        versions=pinned.versions,
                    )
                )
                due = {job.pipeline for job in step.start} | set(step.waiting)
                draft.reports.append(
                    RunBegan(
                        run=run,
                        causes=tuple(dict.fromkeys(describe_cause(cause) for cause in causes)),
                        pipelines=tuple(name for name in topological(pipelines) if name in due),
                    )
                )
                continue
            run, pinned = current
            if self._epoch.number is None and not taken_epoch:
                draft.add(self._epoch.record(draft.state))
                taken_epoch = True
            before = len(draft.records)
            ends = self._end_finished(draft, jobs, ended)
            endings += ends
            step = next_step(draft.state, run, pinned, pipelines, targets=self._targets)
            endings += self._record_skips(draft, run, step, pipelines)
            for start in step.start:
                try:
                    job = self._prepare(draft, run, start, pipelines)
                except (InvalidInputError, NotFoundError) as error:
                    # Its inputs are not what it declares (no array where one should be): its fault, not the run's.
                    spec, bindings = self._bound(draft.state, start, pipelines)
                    ending = refused(draft.state, run, start, spec, bindings, error, epoch=self._epoch.of(draft.state))
                    self._record_end(draft, ending)
                    endings.append(ending)
                    continue
                draft.add(job.start_record(self._epoch.of(draft.state), draft.state.output(start.pipeline) or ""))
                draft.reports.append(job.planned())
                if job.needs_executor:
                    prepared[start.job] = job
                else:
                    ending = job.finish(draft.state, self._epoch.of(draft.state))
                    self._record_end(draft, ending)
                    endings.append(ending)
            for name in step.running:
                if name not in jobs and name not in prepared and name not in ended:
                    job = self._resume(draft, name)
                    if job.needs_executor:
                        prepared[name] = job
                    else:
                        ending = job.finish(draft.state, self._epoch.of(draft.state))
                        self._record_end(draft, ending)
                        endings.append(ending)
                        ended.add(name)
            self._tell_held(draft, step)
            if step.done:
                draft.add(r.RunDone(run=run, epoch=self._epoch.of(draft.state)))
                draft.reports.append(self._run_ended(draft.state, run))
                continue
            if len(draft.records) == before:
                break
        if self._ends and draft.records and draft.state.open_run() is None and not draft.unnamed_causes:
            draft.add(r.ControllerEnd(epoch=self._epoch.of(draft.state)))
        return Decision(endings, prepared)

    def _end_finished(self, draft: Draft, jobs: Mapping[str, JobRun], ended: set[str]) -> list[Ending]:
        endings = []
        for name, job in jobs.items():
            if job.finished and name not in ended:
                ending = job.finish(draft.state, self._epoch.of(draft.state))
                self._record_end(draft, ending)
                endings.append(ending)
                ended.add(name)
        return endings

    def _record_end(self, draft: Draft, ending: Ending) -> None:
        draft.add(*ending.records)
        draft.reports.append(ending.report)

    def _record_skips(
        self, draft: Draft, run: str, step: RunStep, pipelines: Mapping[str, r.PipelineState]
    ) -> list[Ending]:
        endings = []
        for skip in step.skip:
            spec = self._specs.spec(draft.state, skip.pipeline, skip.version)
            heads = {branch: commit for branch, commit in skip.heads.items() if commit}
            bindings = bind_inputs(draft.state, spec, heads, self._specs.single(draft.state, pipelines), partial=True)
            ending = unrunnable(draft.state, run, skip, bindings, epoch=self._epoch.of(draft.state))
            self._record_end(draft, ending)
            endings.append(ending)
        return endings

    def _bound(
        self, state: State, start: StartJob, pipelines: Mapping[str, r.PipelineState]
    ) -> tuple[PipelineSpec, dict[str, r.InputBinding]]:
        spec = self._specs.spec(state, start.pipeline, start.version)
        return spec, bind_inputs(state, spec, start.heads, self._specs.single(state, pipelines))

    def _prepare(self, draft: Draft, run: str, start: StartJob, pipelines: Mapping[str, r.PipelineState]) -> JobRun:
        spec, bindings = self._bound(draft.state, start, pipelines)
        return JobRun(
            self.store,
            job=start.job,
            run=run,
            spec=spec,
            version=start.version,
            spec_node=self._specs.node(draft.state, start.pipeline, start.version),
            bindings=bindings,
            state=draft.state,
            due=start.why,
            reasons=explain(spec, bindings, self._specs.previous(draft.state, start.pipeline)),
        )

    def _resume(self, draft: Draft, name: str) -> JobRun:
        known = draft.state.job(name)
        if known is None:
            raise ConflictError(f"job {name} vanished from the ledger")
        spec = self._specs.spec(draft.state, known.pipeline, known.version)
        job = JobRun(
            self.store,
            job=name,
            run=known.run,
            spec=spec,
            version=known.version,
            spec_node=self._specs.node(draft.state, known.pipeline, known.version),
            bindings={bound.name: bound for bound in known.inputs},
            state=draft.state,
            due=("resumed",),
            resume=True,
        )
        draft.reports.append(job.planned())
        return job

    def _run_ended(self, state: State, run: str) -> RunEnded:
        taken = state.run(run)
        ok = taken is None or all((job := state.job(name)) is not None and job.state == "done" for name in taken.jobs)
        return RunEnded(run=run, ok=ok, seconds=time.monotonic() - self._run_began.get(run, time.monotonic()))

    def _tell_held(self, draft: Draft, step: RunStep) -> None:
        for name in step.held:
            pipeline = draft.state.pipeline(name)
            if pipeline is None or pipeline.hold is None or (name, draft.state.n) in self._held_told:
                continue
            self._held_told.add((name, draft.state.n))
            draft.reports.append(PipelineHeld(pipeline=name, commit=pipeline.hold.commit, by="", why=pipeline.hold.why))


def why_stop(state: State, job: JobRun, now: float) -> str | None:
    """Say why a job under way is to stop: somebody asked, its pipeline changed or was held, its time is over.

    Parameters
    ----------
    now
        Of `time.monotonic`.
    """
    known = state.job(job.job)
    pipeline = state.pipeline(job.spec.name)
    if known is not None and known.stop is not None:
        return known.stop or "stopped by hand"
    if pipeline is None:
        return "its pipeline was deleted"
    if pipeline.version != job.version:
        return f"its pipeline was updated to version {pipeline.version}"
    if pipeline.hold is not None:
        return "its pipeline was reverted and is held"
    if pipeline.stopped:
        return "its pipeline was stopped"
    if job.is_late(now):
        return f"job_timeout of {job.spec.options.job_timeout_s:g} s is over"
    return None
