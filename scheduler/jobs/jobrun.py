"""One job under way: from its plan, over blocks and segments, to the records that end it.

A `JobRun` talks to an executor and to the store's objects; the ledger is its controller's. Its life:

1. Made, it reads its plan until it knows whether anything has to run (`needs_executor`). One that only reuses ends so.
2. `begin` offers the job; `feed` keeps at most `MAX_BACKLOG` blocks ahead; `stored`, `lost`, `progressed` take events.
3. `finish` folds everything and returns the records, once `finished`.
"""

from __future__ import annotations

import dataclasses
import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter

import msgspec

from ...storage import records as r
from ...storage.clock import utc_now
from ...storage.errors import DmlpipeError
from ...storage.objects.segment import Outcome
from ...storage.objects.value import decode_value, encode_value
from ...storage.objects.writer import Written
from ...storage.state import State
from ...storage.store import Store
from ...worker.job import JobSpec, encode_spec
from ..leases.executor import Executor, JobOffer
from ..peers.tracker import Traffic
from ..pipelines.spec import PipelineSpec
from ..planning.plan import JobPlan, job_context, plan_job
from ..planning.plan_items import Hit
from ..planning.reasons import Why
from ..planning.summary import describe_key
from ..report import JobAdvanced, JobPlanned
from .array_metadata import ARRAY_METADATA, array_metadata
from .collected import FAILURE, find_collected
from .cycles import without_cycles
from .ending import Ending, JobFacts, end_job
from .fold import fold_results
from .job_rows import place_rows
from .near import near_files
from .plan_reader import PlanReader
from .results import Results
from .twins import Done, Settled, settle_twins
from .verdict import HOPELESS_AFTER, allows, judge
from .worker_spec import memory_bytes, worker_spec

MAX_BACKLOG = 16
_RATE_WINDOW_S = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class _Again:
    """What can be iterated again."""

    make: Callable[[], Iterator[Done]]

    def __iter__(self) -> Iterator[Done]:
        return self.make()


@dataclasses.dataclass(slots=True)
class _Rate:
    """Datums a second over the last seconds."""

    points: deque[tuple[float, int]] = dataclasses.field(default_factory=deque)

    def add(self, now: float, count: int) -> float:
        self.points.append((now, count))
        while len(self.points) > 2 and now - self.points[0][0] > _RATE_WINDOW_S:
            self.points.popleft()
        (t0, n0), (t1, n1) = self.points[0], self.points[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0


class JobRun:
    """A job under way.

    Parameters
    ----------
    store
        The store.
    job, run
        Ids.
    spec, version, spec_node
        The version that runs, its number, its node.
    bindings
        Input name to what it is bound to.
    state
        The folded ledger: what is remembered of the job's context.
    due
        Why it runs, for people.
    reasons
        What `explain` said of its context.
    resume
        The ledger knows the job already: take up the segments of whoever began it.
    """

    def __init__(
        self,
        store: Store,
        *,
        job: str,
        run: str,
        spec: PipelineSpec,
        version: int,
        spec_node: str,
        bindings: Mapping[str, r.InputBinding],
        state: State,
        due: tuple[str, ...] = (),
        reasons: Sequence[Why] = (),
        resume: bool = False,
    ) -> None:
        self.store = store
        self.job = job
        self.run = run
        self.spec = spec
        self.version = version
        self.bindings = dict(bindings)
        self.due = tuple(str(why) for why in reasons) or due
        self.finished = False
        self.stop_reason: str | None = None
        self.lacks = ""
        """What no worker that is there has enough of."""
        self.hopeless = False
        self._spec_node = spec_node
        self._results = Results.resume(store, job) if resume else Results(store, job)
        self._resumed = len(self._results.finished()) if resume else 0
        self._lost: dict[bytes, bytes] = {}
        self._offered = False
        self._traffic_before = self._traffic = Traffic()
        """What the executor had moved when the job was offered, and what it moved since."""
        self._offered_at = 0.0
        self._ended_blocks = False
        self._computed = 0
        self._failed = 0
        self._rate = _Rate()
        self._collected: frozenset[bytes] = frozenset()
        self._began = time.monotonic()
        self._started = utc_now()
        context = state.context(job_context(spec, self.bindings).hex())
        finished = self._results.finished() if resume else None
        plan: JobPlan = plan_job(
            spec, self.bindings, context, store.tree, read=self._read, finished=finished, why=reasons
        )
        self.plan = plan
        self.context = context or r.Context(inputs={}, order=())
        self._reader = PlanReader(store.nodes, plan.items())
        self._reader.read(1)

    def _read(self, value: bytes) -> bytes:
        return self.store.objects.read(decode_value(value))

    # --- planning and offering ---------------------------------------------------------------------------------------

    @property
    def needs_executor(self) -> bool:
        """Some datum has to be computed, or was and may still be reported."""
        return self._reader.finds_work

    def planned(self) -> JobPlanned:
        """Tell that the job is about to begin."""
        return JobPlanned(
            job=self.job,
            run=self.run,
            pipeline=self.spec.name,
            version=self.version,
            total=self.plan.total,
            resumed=self._resumed,
            why=self.due,
        )

    def start_record(self, epoch: int, base: str) -> r.JobStart:
        """Return the record that begins the job."""
        return r.JobStart(
            job=self.job,
            run=self.run,
            pipeline=self.spec.name,
            version=self.version,
            epoch=epoch,
            context=self.plan.key.hex(),
            inputs=tuple(self.bindings.values()),
            base=base,
        )

    def begin(self, executor: Executor) -> None:
        """Offer the job. Idempotent: an executor that was replaced is told again by a new `JobRun`."""
        if self._offered:
            return
        self._offered = True
        self._offered_at = time.monotonic()
        self._traffic_before = executor.traffic()
        spec = self.job_spec()
        raw = encode_spec(spec)
        executor.offer(
            JobOffer(
                job=self.job,
                spec=self.store.nodes.put(raw, renew=True).hex(),
                pipeline=self.spec.name,
                batch=self.spec.options.batch,
                cpus=self.spec.options.cpus,
                gpus=self.spec.options.gpus,
                memory_bytes=memory_bytes(self.spec.options),
                resources=self.spec.options.resources,
                priority=self.spec.options.priority,
                fold=self._results.fold,
                near=near_files(self.store, spec.inputs),
            )
        )
        self.feed(executor)

    def feed(self, executor: Executor) -> None:
        """Keep blocks ahead of the slots, at most `MAX_BACKLOG`."""
        if not self._offered or self._ended_blocks:
            return
        if self.stop_reason is not None or self.hopeless:
            self._reader.abandon()
            self._ended_blocks = True
            return
        room = MAX_BACKLOG - executor.backlog(self.job)
        while room > 0:
            if not self._reader.blocks:
                self._reader.read(1)
            if not self._reader.blocks:
                break
            block, count = self._reader.blocks.popleft()
            executor.add_block(self.job, block, count)
            room -= 1
        if self._reader.ended and not self._reader.blocks:
            self._ended_blocks = True
            executor.end_blocks(self.job)

    def job_spec(self) -> JobSpec:
        """Return the job as its workers see it."""
        return worker_spec(self.spec, self.plan, job=self.job, run=self.run, version=self.version)

    # --- events -----------------------------------------------------------------------------------------

    def stored(self, executor: Executor, segment: str) -> None:
        """Take a segment that is in the store."""
        with without_cycles():
            self._results.add(segment)
        if self._results.should_fold():
            open_folds = list(executor.open_folds(self.job))
            oldest = min([*open_folds, self._results.fold])
            executor.advance_fold(self.job, self._results.close_fold(oldest))

    def lost(self, key: bytes, fingerprint: bytes) -> None:
        """Take a datum that was given up."""
        self._lost[key] = fingerprint

    def progressed(self, executor: Executor, *, computed: int, failed: int) -> None:
        """Take totals; stop a job without hope."""
        self._computed, self._failed = computed, failed
        if computed >= HOPELESS_AFTER and failed == computed and not self._allows(failed) and not self.hopeless:
            self.hopeless = True
            executor.cancel(self.job)

    def moved(self, traffic: Traffic) -> None:
        """Take what the cluster's hosts took so far."""
        before = self._traffic_before
        self._traffic = Traffic(traffic.from_store - before.from_store, traffic.from_peers - before.from_peers)

    def is_late(self, now: float) -> bool:
        """Whether the job's own time is over at `now` (of `time.monotonic`)."""
        limit = self.spec.options.job_timeout_s
        return bool(limit) and self._offered and now - self._offered_at > limit

    def stop(self, executor: Executor | None, reason: str) -> None:
        """End the job early; its results are kept."""
        if self.stop_reason is None:
            self.stop_reason = reason
            if executor is not None and self._offered:
                executor.cancel(self.job)
            else:
                self.finished = True

    def advanced(self) -> JobAdvanced:
        """Return numbers for watchers."""
        run = self._computed + self._resumed
        rate = self._rate.add(time.monotonic(), self._computed)
        reader = self._reader
        known = self.plan.total - reader.to_run - self._resumed if reader.ended else reader.hit_count
        left = self.plan.total - known - run
        return JobAdvanced(
            job=self.job,
            pipeline=self.spec.name,
            total=self.plan.total,
            run=run - self._failed,
            skipped=max(0, known),
            failed=self._failed,
            rate=rate,
            left_s=left / rate if rate > 0 else None,
            from_store=self._traffic.from_store,
            from_peers=self._traffic.from_peers,
            lacks=self.lacks,
        )

    def kept_count(self) -> int:
        """Datums whose result the next run will find, if this controller ends now.

        Asks the store: an interrupt may have hit while a segment was being taken in.
        """
        try:
            results = Results.resume(self.store, self.job)
        except DmlpipeError:
            results = self._results
        return sum(1 for _ in results.rows())

    # --- ending -----------------------------------------------------------------------------------------

    def finish(self, state: State, epoch: int) -> Ending:
        """Fold what was found and computed; return the records that end the job."""
        with without_cycles():
            return self._finish(state, epoch)

    def _finish(self, state: State, epoch: int) -> Ending:
        self._collected = find_collected(self.store, state, self.job, self._results)
        self._drain_plan()
        twins = settle_twins(self._reader.twins, self._sound_rows(), self._lost, self.job)
        self._lost |= twins.lost
        failed_now = self._results.failed() + len(self._collected) + len(twins.failed) + len(self._lost)
        too_many = not self._allows(failed_now)
        publish = not too_many and self.stop_reason is None and not self.hopeless
        metadata: dict[str, bytes] = {}
        written = Written()
        sync: list[str] = []
        if publish and self.spec.writes is not None:
            metadata, written, sync = self._metadata_values()
        folded = fold_results(
            self.context,
            self.store.tree,
            job=self.job,
            inputs=self.plan.inputs,
            order=self.plan.order,
            total=self.plan.total,
            changes=self._reader.change_count + self._results.about(),
            drops=self._reader.drops(),
            hits=self._known(twins),
            rows=_Again(lambda: self._rows(twins)),
            lost=self._lost,
            publish=publish,
            metadata=metadata,
            describe=self._describe,
            by_content=self.spec.by_content,
        )
        verdict = judge(
            self.spec,
            folded,
            self.plan.total,
            publish=publish,
            stop_reason=self.stop_reason,
            hopeless=self.hopeless,
            describe=self._describe,
        )
        ending = end_job(
            self.store,
            state,
            self._facts(),
            folded,
            verdict,
            epoch=epoch,
            known=self._reader.hit_count,
            rows=place_rows(self.store, self._results, self._rows(twins)),
            written=written,
            sync=tuple(sync),
        )
        self._reader.close()
        return ending

    def _rows(self, twins: Settled) -> Iterator[Done]:
        """What is finished, sorted by key, with those that share a failure; what was collected meanwhile has failed."""
        done = self._sound_rows()
        return heapq.merge(done, twins.failed, key=itemgetter(0)) if twins.failed else done

    def _sound_rows(self) -> Iterator[Done]:
        for key, finished, segment in self._results.rows():
            if key in self._collected:
                finished = msgspec.structs.replace(finished, outcome=int(Outcome.FAILED), outputs=(), failure=FAILURE)
            yield key, finished, segment

    def _known(self, twins: Settled) -> Iterator[Hit]:
        """Results from memory, and those that datums share, sorted by key."""
        hits = self._reader.hits()
        return heapq.merge(hits, twins.hits, key=lambda hit: hit.key) if twins.hits else hits

    def _drain_plan(self) -> None:
        # A stopped job leaves its plan unread; hits and drops of the rest do not matter then.
        if self.stop_reason is None and not self.hopeless:
            while not self._reader.ended:
                self._reader.read(MAX_BACKLOG)

    def _facts(self) -> JobFacts:
        return JobFacts(
            job=self.job,
            run=self.run,
            spec=self.spec,
            version=self.version,
            spec_node=self._spec_node,
            bindings=tuple(self.bindings.values()),
            key=self.plan.key.hex(),
            base_job=self.context.job,
            started=self._started,
            began=self._began,
            versions=self._results.versions,
            host=self._results.host,
            traffic=self._traffic if self._offered else None,
        )

    def _allows(self, failed: int) -> bool:
        return allows(self.spec.options.max_failures, failed, self.plan.total)

    def _describe(self, key: bytes) -> str:
        """Name a datum by its inputs: `images:/0012.png`, or the pipeline if everything is constant."""
        return describe_key(key, self.spec.input, self.plan.order) or f"the one datum of {self.spec.name}"

    # --- arrays -----------------------------------------------------------------------------------------

    def _metadata_values(self) -> tuple[dict[str, bytes], Written, list[str]]:
        """Store the output array's metadata; return it as values, what was written, and keys that must be durable."""
        writer = self.store.objects.writer()
        content = array_metadata(self.spec, self.bindings, self.store.tree, self._read)
        values = {ARRAY_METADATA: encode_value(writer.put(content))}
        written = writer.flush()
        return values, written, writer.take_keys()


__all__ = ["MAX_BACKLOG", "JobRun"]
