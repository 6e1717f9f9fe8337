"""Computing datums again though their results are known: some, those that failed, or all.

Some: their keys go into the context's F with a reason that plans take as an order. All: a new salt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from ..storage import records as r
from ..storage.digest import from_hex
from ..storage.errors import ConflictError, ErrorCode, NotFoundError
from ..storage.glob import Glob, compile_glob
from ..storage.objects.value import decode_value
from ..storage.state import State
from ..storage.store import Store
from .inputs.expression import Array, Files
from .inputs.walk import leaves
from .jobs.bindings import bind_inputs, is_single
from .pipelines.spec import decode_pipeline
from .planning.plan import JobPlan, job_context, plan_job
from .planning.reasons import FORCED_PREFIX
from .planning.rows import find_datum
from .planning.summary import describe_key
from .succession import recorded

__all__ = ["retry_chosen", "retry_datum", "retry_failed"]

_ID = re.compile(r"[0-9a-f]{4,64}")

Choose = Callable[[JobPlan], Iterable[bytes]]


def retry_chosen(store: Store, pipeline: str, names: Sequence[str]) -> int:
    """Record that the datums that `names` mean are to be computed again; return how many these are.

    Parameters
    ----------
    names
        Each a glob over an input, ``images:/cam3/*`` or ``/cam3/*``, or the first 4 or more digits of a datum's id.

    Raises
    ------
    NotFoundError
        A name means no datum of the present inputs.
    ConflictError
        A job of the pipeline is running.

    Notes
    -----
    Lists the datums of the present inputs; computes nothing.
    """

    def choose(plan: JobPlan) -> list[bytes]:
        wanted = [_Name(name) for name in names]
        found = [
            datum.key
            for datum in plan.datums()
            if _meant(wanted, datum.fingerprint, describe_key(datum.key, plan.input, plan.order))
        ]
        missed = next((name.text for name in wanted if not name.found), None)
        if missed is not None:
            raise NotFoundError(
                f"pipeline {pipeline!r} has no datum {missed!r} on its present inputs",
                code=ErrorCode.NO_DATUM,
                hint=f"list: dmlpipe datum list {pipeline}",
            )
        return found

    return _retry(store, pipeline, choose)


def retry_datum(store: Store, name: str) -> tuple[str, str]:
    """Record that one datum is to be computed again; return its pipeline, and the datum as people write it.

    Parameters
    ----------
    name
        As of `find_datum`: digits of its id, an input or an output path.
    """
    row = find_datum(store, name)

    def choose(plan: JobPlan) -> list[bytes]:
        # Its id changes with code and inputs, the inputs' paths do not.
        found = [datum.key for datum in plan.datums() if describe_key(datum.key, plan.input, plan.order) == row.shown]
        if not found:
            raise NotFoundError(
                f"{row.shown} is no longer among the inputs of pipeline {row.pipeline!r}", code=ErrorCode.NO_DATUM
            )
        return found

    _retry(store, row.pipeline, choose)
    return row.pipeline, row.shown


def retry_failed(store: Store, pipeline: str) -> int:
    """Record that datums that failed or recovered in a pipeline's last job are to be tried again; return how many."""
    state = store.refresh()
    found = _context(store, state, pipeline)
    count = sum(1 for _ in store.tree(found[1].f).scan()) if found is not None else 0
    if count:
        store.publish([r.Retry(pipelines=(pipeline,))])
    return count


def _retry(store: Store, pipeline: str, choose: Choose) -> int:
    chosen: list[bytes] = []

    def build(state: State) -> Sequence[r.Record]:
        found = _context(store, state, pipeline)
        if found is None:
            raise ConflictError(
                f"nothing is known of {pipeline!r} on its present inputs: the next run computes all of them",
                hint="next: dmlpipe run",
            )
        plan, context = found
        chosen[:] = choose(plan)
        why = f"{FORCED_PREFIX}: asked for".encode()
        f = store.tree(context.f).update((key, why) for key in sorted(chosen))
        return [r.DatumsRetry(pipeline=pipeline, key=plan.key.hex(), f=f.root.hex())]

    store.publish(build, sync=store.nodes.take_written)
    return len(chosen)


def _context(store: Store, state: State, pipeline: str) -> tuple[JobPlan, r.Context] | None:
    """The plan of a job of the pipeline now, and what is remembered of its context."""
    spec = recorded(store, state, pipeline)
    if spec is None:
        raise NotFoundError(f"no pipeline {pipeline!r}", code=ErrorCode.NO_PIPELINE, hint="list: dmlpipe pipeline list")
    heads = {
        f"{leaf.repo}@{leaf.branch}": state.head(leaf.repo, leaf.branch) or ""
        for leaf in leaves(spec.input)
        if isinstance(leaf, Files | Array)
    }
    if not all(heads.values()):
        return None
    single = {
        name: is_single(decode_pipeline(store.nodes.get(from_hex(each.spec)))) for name, each in state.pipelines()
    }
    bindings = bind_inputs(state, spec, heads, single)
    context = state.context(job_context(spec, bindings).hex())
    if context is None:
        return None
    plan = plan_job(spec, bindings, context, store.tree, read=lambda value: store.objects.read(decode_value(value)))
    return plan, context


def _meant(names: Iterable[_Name], fingerprint: bytes, shown: str) -> bool:
    # Every name is asked: each has to mean something.
    return sum(name.means(fingerprint, shown) for name in names) > 0


class _Name:
    """One thing that a user typed, and whether it meant something."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.found = False
        self._id = text if _ID.fullmatch(text) else ""
        repo, colon, path = text.partition(":")
        self._repo = repo if colon else ""
        self._glob: Glob | None = None if self._id else compile_glob(path if colon else text)

    def means(self, fingerprint: bytes, shown: str) -> bool:
        hit = fingerprint.hex().startswith(self._id) if self._id else any(self._paths(shown))
        self.found = self.found or hit
        return hit

    def _paths(self, shown: str) -> Iterator[bool]:
        for word in shown.split(" "):
            repo, colon, path = word.partition(":")
            if colon and self._glob is not None and (not self._repo or repo == self._repo):
                yield self._glob.is_root or self._glob.match(path.strip("/")) is not None
