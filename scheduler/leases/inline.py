"""An executor that is this process: for tests of pipelines and for trying one out. No Dask, no child, no port."""

from __future__ import annotations

import collections
import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ...storage.digest import from_hex
from ...storage.objects.segment import Outcome, Row
from ...storage.store import Store
from ...worker.inline import InlineWorker
from ...worker.job import Datum, JobSpec, decode_block, decode_spec
from ..peers.tracker import Traffic
from .executor import DatumFailed, Event, JobFinished, JobOffer, Progressed, SegmentStored

_LEASE = 256
"""Datums computed between two looks at the controller."""


@dataclasses.dataclass
class _Job:
    offer: JobOffer
    spec: JobSpec
    fold: int
    blocks: collections.deque[str] = dataclasses.field(default_factory=collections.deque)
    datums: collections.deque[Datum] = dataclasses.field(default_factory=collections.deque)
    ended: bool = False
    finished: bool = False
    computed: int = 0
    failed: int = 0
    seconds: float = 0.0


class InlineExecutor:
    """Computes datums in the thread that polls.

    Parameters
    ----------
    store
        Where blocks come from and segments go.
    targets
        The user's own functions and classes by pipeline, called as they are, so that breakpoints in their file are
        hit; a pipeline that is not here is loaded from its bundle.
    on_error
        Is handed each exception of user code, with its traceback.
    """

    def __init__(
        self,
        store: Store,
        *,
        targets: Mapping[str, object] | None = None,
        on_error: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        self._store = store
        self._folder = Path(tempfile.mkdtemp(prefix="dmlpipe-inline-"))
        self._on_error = on_error
        self._running = ""
        self._worker = InlineWorker(
            store, self._folder, worker=self._folder.name, targets=targets, on_error=self._error
        )
        self._jobs: dict[str, _Job] = {}
        self.rows: list[Row] = []
        """Every row computed so far."""

    def _error(self, error: BaseException) -> None:
        if self._on_error is not None:
            self._on_error(self._running, error)

    def offer(self, job: JobOffer) -> None:
        """See `Executor.offer`."""
        spec = decode_spec(self._store.nodes.get(from_hex(job.spec)))
        self._jobs.setdefault(job.job, _Job(job, spec, job.fold))

    def add_block(self, job: str, block: str, count: int) -> None:
        """See `Executor.add_block`."""
        self._jobs[job].blocks.append(block)

    def end_blocks(self, job: str) -> None:
        """See `Executor.end_blocks`."""
        self._jobs[job].ended = True

    def backlog(self, job: str) -> int:
        """See `Executor.backlog`."""
        return len(self._jobs[job].blocks)

    def advance_fold(self, job: str, fold: int) -> None:
        """See `Executor.advance_fold`."""
        self._jobs[job].fold = fold

    def open_folds(self, job: str) -> Sequence[int]:
        """See `Executor.open_folds`."""
        return (self._jobs[job].fold,)

    def cancel(self, job: str) -> None:
        """See `Executor.cancel`."""
        found = self._jobs[job]
        found.blocks.clear()
        found.datums.clear()
        found.ended = True

    def poll(self, timeout_s: float) -> list[Event]:
        """Compute the next datums of one job; return what became of them."""
        for name, job in self._jobs.items():
            if job.finished:
                continue
            if not job.datums and job.blocks:
                job.datums.extend(decode_block(self._store.nodes.get(from_hex(job.blocks.popleft()))))
            if job.datums:
                return self._compute(name, job)
            if job.ended:
                job.finished = True
                return [JobFinished(job=name)]
        return []

    def _compute(self, name: str, job: _Job) -> list[Event]:
        count = max(_LEASE, job.spec.batch)
        datums = [job.datums.popleft() for _ in range(min(count, len(job.datums)))]
        self._running = job.spec.pipeline
        rows, stored = self._worker.run(job.spec, datums, fold=job.fold)
        self.rows += rows
        events: list[Event] = []
        for row in rows:
            job.computed += 1
            job.seconds += row.seconds
            if row.outcome == Outcome.FAILED and row.failure is not None:
                job.failed += 1
                events.append(DatumFailed(job=name, key=row.key, failure=row.failure))
        events += [SegmentStored(job=name, key=s.key, rows=s.rows, failed=s.failed, fold=s.fold) for s in stored]
        events.append(Progressed(job=name, computed=job.computed, failed=job.failed, running=0, seconds=job.seconds))
        return events

    def slots(self) -> int:
        """Return one: this thread."""
        return 1

    def traffic(self) -> Traffic:
        """Return none: there are no hosts."""
        return Traffic()

    def close(self) -> None:
        """Remove the working folder. Idempotent."""
        shutil.rmtree(self._folder, ignore_errors=True)
