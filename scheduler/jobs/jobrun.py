"""One job under way: from its plan, over blocks and segments, to the records that end it.

A `JobRun` talks to an executor and to the store's objects; the ledger is its controller's. Its life:

1. Made, it reads its plan until it knows whether anything has to run (`needs_executor`). One that only reuses ends so.
2. `begin` offers the job; `feed` keeps at most `MAX_BACKLOG` blocks ahead; `stored`, `lost`, `progressed` take events.
3. `finish` folds everything and returns the records, once `finished`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import msgspec

from ...storage import records as r
from ...storage.actor import actor_name
from ...storage.clock import utc_now
from ...storage.digest import Digest
from ...storage.errors import DmlpipeError
from ...storage.objects.bodies import encode_body, read_job
from ...storage.objects.condemned import found_place
from ...storage.objects.content import object_key
from ...storage.objects.index import index_key
from ...storage.objects.node import node_key
from ...storage.objects.segment import Outcome
from ...storage.objects.value import PACK_BELOW_BYTES, Pieces, Whole, decode_value, encode_value, is_inline
from ...storage.objects.writer import Written
from ...storage.state import State
from ...storage.store import Store
from ...worker.job import BLOCK_MAX_BYTES, BLOCK_MAX_DATUMS, Datum, JobSpec, encode_block, encode_spec
from ..leases.executor import Executor, JobOffer
from ..peers.tracker import Traffic
from ..pipelines.spec import PipelineSpec
from ..planning.plan import JobPlan, job_context, plan_job
from ..planning.plan_items import Drop, Hit, PlanItem, Run, Twin
from ..planning.reasons import Why
from ..planning.summary import describe_key
from ..report import FailureGroup, JobAdvanced, JobEnded, JobPlanned
from .array_metadata import ARRAY_METADATA, array_metadata
from .collected import FAILURE, find_collected
from .fold import Folded, fold_results
from .near import near_files
from .path_edits import Conflict
from .results import Finished, Results
from .sorting import SortedRecords
from .worker_spec import memory_bytes, worker_spec

MAX_BACKLOG = 16
MAX_PACKS_IN_RECORD = 1000
HOPELESS_AFTER = 50
"""A job whose first so many datums all failed is stopped."""

_RATE_WINDOW_S = 5.0
_encode = msgspec.msgpack.Encoder().encode
_decode_drop = msgspec.msgpack.Decoder(tuple[bytes, bool]).decode
_decode_hit = msgspec.msgpack.Decoder(tuple[bytes, bytes, tuple[tuple[str, bytes], ...]]).decode

Done = tuple[bytes, Finished, str]
"""Datum key, result, segment."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Twins:
    """What became of datums that shared another's fate."""

    hits: list[Hit]
    failed: list[Done]


@dataclasses.dataclass(frozen=True, slots=True)
class _Again:
    """What can be iterated again."""

    make: Callable[[], Iterator[Done]]

    def __iter__(self) -> Iterator[Done]:
        return self.make()


@contextlib.contextmanager
def _without_cycles() -> Iterator[None]:
    """Leave garbage in cycles alone: millions of small objects are made here, none of them in a cycle."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


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


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended: what goes into the ledger, and what watchers are told."""

    records: tuple[r.Record, ...]
    report: JobEnded
    sync: tuple[str, ...] = ()
    """Keys beside nodes that must be durable before the records are published."""


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
        self._drops = SortedRecords()
        self._hits = SortedRecords()
        self._twins: list[Twin] = []
        self._block: list[Datum] = []
        self._block_bytes = 0
        self._blocks: deque[tuple[str, int]] = deque()
        self._lost: dict[bytes, bytes] = {}
        self._offered = False
        self._traffic_before = self._traffic = Traffic()
        """What the executor had moved when the job was offered, and what it moved since."""
        self._offered_at = 0.0
        self._ended_blocks = False
        self._to_run = 0
        self._computed = 0
        self._failed = 0
        self._seconds = 0.0
        self._rate = _Rate()
        self._collected: frozenset[bytes] = frozenset()
        self._unsynced: list[str] = []
        self._began = time.monotonic()
        self._started = utc_now()
        context = state.context(job_context(spec, self.bindings).hex())
        finished = self._results.finished() if resume else None
        plan: JobPlan = plan_job(
            spec, self.bindings, context, store.tree, read=self._read, finished=finished, why=reasons
        )
        self.plan = plan
        self.context = context or r.Context(inputs={}, order=())
        self._items: Iterator[PlanItem] | None = iter(plan.items())
        self._read_plan(blocks=1)

    def _read(self, value: bytes) -> bytes:
        return self.store.objects.read(decode_value(value))

    # --- planning and offering ---------------------------------------------------------------------------------------

    @property
    def needs_executor(self) -> bool:
        """Some datum has to be computed, or was and may still be reported."""
        return bool(self._blocks or self._block or self._items is not None)

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
            self._items = None
            self._blocks.clear()
            self._ended_blocks = True
            return
        room = MAX_BACKLOG - executor.backlog(self.job)
        while room > 0:
            if not self._blocks:
                self._read_plan(blocks=1)
            if not self._blocks:
                break
            block, count = self._blocks.popleft()
            executor.add_block(self.job, block, count)
            room -= 1
        if self._items is None and not self._blocks:
            self._ended_blocks = True
            executor.end_blocks(self.job)

    def _read_plan(self, *, blocks: int) -> None:
        """Read plan items until so many blocks are full or the plan ends."""
        with _without_cycles():
            self._fill_blocks(blocks)

    def _fill_blocks(self, blocks: int) -> None:
        if self._items is None:
            return
        made = 0
        while made < blocks:
            item = next(self._items, None)
            match item:
                case None:
                    self._items = None
                    if self._block:
                        self._close_block()
                    return
                case Run():
                    self._block.append(item.datum)
                    self._to_run += 1
                    self._block_bytes += sum(len(given.value) for given in item.datum.items)
                    if len(self._block) >= BLOCK_MAX_DATUMS or self._block_bytes >= BLOCK_MAX_BYTES:
                        self._close_block()
                        made += 1
                case Hit():
                    self._hits.add(item.key, _encode((item.fingerprint, item.origin, item.outputs)))
                case Twin():
                    self._twins.append(item)
                case Drop():
                    self._drops.add(item.key, _encode((item.old_fingerprint, item.gone)))

    def _close_block(self) -> None:
        # Renewed: nothing published refers to a block, and a collector leaves what is younger than the job.
        name = self.store.nodes.put(encode_block(self._block), renew=True)
        self._blocks.append((name.hex(), len(self._block)))
        self._block = []
        self._block_bytes = 0

    def job_spec(self) -> JobSpec:
        """Return the job as its workers see it."""
        return worker_spec(self.spec, self.plan, job=self.job, run=self.run, version=self.version)

    # --- events -----------------------------------------------------------------------------------------

    def stored(self, executor: Executor, segment: str) -> None:
        """Take a segment that is in the store."""
        with _without_cycles():
            self._results.add(segment)
        if self._results.should_fold():
            open_folds = list(executor.open_folds(self.job))
            oldest = min([*open_folds, self._results.fold])
            executor.advance_fold(self.job, self._results.close_fold(oldest))

    def lost(self, key: bytes, fingerprint: bytes) -> None:
        """Take a datum that was given up."""
        self._lost[key] = fingerprint

    def progressed(self, executor: Executor, *, computed: int, failed: int, seconds: float) -> None:
        """Take totals; stop a job without hope."""
        self._computed, self._failed, self._seconds = computed, failed, seconds
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
        known = self.plan.total - self._to_run - self._resumed if self._items is None else len(self._hits)
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
        with _without_cycles():
            return self._finish(state, epoch)

    def _finish(self, state: State, epoch: int) -> Ending:
        self._unsynced = []
        self._collected = find_collected(self.store, state, self.job, self._results)
        self._drain_plan()
        twins = self._settle_twins()
        failed_now = self._results.failed() + len(self._collected) + len(twins.failed) + len(self._lost)
        too_many = not self._allows(failed_now)
        publish = not too_many and self.stop_reason is None and not self.hopeless
        metadata: dict[str, bytes] = {}
        written = Written()
        if publish and self.spec.writes is not None:
            metadata, written = self._metadata_values()
        folded = fold_results(
            self.context,
            self.store.tree,
            job=self.job,
            inputs=self.plan.inputs,
            order=self.plan.order,
            total=self.plan.total,
            changes=len(self._drops) + len(self._hits) + self._results.about(),
            drops=(Drop(key, *_decode_drop(raw)) for key, raw in self._drops),
            hits=self._known(twins),
            rows=_Again(lambda: self._rows(twins)),
            lost=self._lost,
            publish=publish,
            metadata=metadata,
            describe=self._describe,
            by_content=self.spec.by_content,
        )
        reason = ""
        if self.stop_reason is not None:
            state_name, reason = "stopped", self.stop_reason
        elif folded.conflict is not None:
            state_name, reason = "failed", self._conflict_text(folded.conflict)
        elif not publish:
            state_name = "failed"
            reason = self._failure_text(folded)
        else:
            state_name = "done"
        ending = self._ending(state, epoch, twins, folded, state_name, reason, written)
        self._drops.close()
        self._hits.close()
        return ending

    def _rows(self, twins: _Twins) -> Iterator[Done]:
        """What is finished, sorted by key, with those that share a failure; what was collected meanwhile has failed."""
        done = self._sound_rows()
        return heapq.merge(done, twins.failed, key=itemgetter(0)) if twins.failed else done

    def _sound_rows(self) -> Iterator[Done]:
        for key, finished, segment in self._results.rows():
            if key in self._collected:
                finished = msgspec.structs.replace(finished, outcome=int(Outcome.FAILED), outputs=(), failure=FAILURE)
            yield key, finished, segment

    def _known(self, twins: _Twins) -> Iterator[Hit]:
        """Results from memory, and those that datums share, sorted by key."""
        hits = (Hit(key, *_decode_hit(raw)) for key, raw in self._hits)
        return heapq.merge(hits, twins.hits, key=lambda hit: hit.key) if twins.hits else hits

    def _settle_twins(self) -> _Twins:
        """Let datums share the fate of those with their content."""
        found = _Twins([], [])
        if not self._twins:
            return found
        wanted = {twin.fingerprint for twin in self._twins}
        first = {row.fingerprint: (row, segment) for _, row, segment in self._sound_rows() if row.fingerprint in wanted}
        lost = set(self._lost.values())
        for twin in self._twins:
            row, segment = first.get(twin.fingerprint, (None, ""))
            if row is None:
                if twin.fingerprint in lost:
                    self._lost[twin.key] = twin.fingerprint
            elif row.outcome == Outcome.OK:
                found.hits.append(Hit(twin.key, twin.fingerprint, bytes.fromhex(self.job), row.outputs))
            else:
                found.failed.append((twin.key, row, segment))
        return found

    def _drain_plan(self) -> None:
        # A stopped job leaves its plan unread; hits and drops of the rest do not matter then.
        if self.stop_reason is None and not self.hopeless:
            while self._items is not None:
                self._read_plan(blocks=MAX_BACKLOG)

    def _ending(
        self,
        state: State,
        epoch: int,
        twins: _Twins,
        folded: Folded,
        state_name: str,
        reason: str,
        written: Written,
    ) -> Ending:
        counters = folded.counters
        if state_name != "done":
            counters = msgspec.structs.replace(counters, skipped=min(counters.skipped, len(self._hits)))
        index, packs, rows = self._publish_rows(twins)
        record = self._job_record(state, folded, state_name, counters)
        end = r.JobEnd(
            counters=counters,
            reason=reason,
            record=self.store.nodes.put(encode_body(record)).hex(),
            packs=packs if len(packs) <= MAX_PACKS_IN_RECORD else (),
            index=index,
            rows=rows,
        )
        repo, branch = self.spec.name, self.spec.output_branch
        head = state.head(repo, branch) or ""
        key = self.plan.key.hex()
        records: tuple[r.Record, ...]
        commit_id = ""
        if state_name == "done":
            tree = folded.out.root.hex()
            body = r.Commit(
                tree=tree,
                parents=(head,) if head else (),
                message=f"job {self.job[:6]}: {counters.run} run, {counters.skipped} skipped",
                author=actor_name(),
                time=utc_now(),
                job=self.job,
                files=len(folded.out),
                size=folded.context.size,
                failed=folded.context.f,
            )
            commit_id = self.store.nodes.put(encode_body(body)).hex()
            records = (
                r.JobDone(job=self.job, epoch=epoch, key=key, context=folded.context, commit=commit_id, end=end),
                r.CommitMade(
                    repo=repo,
                    id=commit_id,
                    tree=tree,
                    files=body.files,
                    size=body.size,
                    job=self.job,
                    packs=written.packs,
                    index=written.index,
                ),
                r.RefSet(repo=repo, branch=branch, old=head, new=commit_id),
            )
        elif state_name == "failed":
            records = (r.JobFailed(job=self.job, epoch=epoch, key=key, context=folded.context, end=end),)
        else:
            records = (r.JobStopped(job=self.job, epoch=epoch, key=key, context=folded.context, end=end),)
        report = JobEnded(
            job=self.job,
            run=self.run,
            pipeline=repo,
            state=state_name,
            counters=counters,
            seconds=time.monotonic() - self._began,
            commit=commit_id,
            head=commit_id or head,
            reason=reason,
            failures=folded.failures,
            from_store=self._traffic.from_store,
            from_peers=self._traffic.from_peers,
        )
        return Ending(records, report, tuple(self._unsynced))

    def _publish_rows(self, twins: _Twins) -> tuple[str, tuple[str, ...], str]:
        """Write the index of the job's segments and the tree of its rows."""
        if not self._results.segments:
            return "", (), ""
        index = ""
        data = self._results.index()
        if data is not None:
            index = index_key(data)
            self.store.backend.put_if_absent(index, data)
            self._unsynced.append(index)
        loose: dict[str, None] = {}
        rows = self.store.tree("").updated(self._placed(twins, loose), 0)
        segments = tuple(sorted(self._results.segments))
        self._unsynced += segments
        # What is on a remote store is durable.
        if not self.store.backend.properties.remote:
            self._unsynced += [found_place(self.store.backend, self.store.nodes.condemned, key) for key in loose]
        return index, segments, rows.root.hex()

    def _placed(self, twins: _Twins, loose: dict[str, None]) -> Iterator[tuple[bytes, bytes]]:
        """Yield (datum key, where its row is); note the objects that workers stored beside their segments."""
        for key, finished, segment in self._rows(twins):
            yield key, _encode((segment, finished.row))
            for _, raw in finished.outputs:
                if is_inline(raw):
                    continue
                match decode_value(raw):
                    case Whole(size=size, hash=name) if size >= PACK_BELOW_BYTES:
                        loose[object_key(Digest(name))] = None
                    case Pieces() as value:
                        loose[node_key(Digest(value.manifest))] = None
                        pieces = self.store.objects.manifest(value).pieces
                        loose |= {object_key(Digest(p.hash)): None for p in pieces if p.size >= PACK_BELOW_BYTES}
                    case _:
                        continue

    def _job_record(self, state: State, folded: Folded, state_name: str, counters: r.Counters) -> r.JobRecord:
        env = dict(self._results.versions)
        if self.spec.env:
            env["declared"] = self.spec.env
        return r.JobRecord(
            id=self.job,
            run=self.run,
            pipeline=self.spec.name,
            version=self.version,
            spec=self._spec_node,
            code_id=self.spec.code_id,
            bundle=self.spec.bundle,
            context=self.plan.key.hex(),
            parameters=self.spec.parameters,
            env=env,
            inputs=tuple(self.bindings.values()),
            base_job=self.context.job,
            state=state_name,
            counters=counters,
            t=folded.context.t,
            p=folded.context.p,
            out=folded.context.out,
            origins=self._origins(state, folded) if state_name == "done" else {},
            started=self._started,
            ended=utc_now(),
            host=self._results.host,
            failures=tuple(_plain_group(group) for group in folded.failures),
            traffic=dataclasses.asdict(self._traffic) if self._offered else {},
        )

    def _origins(self, state: State, folded: Folded) -> dict[str, int]:
        """Live datums by the job that computed them: those of the context's last job, and what changed since."""
        last = state.job(self.context.job) if self.context.job else None
        counts = dict(read_job(self.store.nodes, last.end.record).origins) if last is not None else {}
        for job, change in folded.origins.items():
            counts[job] = counts.get(job, 0) + change
        return {job: count for job, count in sorted(counts.items()) if count > 0}

    def _allows(self, failed: int) -> bool:
        if failed == 0:
            return True
        text = self.spec.options.max_failures
        if text.endswith("%"):
            return failed <= self.plan.total * float(text[:-1]) / 100
        return failed <= int(text or 0)

    def _failure_text(self, folded: Folded) -> str:
        if self.hopeless:
            return f"the first {HOPELESS_AFTER} datums all failed"
        first = folded.failures[0] if folded.failures else None
        where = f", first: {first.path}" if first else ""
        return (
            f"{folded.counters.failed} of {self.plan.total} datums failed"
            f" (max_failures={self.spec.options.max_failures}){where}"
        )

    def _conflict_text(self, conflict: Conflict) -> str:
        mine = self._describe(conflict.key)
        other = self._describe(conflict.other_key) if conflict.other_key is not None else "the array's own metadata"
        if conflict.path == conflict.other_path:
            return f"two datums write {self.spec.name}:/{conflict.path}: {mine} and {other}"
        return (
            f"{self.spec.name}:/{conflict.path} of {mine} and {self.spec.name}:/{conflict.other_path} of {other}"
            " cannot both exist: one is a file where the other needs a folder"
        )

    def _describe(self, key: bytes) -> str:
        """Name a datum by its inputs: `images:/0012.png`, or the pipeline if everything is constant."""
        return describe_key(key, self.spec.input, self.plan.order) or f"the one datum of {self.spec.name}"

    # --- arrays -----------------------------------------------------------------------------------------

    def _metadata_values(self) -> tuple[dict[str, bytes], Written]:
        """Store the output array's metadata: it is the job's own, no datum's."""
        writer = self.store.objects.writer()
        content = array_metadata(self.spec, self.bindings, self.store.tree, self._read)
        values = {ARRAY_METADATA: encode_value(writer.put(content))}
        written = writer.flush()
        self._unsynced += writer.take_keys()
        return values, written


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


__all__ = ["Ending", "JobRun"]
