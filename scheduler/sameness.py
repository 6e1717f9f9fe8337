"""Whether changed code makes what the code before it made: some datums are computed with both and compared.

The new code runs in this process, in a layer over the store (as in `trial`): nothing is written. What the old code
made is known, so that only the new one runs.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
import tempfile
from pathlib import Path

import msgspec

from ..storage import records as r
from ..storage.backend.layered import LayeredBackend
from ..storage.digest import from_hex
from ..storage.objects.segment import Outcome
from ..storage.objects.value import decode_value
from ..storage.state import State
from ..storage.store import Store
from ..storage.trees.prolly import Tree
from ..worker.inline import InlineWorker
from .jobs.worker_spec import worker_spec
from .pipelines.spec import PipelineSpec, decode_pipeline
from .planning.plan import plan_job
from .planning.summary import describe_key
from .submission import CodeWriter, Given, build, record
from .succession import equal_but_for_code, succeed

__all__ = ["Comparison", "compare"]

_NO_JOB = "0" * 16


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """What became of one pipeline's sample."""

    pipeline: str
    version: int
    """That made what is compared with."""
    compared: int
    different: tuple[str, ...]
    """Datums that failed or made something else, as people write them."""

    @property
    def equal(self) -> bool:
        """Whether datums were compared, and none differed."""
        return bool(self.compared) and not self.different

    def __str__(self) -> str:
        of = f"{self.compared} datum{'s' if self.compared != 1 else ''} compared with those of v{self.version}"
        if not self.different:
            return f"{of}: all equal"
        return f"{of}: {len(self.different)} differ, first {self.different[0] or 'the only one'}"


def compare(store: Store, given: Given, count: int) -> list[Comparison]:
    """Compute at most `count` datums of each pipeline whose code changed, and compare them with what is known.

    Returns
    -------
    list of Comparison
        Of pipelines whose code or declared environment alone changed, and which have results.
    """
    layer = Store(LayeredBackend(store.backend), store.info, cache_dir=store.cache_dir)
    writer = CodeWriter(layer)
    built = build(
        given.what, writer, params=given.params, code=given.code, container=given.container, arguments=given.arguments
    )
    state = store.refresh()
    changed = []
    for spec in built.specs:
        job = _last_done(state, spec.name)
        before = state.version(spec.name, job.version) if job is not None else None
        if job is None or before is None:
            continue
        old = decode_pipeline(store.nodes.get(from_hex(before.spec)))
        new = succeed(store, state, spec)
        if (new.code_id, new.env) != (old.code_id, old.env) and equal_but_for_code(new, old):
            changed.append((new, job))
    if not changed:
        return []
    record(layer, built, writer)
    return [_compare(layer, state, spec, job, count) for spec, job in changed]


def _last_done(state: State, pipeline: str) -> r.JobState | None:
    return next((job for _, job in state.jobs(pipeline) if job.state == "done"), None)


def _compare(layer: Store, state: State, spec: PipelineSpec, job: r.JobState, count: int) -> Comparison:
    context = state.context(job.context)
    known = state.job(context.job) if context is not None else None
    if context is None or known is None:
        return Comparison(spec.name, job.version, 0, ())
    made, out = layer.tree(context.t), layer.tree(context.out)
    plan = plan_job(
        spec,
        {bound.name: bound for bound in known.inputs},
        r.Context(inputs={}, order=context.order),
        layer.tree,
        read=lambda value: layer.objects.read(decode_value(value)),
    )
    datums = [datum for key in _sample(made, count) if (datum := plan.datum(key)) is not None]
    scratch = Path(tempfile.mkdtemp(prefix="dmlpipe-same-"))
    try:
        worker = InlineWorker(layer, scratch, worker="same")
        rows, _ = worker.run(worker_spec(spec, plan, job=_NO_JOB, run=_NO_JOB, version=0), datums)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    different = []
    for row in rows:
        paths, _ = msgspec.msgpack.decode(made.get(row.key) or b"", type=tuple[list[str], bytes])
        before = {path: out.get(path.encode()) for path in paths}
        if row.outcome != Outcome.OK or dict(row.outputs) != before:
            different.append(describe_key(row.key, spec.input, context.order))
    return Comparison(spec.name, job.version, len(rows), tuple(different))


def _sample(made: Tree, count: int) -> list[bytes]:
    """Draw keys of datums that were made; the same ones each time."""
    total = len(made)
    places = set(random.Random(0).sample(range(total), min(count, total)))
    last = max(places, default=-1)
    found = []
    for place, (key, _) in enumerate(made.scan()):
        if place in places:
            found.append(key)
        if place >= last:
            break
    return found
