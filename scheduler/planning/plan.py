"""What a job must do: which datums run, which results are taken from memory, which leave the output.

Rules (T, S and F are the trees of a `Context`)
-----
1. No context: everything runs and nothing is looked up.
2. The inputs are those of the context and F is empty: the output is reused, and no node is read (`reuse`).
3. Else, if some job succeeded under the context: what differs from its inputs, and F (`delta`). Else everything
   (`all`). Each datum is looked up in S before it runs.
4. A key that leaves T, or whose datum changed, is a `Drop`; a changed datum is a `Drop`, then a `Run` or `Hit`.
5. A key in F runs, unless its datum is as it was and stands in T: then the failure was that of other inputs. A reason
   that begins with ``reprocess`` makes it run all the same, without a look into S.
6. A datum that a resumed job has finished (in `finished`) is not mentioned again; its `Drop` is.
7. Where every job computes all (`every_job`), each datum of the inputs runs, and none is looked up.
8. Of a pipeline `by_content`, of datums with equal content the first runs; the others are its `Twin`s.

What the keeper of contexts owes: every datum of `Context.inputs` is in T or in F; a job that fails or is stopped only
adds to F; one that is done leaves its own failures there and nothing else.

Pure over trees: planning the same again gives the same.
"""

from __future__ import annotations

import dataclasses
import functools
import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from ...storage.digest import Digest, from_hex
from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.records import Context, InputBinding
from ...storage.trees.prolly import Tree
from ...storage.trees.tree_node import EMPTY
from ...worker.job import Datum, JobInput
from ..inputs.expression import Files, Input
from ..inputs.scope import scope
from ..inputs.walk import constants, followed
from ..pipelines.spec import PipelineSpec
from .datums import Bound, Combination, bind, rebind
from .fingerprint import context_key
from .job_inputs import job_inputs
from .memory import Memory
from .plan_items import Drop, PlanItem, Run, Twin
from .reasons import Reason, Why, why_again

__all__ = [
    "JobPlan",
    "job_context",
    "plan_job",
]

_BATCH = 1024
"""Datums looked up together."""

Mode = Literal["reuse", "delta", "all"]


class _Todo(NamedTuple):
    key: bytes
    old: Combination | None
    """What leaves, if T has it."""
    new: Combination | None
    why: Why
    in_t: bool
    """Whether T is known to have the key, because it has all keys of the old inputs but those in F."""


@dataclasses.dataclass(frozen=True)
class JobPlan:
    """What a job must do. Made by `plan_job`; reads trees when asked."""

    key: Digest
    """K."""
    input: Input
    """The expression."""
    order: tuple[str, ...]
    """Varying inputs in the order of the datum key."""
    constants: Mapping[str, bytes]
    """Content id of each constant input."""
    inputs: Mapping[str, str]
    """What the context is to remember of each varying input: a tree id, or a grid's values as JSON."""
    mode: Mode
    why: Why
    """Why a datum runs of which nothing else is known."""
    _new: Bound = dataclasses.field(repr=False)
    _old: Bound | None = dataclasses.field(repr=False)
    _every: bool = dataclasses.field(repr=False)
    """Every datum runs, whatever is known."""
    _memory: Memory = dataclasses.field(repr=False)
    _job_inputs: tuple[JobInput, ...] = dataclasses.field(repr=False)

    @functools.cached_property
    def total(self) -> int:
        """Number of datums of the inputs, run or not.

        Counted from the context's own trees and the changes where there is a context, else by listing.
        """
        if self._old is None:
            return self._new.count()
        known = self._memory.known(self._old)
        return known if self.mode == "reuse" else self._old.grown(self._new, known)

    @property
    def runs_all(self) -> bool:
        """Whether every datum runs, as nothing is known that could be looked up."""
        memory = self._memory
        known = not (memory.s.is_empty() and memory.f.is_empty() and not memory.finished)
        return self._old is None and not known and not memory.by_content

    def items(self) -> Iterator[PlanItem]:
        """Everything to do, sorted by key, read as it is yielded. May be iterated again."""
        if self.mode == "reuse":
            return
        todos = self._everything() if self._old is None else self._anew() if self._every else self._changed()
        contents: set[bytes] | None = set() if self._memory.by_content else None
        while batch := list(itertools.islice(todos, _BATCH)):
            yield from self._look_up(batch, contents)

    def job_inputs(self) -> tuple[JobInput, ...]:
        """Inputs as workers see them: the varying ones in the order of the key, then the constant ones."""
        return self._job_inputs

    def datum(self, key: bytes) -> Datum | None:
        """Return the datum with that key, whatever the plan does with it."""
        found = self._new.get(key)
        return None if found is None else self._new.datum(self.key, found)

    def datums(self) -> Iterator[Datum]:
        """Every datum of the inputs, sorted by key, whatever the plan does with it."""
        return (self._new.datum(self.key, found) for found in self._new.enumerate())

    def _everything(self) -> Iterator[_Todo]:
        for found in self._new.enumerate():
            yield _Todo(found.key, None, found, self.why, False)

    def _changed(self) -> Iterator[_Todo]:
        assert self._old is not None
        changes = (
            _Todo(key, old, new, _why_changed(self.order, old, new), True)
            for key, old, new in self._old.delta(self._new)
        )
        merged = heapq.merge(changes, self._failed(), key=lambda todo: todo.key)
        for key, group in itertools.groupby(merged, key=lambda todo: todo.key):
            todos = list(group)
            if len(todos) == 2:
                # Both changed and to be tried again: the change says what leaves and what comes.
                changed, failed = sorted(todos, key=lambda todo: not todo.in_t)
                only_changed = changed.why.reason is Reason.INPUT_CHANGED and failed.why.reason is not Reason.FORCED
                why = changed.why if only_changed else failed.why
                yield _Todo(key, changed.old, changed.new, why, False)
            elif todos[0].in_t:
                yield todos[0]
            else:
                found = self._new.get(key)
                if found is not None:
                    yield todos[0]._replace(old=found, new=found)

    def _anew(self) -> Iterator[_Todo]:
        """What leaves, and all that is there."""
        assert self._old is not None
        changes = (_Todo(key, old, new, _ANEW, False) for key, old, new in self._old.delta(self._new))
        there = (_Todo(found.key, found, found, _ANEW, False) for found in self._new.enumerate())
        # What changed stands in both: the change, which comes first, says what leaves.
        merged = heapq.merge(changes, there, key=lambda todo: todo.key)
        return (next(group) for _, group in itertools.groupby(merged, key=lambda todo: todo.key))

    def _failed(self) -> Iterator[_Todo]:
        for key, reason in self._memory.f.scan():
            yield _Todo(key, None, None, why_again(reason), False)

    def _look_up(self, batch: Sequence[_Todo], contents: set[bytes] | None) -> Iterator[PlanItem]:
        """Decide for some datums; `contents` are the fingerprints that run in this job, where equal ones share."""
        memory = self._memory
        in_t = memory.in_t([todo.key for todo in batch if todo.old is not None and not todo.in_t])
        looks = self._old is None and not self._every
        failed = memory.failed_before([todo.key for todo in batch]) if looks else {}
        if failed:
            batch = [todo._replace(why=failed.get(todo.key, todo.why)) for todo in batch]
        finished = memory.is_finished([todo.key for todo in batch if todo.new is not None])
        datums = {todo.key: self._new.datum(self.key, todo.new) for todo in batch if todo.new is not None}
        hits = memory.successes(
            [(todo.key, datums[todo.key].fingerprint) for todo in batch if _may_hit(todo) and todo.key not in finished]
        )
        for todo in batch:
            known = todo.old is not None and (todo.in_t or todo.key in in_t)
            if todo.old is not None and known:
                if todo.old is todo.new and todo.why.reason is not Reason.FORCED:
                    continue
                yield Drop(todo.key, self._new.fingerprint(self.key, todo.old), gone=todo.new is None)
            datum = datums.get(todo.key)
            if datum is None:
                continue
            hit = hits.get(todo.key)
            if contents is not None and hit is None:
                if todo.key not in finished and datum.fingerprint in contents:
                    yield Twin(datum.key, datum.fingerprint)
                    continue
                contents.add(datum.fingerprint)
            if todo.key not in finished:
                yield hit or Run(datum, todo.why.reason, todo.why.detail)


def plan_job(
    spec: PipelineSpec,
    bindings: Mapping[str, InputBinding],
    context: Context | None,
    open_tree: Callable[[str], Tree],
    *,
    read: Callable[[bytes], bytes] | None = None,
    finished: Tree | None = None,
    why: Sequence[Why] = (),
) -> JobPlan:
    """Plan a job.

    Parameters
    ----------
    spec
        The pipeline's version.
    bindings
        The commit of each input that has a repo, by the input's name.
    context
        What is remembered under this job's K (`job_context`); None: nothing.
    open_tree
        Opens a tree by its root in hex; ``""`` is the empty tree.
    read
        Content of a file, given its encoded tree value. Array inputs need it, for their ``zarr.json``.
    finished
        Rows of a resumed job: datum key to anything.
    why
        What `explain` said: the first of it is given as the reason where no datum's own inputs are one.

    Raises
    ------
    InvalidInputError
        An input has no binding, or an array input finds no array.

    Notes
    -----
    Reads the roots of the inputs' trees and of the context's; where there are several varying inputs and no context,
    lists them once, to choose the order.
    """
    _check_bound(spec.input, bindings)
    whole = _constants(spec.input, bindings)
    key = context_key(spec, whole)
    trees = {name: open_tree(binding.tree) if binding.commit else None for name, binding in bindings.items()}
    reader = read or _no_reader
    order = context.order if context is not None else ()
    commits = {name: binding.commit for name, binding in bindings.items()}
    new = bind(spec.input, trees, order=order, read=reader, commits=commits, by_content=spec.by_content)
    inputs = new.record()
    memory = Memory.open(context, finished, open_tree, by_content=spec.by_content)
    every = spec.options.every_job
    old: Bound | None = None
    mode: Mode = "all"
    if context is not None and (context.inputs or context.t):
        if context.inputs == inputs and memory.f.is_empty() and not every:
            old, mode = new, "reuse"
        else:
            old = rebind(spec.input, context.inputs, new, open_tree=open_tree, read=reader, by_content=spec.by_content)
            mode = "delta"
    return JobPlan(
        key=key,
        input=spec.input,
        order=new.order,
        constants=whole,
        inputs=inputs,
        mode=mode,
        why=_ANEW if every and context is not None else why[0] if why else Why(Reason.FIRST_RUN),
        _new=new,
        _old=old,
        _every=every,
        _memory=memory,
        _job_inputs=job_inputs(spec, bindings, new.order),
    )


def job_context(spec: PipelineSpec, bindings: Mapping[str, InputBinding]) -> Digest:
    """Return K of the job that `plan_job` would plan. Reads nothing."""
    _check_bound(spec.input, bindings)
    return context_key(spec, _constants(spec.input, bindings))


_ANEW = Why(Reason.FORCED, "every job computes all")


def _may_hit(todo: _Todo) -> bool:
    return todo.new is not None and todo.why.reason is not Reason.FORCED


def _why_changed(order: Sequence[str], old: Combination | None, new: Combination | None) -> Why:
    if old is None or new is None:
        return Why(Reason.NEW)
    changed = [
        name
        for name, before, after in zip(order, old.pieces, new.pieces, strict=True)
        if (before and before.content) != (after and after.content)
    ]
    return Why(Reason.INPUT_CHANGED, ", ".join(changed))


def _constants(node: Input, bindings: Mapping[str, InputBinding]) -> dict[str, bytes]:
    whole = constants(node)
    found = {}
    for name, slot in scope(node).slots.items():
        if name in whole:
            leaf = slot.leaves[0]
            found[name] = _content(bindings[name], reference=isinstance(leaf, Files) and leaf.reference)
    return found


def _content(binding: InputBinding, *, reference: bool) -> bytes:
    if not binding.commit or reference:
        return b""
    return from_hex(binding.tree) if binding.tree else EMPTY


def _check_bound(node: Input, bindings: Mapping[str, InputBinding]) -> None:
    missing = [label for label in followed(node) if label not in bindings]
    if missing:
        raise InvalidInputError(f"no commit was given for input {missing[0]!r}", code=ErrorCode.BAD_INPUT)


def _no_reader(value: bytes) -> bytes:
    raise InvalidInputError("an array input was planned without a reader of contents", code=ErrorCode.BAD_INPUT)
