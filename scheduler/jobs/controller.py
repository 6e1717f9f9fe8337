"""The controller: follows the ledger, plans, offers datums, records what became of them.

One class serves `run` (ends when nothing is left to do) and `up` (goes on). Rules:

1. What can be decided now is decided on a draft of the state and recorded in one entry (`_settle`). If another writer
   was faster, the draft is thrown away and made again on the newer state; results are not lost by that.
2. Datums are offered only after the entry that begins their job.
3. Every record carries the controller's epoch; losing the epoch ends the controller (`HeldError`).
4. The executor is made when the first datum has to be computed, not before.
5. A controller that ends in the middle leaves `job.start` open; the next one resumes the job from its segments.
6. Ticks are made before anything is decided: `run` makes those that are due when it begins, `up` as they come.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from ...storage import records as r
from ...storage.digest import from_hex
from ...storage.errors import ConflictError, DmlpipeError, ErrorCode, HeldError, InvalidInputError, NotFoundError
from ...storage.state import State
from ...storage.store import Store
from ..egress.sending import Egresses
from ..errors import ClusterError
from ..leases.executor import (
    DatumLost,
    Executor,
    ExecutorFailed,
    JobFinished,
    JobStuck,
    Progressed,
    SegmentStored,
    WorkerRefused,
    WorkersChanged,
)
from ..pipelines.spec import PipelineSpec, decode_pipeline
from ..planning.plan import job_context
from ..planning.reasons import explain
from ..report import (
    ClusterChanged,
    JobAdvanced,
    JobEnded,
    Notice,
    Observer,
    PipelineHeld,
    Report,
    RunBegan,
    RunEnded,
    RunSummary,
    ignore,
)
from .bindings import bind_inputs, is_single
from .ending import Ending
from .epoch import Heartbeat, is_alive, take
from .jobrun import JobRun
from .runs import (
    RunStep,
    StartJob,
    describe_cause,
    next_step,
    plan_run,
    topological,
    wants_retry,
    without_data,
    working,
)
from .ticks import due_ticks, make_tick, make_trigger_ticks, trigger_ticks

logger = logging.getLogger(__name__)

_POLL_S = 0.1
_LOOK_LOCAL_S = 0.25
_LOOK_REMOTE_S = 2.0
_REPORT_EVERY_S = 0.1
_IDLE_WAIT_S = 1.0
_MAX_REDO = 50
_INTERRUPT_S = 5.0
_PATIENCE_S = 300.0
"""How long a store may be away before a controller that has jobs under way gives up."""


class _Draft:
    """The state as it will be, and the records that make it so."""

    def __init__(self, state: State, swept: int) -> None:
        self.swept = swept
        """Version of the registry of sweeps: what was looked at since is relied on."""
        self.state = state.fork()
        self.records: list[r.Record] = []
        self.reports: list[Report] = []
        self._n = state.n + 1

    @property
    def unnamed_causes(self) -> bool:
        """Whether what was added is a cause, which has no hash before its entry stands."""
        return next(self.state.scan(f"cause/{self._n:012d}/".encode()), None) is not None

    def add(self, *records: r.Record) -> None:
        """Apply records as if they stood in the entry that is being made."""
        self.state.check_more(records, n=self._n)
        self.records.extend(records)


class Controller:
    """Drives the pipelines of one store.

    Parameters
    ----------
    store
        The store.
    make_executor
        Makes what computes datums, when first needed.
    observer
        Is told what happens, from the thread that runs the controller.
    kind
        `run` or `up`, as the ledger records it.
    targets
        Pipelines to bring up to date with what they need; empty: all.
    """

    def __init__(
        self,
        store: Store,
        make_executor: Callable[[], Executor],
        *,
        observer: Observer = ignore,
        kind: str = "run",
        targets: Sequence[str] = (),
    ) -> None:
        self.store = store
        self._make_executor = make_executor
        self._executor: Executor | None = None
        self._observer = observer
        self._kind = kind
        self._targets = tuple(targets)
        self._epoch: int | None = None
        self._heartbeat: Heartbeat | None = None
        self._jobs: dict[str, JobRun] = {}
        self._specs: dict[str, PipelineSpec] = {}
        self._ended: list[JobEnded] = []
        self._runs: list[str] = []
        self._run_began: dict[str, float] = {}
        self._held_told: set[tuple[str, int]] = set()
        self._no_data: dict[str, str] = {}
        self._last_report: dict[str, float] = {}
        self._advanced: dict[str, JobAdvanced] = {}
        self._stop = threading.Event()
        self._egresses = Egresses(
            store,
            lambda name, version: self._spec(store.state, name, version),
            lambda text: self._tell(Notice(text=text)),
            once=kind == "run",
        )

    # --- the two ways of working -------------------------------------------------------------------------------------

    def run(self) -> RunSummary:
        """Work until nothing is left to do, and return what was done.

        Raises
        ------
        HeldError
            Another controller drives the store.
        ClusterError
            The executor cannot go on. Finished results are kept; the next run resumes.
        """
        began = time.monotonic()
        now = self.store.now()
        try:
            self._retry_failed()
            self._tick(now)
            while True:
                self._settle()
                if self._jobs:
                    self._egresses.tend(self.store.state)
                    self._work_once()
                elif not self._egresses.tend(self.store.refresh(), wait_s=_POLL_S) and not self._tick(now):
                    break
            return RunSummary(
                runs=tuple(self._runs),
                jobs=tuple(self._ended),
                waiting=dict(self._no_data),
                egress_failures=dict(self._egresses.failures),
                seconds=time.monotonic() - began,
            )
        except KeyboardInterrupt:
            self._interrupt()
            raise
        finally:
            self._close()

    def serve(self) -> None:
        """Follow the store until `stop`; a cluster that fails is waited for.

        Raises
        ------
        HeldError
            Another controller drives the store, or took over.
        """
        try:
            self._take_up()
            while not self._stop.is_set():
                try:
                    self._settle()
                    sending = self._egresses.tend(self.store.state)
                    if self._jobs:
                        self._work_once()
                    elif sending:
                        self._stop.wait(_POLL_S)
                    elif not self._tick(self.store.now()):
                        self.store.ledger.wait(self.store.state.n, _IDLE_WAIT_S)
                except ClusterError as error:
                    self._tell(Notice(text=f"the cluster failed: {error}; its jobs are taken up again"))
                    logger.warning("cluster failed: %s", error)
                    self._drop_executor()
                    self._jobs.clear()
                    self._stop.wait(1.0)
        finally:
            self._close()

    def _take_up(self) -> None:
        """Take the epoch though nothing is due yet, so that a `run` finds that somebody serves the store."""
        while self._epoch is None and not self._stop.is_set():
            state = self.store.refresh()
            self._may_take(state)
            draft = _Draft(state, self.store.nodes.condemned.begin())
            draft.add(take(state.controller(), self._kind))
            try:
                self._append(draft, ())
            except ConflictError:
                continue

    def stop(self) -> None:
        """Let `serve` return soon. May be called from a signal handler or another thread."""
        self._stop.set()

    def _interrupt(self) -> None:
        """Have what is computed stored, and say how much is kept: the jobs stay open, the next run goes on."""
        executor = self._executor
        if executor is None:
            return
        for name in self._jobs:
            executor.cancel(name)
        until = time.monotonic() + _INTERRUPT_S
        while any(not job.finished for job in self._jobs.values()) and time.monotonic() < until:
            for event in executor.poll(_POLL_S):
                self._take_event(executor, event)
        for job in self._jobs.values():
            kept = job.kept_count()
            self._tell(
                Notice(
                    text=f"{job.spec.name}: {kept:,} of {job.plan.total:,} results are kept; the next run goes on there"
                )
            )

    def _tick(self, now: str) -> bool:
        """Make the ticks that are due by `now`, unless a run is under way; return whether there were any."""
        state = self.store.refresh()
        if self._jobs or state.open_run() is not None:
            return False
        due = list(due_ticks(state, now))
        if (due or trigger_ticks(state, now)) and self._epoch is None:
            self._may_take(state)
        made = [make_tick(self.store, tick) for tick in due]
        return any([*made, make_trigger_ticks(self.store, state, now)])

    # --- deciding -----------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Record everything that can be decided now, in as few entries as possible."""
        for _ in range(_MAX_REDO):
            state = self.store.refresh()
            self._check_epoch(state)
            self._heed_stops(state)
            draft = _Draft(state, self.store.nodes.condemned.begin())
            prepared: dict[str, JobRun] = {}
            endings = self._decide(draft, prepared)
            if draft.records and self._epoch is None and not self._may_take(state):
                return
            if draft.records:
                try:
                    self._append(draft, [key for ending in endings for key in ending.sync])
                except ConflictError:
                    # Somebody published meanwhile (or moved a branch that a job wanted): decide again on what is now.
                    continue
            for name, job in prepared.items():
                self._jobs[name] = job
            for ending in endings:
                self._jobs.pop(ending.report.job, None)
                self._ended.append(ending.report)
            for report in draft.reports:
                self._tell(report)
            self._begin_jobs()
            if not draft.unnamed_causes:
                return
        raise ConflictError("the ledger changes faster than this controller can decide")

    def _decide(self, draft: _Draft, prepared: dict[str, JobRun]) -> list[Ending]:
        endings: list[Ending] = []
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
                    self._no_data = {**without_data(draft.state, pipelines, targets=self._targets)}
                    break
                run, pinned, step = begun
                if self._epoch is None and not taken_epoch:
                    draft.add(take(draft.state.controller(), self._kind))
                    taken_epoch = True
                causes = list(draft.state.causes(pinned.last))
                draft.add(
                    r.RunStart(
                        run=run,
                        epoch=self._epoch_of(draft),
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
            if self._epoch is None and not taken_epoch:
                draft.add(take(draft.state.controller(), self._kind))
                taken_epoch = True
            before = len(draft.records)
            ends = self._end_finished(draft, ended)
            endings += ends
            step = next_step(draft.state, run, pinned, pipelines, targets=self._targets)
            self._record_skips(draft, run, step, pipelines, endings)
            for start in step.start:
                try:
                    job = self._prepare(draft, run, start, pipelines)
                except (InvalidInputError, NotFoundError) as error:
                    # Its inputs are not what it declares (no array where one should be): its fault, not the run's.
                    ending = self._refuse(draft, run, start, pipelines, error)
                    self._record_end(draft, ending)
                    endings.append(ending)
                    continue
                draft.add(job.start_record(self._epoch_of(draft), draft.state.output(start.pipeline) or ""))
                draft.reports.append(job.planned())
                if job.needs_executor:
                    prepared[start.job] = job
                else:
                    ending = job.finish(draft.state, self._epoch_of(draft))
                    self._record_end(draft, ending)
                    endings.append(ending)
            for name in step.running:
                if name not in self._jobs and name not in prepared and name not in ended:
                    job = self._resume(draft, name, pipelines)
                    if job.needs_executor:
                        prepared[name] = job
                    else:
                        ending = job.finish(draft.state, self._epoch_of(draft))
                        self._record_end(draft, ending)
                        endings.append(ending)
                        ended.add(name)
            self._tell_held(draft, step)
            if step.done:
                draft.add(r.RunDone(run=run, epoch=self._epoch_of(draft)))
                draft.reports.append(self._run_ended(draft.state, run))
                continue
            if len(draft.records) == before:
                break
        if self._kind == "run" and draft.records and draft.state.open_run() is None and not draft.unnamed_causes:
            draft.add(r.ControllerEnd(epoch=self._epoch_of(draft)))
        return endings

    def _end_finished(self, draft: _Draft, ended: set[str]) -> list[Ending]:
        endings = []
        for name, job in self._jobs.items():
            if job.finished and name not in ended:
                ending = job.finish(draft.state, self._epoch_of(draft))
                self._record_end(draft, ending)
                endings.append(ending)
                ended.add(name)
        return endings

    def _record_end(self, draft: _Draft, ending: Ending) -> None:
        draft.add(*ending.records)
        draft.reports.append(ending.report)

    def _record_skips(
        self,
        draft: _Draft,
        run: str,
        step: RunStep,
        pipelines: dict[str, r.PipelineState],
        endings: list[Ending],
    ) -> None:
        for skip in step.skip:
            spec = self._spec(draft.state, skip.pipeline, skip.version)
            single = self._single(draft.state, pipelines)
            heads = {branch: commit for branch, commit in skip.heads.items() if commit}
            bindings = bind_inputs(draft.state, spec, heads, single, partial=True)
            record = r.JobUnrunnable(
                job=skip.job,
                run=run,
                pipeline=skip.pipeline,
                version=skip.version,
                epoch=self._epoch_of(draft),
                inputs=tuple(bindings.values()),
                because=skip.because,
            )
            above = draft.state.job(skip.because)
            report = JobEnded(
                job=skip.job,
                run=run,
                pipeline=skip.pipeline,
                state="unrunnable",
                counters=r.Counters(),
                seconds=0.0,
                head=draft.state.output(skip.pipeline) or "",
                reason=f"{above.pipeline if above else 'an input'} failed in job {skip.because[:6]}",
            )
            ending = Ending((record,), report)
            self._record_end(draft, ending)
            endings.append(ending)

    def _prepare(self, draft: _Draft, run: str, start: StartJob, pipelines: dict[str, r.PipelineState]) -> JobRun:
        spec = self._spec(draft.state, start.pipeline, start.version)
        bindings = bind_inputs(draft.state, spec, start.heads, self._single(draft.state, pipelines))
        return JobRun(
            self.store,
            job=start.job,
            run=run,
            spec=spec,
            version=start.version,
            spec_node=self._spec_node(draft.state, start.pipeline, start.version),
            bindings=bindings,
            state=draft.state,
            due=start.why,
            reasons=explain(spec, bindings, self._previous(draft.state, start.pipeline)),
        )

    def _refuse(
        self,
        draft: _Draft,
        run: str,
        start: StartJob,
        pipelines: dict[str, r.PipelineState],
        error: DmlpipeError,
    ) -> Ending:
        """End a job that cannot be planned as failed."""
        spec = self._spec(draft.state, start.pipeline, start.version)
        bindings = bind_inputs(draft.state, spec, start.heads, self._single(draft.state, pipelines))
        key = job_context(spec, bindings).hex()
        head = draft.state.output(start.pipeline) or ""
        epoch = self._epoch_of(draft)
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
            context=draft.state.context(key) or r.Context(inputs={}, order=()),
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

    def _resume(self, draft: _Draft, name: str, pipelines: dict[str, r.PipelineState]) -> JobRun:
        known = draft.state.job(name)
        if known is None:
            raise ConflictError(f"job {name} vanished from the ledger")
        spec = self._spec(draft.state, known.pipeline, known.version)
        job = JobRun(
            self.store,
            job=name,
            run=known.run,
            spec=spec,
            version=known.version,
            spec_node=self._spec_node(draft.state, known.pipeline, known.version),
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

    def _tell_held(self, draft: _Draft, step: RunStep) -> None:
        for name in step.held:
            pipeline = draft.state.pipeline(name)
            if pipeline is None or pipeline.hold is None or (name, draft.state.n) in self._held_told:
                continue
            self._held_told.add((name, draft.state.n))
            draft.reports.append(PipelineHeld(pipeline=name, commit=pipeline.hold.commit, by="", why=pipeline.hold.why))

    # --- the ledger -----------------------------------------------------------------------------------------

    def _append(self, draft: _Draft, sync: Sequence[str]) -> None:
        records = tuple(draft.records)

        def build(state: State) -> Sequence[r.Record]:
            del state
            if self.store.nodes.condemned.version != draft.swept:
                raise ConflictError("a garbage collection was published meanwhile", code=ErrorCode.COLLECTED)
            return records

        self.store.publish(build, sync=lambda: [*self.store.nodes.take_written(), *sync])
        for record in records:
            if isinstance(record, r.ControllerTake):
                self._epoch = record.epoch
                self._heartbeat = Heartbeat(self.store.backend, record.epoch)
            elif isinstance(record, r.RunStart):
                self._runs.append(record.run)
                self._run_began[record.run] = time.monotonic()
            elif isinstance(record, r.ControllerEnd):
                self._let_go()
        for job in records:
            if isinstance(job, r.JobStart | r.JobUnrunnable) and job.run not in self._runs:
                self._runs.append(job.run)

    def _may_take(self, state: State) -> bool:
        holder = state.controller()
        if not is_alive(holder, self.store.backend):
            return True
        who = f"pid {holder.pid} on {holder.host}" if holder is not None else "another process"
        raise HeldError(
            f"{self.store.url} is driven by {'dmlpipe ' + holder.kind if holder else 'a controller'} ({who})",
            hint="wait for it: dmlpipe wait"
            if holder is None or holder.kind != "up"
            else "wait for it: dmlpipe wait, or end it: dmlpipe down",
        )

    def _check_epoch(self, state: State) -> None:
        if self._epoch is None:
            return
        now = state.controller()
        if now is None or now.epoch != self._epoch:
            taken = f"{now.host} pid {now.pid}" if now else "nobody"
            raise HeldError(f"another controller took over ({taken}); what was computed is kept")

    def _epoch_of(self, draft: _Draft) -> int:
        controller = draft.state.controller()
        return self._epoch if self._epoch is not None else controller.epoch if controller else 0

    def _retry_failed(self) -> None:
        """Pipelines whose last job did not succeed are considered again."""
        state = self.store.refresh()
        if state.open_run() is not None:
            return
        failed = self._failed_pipelines(state)
        if failed:
            self.store.publish(
                lambda newest: [r.Retry(pipelines=tuple(names))] if (names := self._failed_pipelines(newest)) else []
            )

    def _failed_pipelines(self, state: State) -> list[str]:
        return [
            name
            for name, pipeline in state.pipelines()
            if wants_retry(pipeline) and (not self._targets or name in self._targets)
        ]

    # --- working -----------------------------------------------------------------------------------------

    def _begin_jobs(self) -> None:
        for job in list(self._jobs.values()):
            if job.finished:
                continue
            if self._executor is None:
                self._executor = self._make_executor()
                self.store.backend.be_patient(_PATIENCE_S)
            job.begin(self._executor)

    def _work_once(self) -> None:
        """Feed the executor and take its events until something may be decided."""
        look = _LOOK_REMOTE_S if self.store.backend.properties.remote else _LOOK_LOCAL_S
        until = time.monotonic() + look
        while not self._stop.is_set():
            executor = self._executor
            if executor is None:
                return
            for job in self._jobs.values():
                if not job.finished:
                    job.feed(executor)
            for event in executor.poll(_POLL_S):
                self._take_event(executor, event)
            for job in self._jobs.values():
                job.moved(executor.traffic())
            self._report_progress()
            if any(job.finished for job in self._jobs.values()) or time.monotonic() >= until:
                return

    def _take_event(self, executor: Executor, event: object) -> None:
        match event:
            case WorkersChanged():
                self._tell(ClusterChanged(workers=event.workers, slots=event.slots))
            case WorkerRefused():
                self._tell(Notice(text=f"{event.message}: it was turned away"))
            case JobStuck():
                job = self._jobs.get(event.job)
                if job is not None:
                    job.lacks = event.missing
                    if event.missing:
                        self._tell(Notice(text=f"{job.spec.name} waits for a worker that has {event.missing}"))
            case ExecutorFailed():
                raise ClusterError(event.message, hint=event.hint or None)
            case SegmentStored() | Progressed() | DatumLost() | JobFinished():
                job = self._jobs.get(event.job)
                if job is None:
                    return
                match event:
                    case SegmentStored():
                        job.stored(executor, event.key)
                    case Progressed():
                        job.progressed(executor, computed=event.computed, failed=event.failed)
                    case DatumLost():
                        job.lost(event.key, event.fingerprint)
                    case JobFinished():
                        job.finished = True
            case _:
                return

    def _heed_stops(self, state: State) -> None:
        """Stop jobs that somebody asked to stop, or whose pipeline changed or was held meanwhile."""
        for name, job in self._jobs.items():
            known = state.job(name)
            pipeline = state.pipeline(job.spec.name)
            reason = None
            if known is not None and known.stop is not None:
                reason = known.stop or "stopped by hand"
            elif pipeline is None:
                reason = "its pipeline was deleted"
            elif pipeline.version != job.version:
                reason = f"its pipeline was updated to version {pipeline.version}"
            elif pipeline.hold is not None:
                reason = "its pipeline was reverted and is held"
            elif pipeline.stopped:
                reason = "its pipeline was stopped"
            elif job.is_late(time.monotonic()):
                reason = f"job_timeout of {job.spec.options.job_timeout_s:g} s is over"
            if reason is not None and not job.finished:
                job.stop(self._executor, reason)

    def _report_progress(self) -> None:
        now = time.monotonic()
        for name, job in self._jobs.items():
            if now - self._last_report.get(name, 0.0) >= _REPORT_EVERY_S:
                self._last_report[name] = now
                self._advanced[name] = advanced = job.advanced()
                self._tell(advanced)
        if self._heartbeat is not None:
            self._heartbeat.tell([report for name, report in self._advanced.items() if name in self._jobs])

    def _tell(self, report: Report) -> None:
        self._observer(report)

    # --- specs -----------------------------------------------------------------------------------------

    def _spec_node(self, state: State, name: str, version: int) -> str:
        recorded = state.version(name, version)
        if recorded is None:
            raise ConflictError(f"pipeline {name} has no version {version}")
        return recorded.spec

    def _spec(self, state: State, name: str, version: int) -> PipelineSpec:
        node = self._spec_node(state, name, version)
        if node not in self._specs:
            self._specs[node] = decode_pipeline(self.store.nodes.get(from_hex(node)))
        return self._specs[node]

    def _previous(self, state: State, name: str) -> tuple[PipelineSpec, tuple[r.InputBinding, ...]] | None:
        """Version and inputs of the pipeline's last job, to say what changed since."""
        pipeline = state.pipeline(name)
        job = state.job(pipeline.last_job) if pipeline is not None else None
        return None if job is None else (self._spec(state, name, job.version), job.inputs)

    def _single(self, state: State, pipelines: dict[str, r.PipelineState]) -> dict[str, bool]:
        return {name: is_single(self._spec(state, name, pipeline.version)) for name, pipeline in pipelines.items()}

    # --- the end -----------------------------------------------------------------------------------------

    def _let_go(self) -> None:
        self._epoch = None
        if self._heartbeat is not None:
            self._heartbeat.close()
            self._heartbeat = None

    def _drop_executor(self) -> None:
        self.store.backend.be_patient(0.0)
        if self._executor is not None:
            self._executor.close()
            self._executor = None

    def _close(self) -> None:
        self._egresses.close()
        self._drop_executor()
        epoch = self._epoch
        self._let_go()
        if epoch is not None:
            # Work is left (an error, Ctrl-C): say in order that nobody drives, so that the next one need not wait.
            try:
                self.store.publish((r.ControllerEnd(epoch=epoch),))
            except DmlpipeError as error:
                logger.debug("the end of epoch %d was not recorded: %s", epoch, error)


__all__ = ["Controller"]
