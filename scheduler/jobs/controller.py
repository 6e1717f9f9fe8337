"""The controller: follows the ledger, plans, offers datums, records what became of them.

One class serves `run` (ends when nothing is left to do) and `up` (goes on). Rules:

1. What can be decided now is decided on a draft of the state (`deciding`) and recorded in one entry. If another writer
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
from ...storage.errors import ConflictError, DmlpipeError, ErrorCode
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
from ..report import (
    ClusterChanged,
    JobAdvanced,
    JobEnded,
    Notice,
    Observer,
    Report,
    RunSummary,
    ignore,
)
from .deciding import Decider, why_stop
from .draft import Draft
from .jobrun import JobRun
from .own_epoch import OwnEpoch
from .recorded_specs import RecordedSpecs
from .runs import (
    wants_retry,
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
        self._targets = tuple(targets)
        self._epoch = OwnEpoch(store, kind)
        self._specs = RecordedSpecs(store)
        self._decider = Decider(store, self._epoch, self._specs, ends=kind == "run", targets=targets)
        self._jobs: dict[str, JobRun] = {}
        self._ended: list[JobEnded] = []
        self._runs: list[str] = []
        self._last_report: dict[str, float] = {}
        self._advanced: dict[str, JobAdvanced] = {}
        self._stop = threading.Event()
        self._egresses = Egresses(
            store,
            lambda name, version: self._specs.spec(store.state, name, version),
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
                waiting=dict(self._decider.no_data),
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
        while self._epoch.number is None and not self._stop.is_set():
            state = self.store.refresh()
            self._epoch.check_free(state)
            draft = Draft(state, self.store.nodes.condemned.begin())
            draft.add(self._epoch.record(state))
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
        if (due or trigger_ticks(state, now)) and self._epoch.number is None:
            self._epoch.check_free(state)
        made = [make_tick(self.store, tick) for tick in due]
        return any([*made, make_trigger_ticks(self.store, state, now)])

    # --- deciding -----------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Record everything that can be decided now, in as few entries as possible."""
        for _ in range(_MAX_REDO):
            state = self.store.refresh()
            self._epoch.check_kept(state)
            self._heed_stops(state)
            draft = Draft(state, self.store.nodes.condemned.begin())
            endings, prepared = self._decider.decide(draft, self._jobs)
            if draft.records:
                if self._epoch.number is None:
                    self._epoch.check_free(state)
                try:
                    self._append(draft, [key for ending in endings for key in ending.sync])
                except ConflictError:
                    # Somebody published meanwhile (or moved a branch that a job wanted): decide again on what is now.
                    continue
            self._jobs |= prepared
            for ending in endings:
                self._jobs.pop(ending.report.job, None)
                self._ended.append(ending.report)
            for report in draft.reports:
                self._tell(report)
            self._begin_jobs()
            if not draft.unnamed_causes:
                return
        raise ConflictError("the ledger changes faster than this controller can decide")

    # --- the ledger -----------------------------------------------------------------------------------------

    def _append(self, draft: Draft, sync: Sequence[str]) -> None:
        records = tuple(draft.records)

        def build(state: State) -> Sequence[r.Record]:
            del state
            if self.store.nodes.condemned.version != draft.swept:
                raise ConflictError("a garbage collection was published meanwhile", code=ErrorCode.COLLECTED)
            return records

        self.store.publish(build, sync=lambda: [*self.store.nodes.take_written(), *sync])
        for record in records:
            if isinstance(record, r.ControllerTake):
                self._epoch.taken(record.epoch)
            elif isinstance(record, r.RunStart):
                self._runs.append(record.run)
                self._decider.run_began(record.run)
            elif isinstance(record, r.ControllerEnd):
                self._epoch.let_go()
        for job in records:
            if isinstance(job, r.JobStart | r.JobUnrunnable) and job.run not in self._runs:
                self._runs.append(job.run)

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
        now = time.monotonic()
        for job in self._jobs.values():
            reason = why_stop(state, job, now)
            if reason is not None and not job.finished:
                job.stop(self._executor, reason)

    def _report_progress(self) -> None:
        now = time.monotonic()
        for name, job in self._jobs.items():
            if now - self._last_report.get(name, 0.0) >= _REPORT_EVERY_S:
                self._last_report[name] = now
                self._advanced[name] = advanced = job.advanced()
                self._tell(advanced)
        self._epoch.tell([report for name, report in self._advanced.items() if name in self._jobs])

    def _tell(self, report: Report) -> None:
        self._observer(report)

    # --- the end -----------------------------------------------------------------------------------------

    def _drop_executor(self) -> None:
        self.store.backend.be_patient(0.0)
        if self._executor is not None:
            self._executor.close()
            self._executor = None

    def _close(self) -> None:
        self._egresses.close()
        self._drop_executor()
        epoch = self._epoch.number
        self._epoch.let_go()
        if epoch is not None:
            # Work is left (an error, Ctrl-C): say in order that nobody drives, so that the next one need not wait.
            try:
                self.store.publish((r.ControllerEnd(epoch=epoch),))
            except DmlpipeError as error:
                logger.debug("the end of epoch %d was not recorded: %s", epoch, error)


__all__ = ["Controller"]
