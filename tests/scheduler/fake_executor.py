"""An executor that computes in this process with a plain function: real blocks, real segments, no worker."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence

import msgspec

from dmlpipe.scheduler.leases.executor import Event, JobFinished, JobOffer, Progressed, SegmentStored
from dmlpipe.scheduler.peers.tracker import Traffic
from dmlpipe.storage.digest import from_hex
from dmlpipe.storage.objects.pack import PackBuilder
from dmlpipe.storage.objects.segment import Failure, Outcome, Row, SegmentMeta, encode_rows, segment_key
from dmlpipe.storage.objects.value import encode_value
from dmlpipe.storage.store import Store
from dmlpipe.worker.job import Datum, JobSpec, decode_block, decode_spec

Compute = Callable[[JobSpec, Datum], dict[str, bytes]]


class KilledError(BaseException):
    """The controller's process is gone: nothing may catch this and go on."""


@dataclasses.dataclass
class _Job:
    offer: JobOffer
    spec: JobSpec
    blocks: collections.deque[tuple[str, int]] = dataclasses.field(default_factory=collections.deque)
    datums: collections.deque[Datum] = dataclasses.field(default_factory=collections.deque)
    ended: bool = False
    cancelled: bool = False
    finished: bool = False
    fold: int = 0
    computed: int = 0
    failed: int = 0


class FakeExecutor:
    """Computes with `compute(spec, datum)`, which returns outputs or raises; `per_segment` rows make a segment."""

    instances = 0

    def __init__(self, store: Store, compute: Compute, *, per_segment: int = 3, die_after: int | None = None) -> None:
        self.store = store
        self.compute = compute
        self.per_segment = per_segment
        self.die_after = die_after
        self.calls: list[tuple[str, bytes]] = []
        self.jobs: dict[str, _Job] = {}
        self.seq = 0
        self.closed = False
        FakeExecutor.instances += 1
        self.name = f"w{FakeExecutor.instances}"

    def offer(self, job: JobOffer) -> None:
        spec = decode_spec(self.store.nodes.get(from_hex(job.spec)))
        self.jobs.setdefault(job.job, _Job(job, spec, fold=job.fold))

    def add_block(self, job: str, block: str, count: int) -> None:
        self.jobs[job].blocks.append((block, count))

    def end_blocks(self, job: str) -> None:
        self.jobs[job].ended = True

    def backlog(self, job: str) -> int:
        return len(self.jobs[job].blocks)

    def advance_fold(self, job: str, fold: int) -> None:
        self.jobs[job].fold = fold

    def traffic(self) -> Traffic:
        return Traffic()

    def open_folds(self, job: str) -> Sequence[int]:
        return [self.jobs[job].fold]

    def cancel(self, job: str) -> None:
        self.jobs[job].cancelled = True
        self.jobs[job].blocks.clear()
        self.jobs[job].datums.clear()

    def poll(self, timeout_s: float) -> list[Event]:
        events: list[Event] = []
        for name, job in self.jobs.items():
            if job.finished:
                continue
            if job.blocks and not job.datums:
                block, _ = job.blocks.popleft()
                job.datums.extend(decode_block(self.store.nodes.get(from_hex(block))))
            if job.datums:
                taken = [job.datums.popleft() for _ in range(min(self.per_segment, len(job.datums)))]
                events.append(self._segment(name, job, taken))
                if self.die_after is not None and self.seq >= self.die_after:
                    raise KilledError
                events.append(Progressed(job=name, computed=job.computed, failed=job.failed, running=0, seconds=0.001))
            elif job.ended or job.cancelled:
                job.finished = True
                events.append(JobFinished(job=name))
        return events

    def _segment(self, name: str, job: _Job, datums: Sequence[Datum]) -> Event:
        builder = PackBuilder()
        writer = self.store.objects.writer(builder=builder)
        rows = []
        for datum in datums:
            self.calls.append((job.spec.pipeline, datum.key))
            job.computed += 1
            try:
                made = self.compute(job.spec, datum)
            except Exception as error:  # noqa: BLE001 - this is the task boundary: user code may raise anything
                job.failed += 1
                failure = Failure(type(error).__name__, str(error), "dag.py:1 in f")
                rows.append(Row(datum.key, datum.fingerprint, Outcome.FAILED, [], 1, 0.001, b"", failure))
                continue
            outputs = [(path, encode_value(writer.put(data))) for path, data in sorted(made.items())]
            rows.append(Row(datum.key, datum.fingerprint, Outcome.OK, outputs, 1, 0.001))
        self.seq += 1
        key = segment_key(name, job.fold, self.name, self.seq)
        meta = SegmentMeta(job=name, fold=job.fold, worker=self.name, seq=self.seq, host="h")
        body = builder.finish(rows=encode_rows(rows), meta=msgspec.to_builtins(meta))
        assert self.store.backend.put_if_absent(key, body)
        return SegmentStored(job=name, key=key, rows=len(rows), failed=0, fold=job.fold)

    def slots(self) -> int:
        return 1

    def close(self) -> None:
        self.closed = True
