"""The inputs of a job, as workers see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from ...storage.records import InputBinding
from ...worker.job import JobInput
from ..inputs.expression import Array, Files, Values
from ..inputs.scope import Slot, scope
from ..inputs.walk import constants
from ..pipelines.spec import PipelineSpec

__all__ = [
    "job_inputs",
]


def job_inputs(spec: PipelineSpec, bindings: Mapping[str, InputBinding], order: Sequence[str]) -> tuple[JobInput, ...]:
    """Return inputs as workers see them: the varying ones in the order of the key, then the constant ones."""
    slots = scope(spec.input).slots
    names = [*order, *(name for name in slots if name not in order)]
    whole = constants(spec.input)
    return tuple(_job_input(slots[name], bindings.get(name), constant=name in whole) for name in names)


def _job_input(slot: Slot, binding: InputBinding | None, *, constant: bool) -> JobInput:
    leaf = slot.leaves[0]
    if isinstance(leaf, Values) or binding is None:
        return JobInput(name=leaf.name, kind="values", constant=False)
    kind = "array" if isinstance(leaf, Array) else "files"
    lazy = any(isinstance(each, Files) and each.lazy for each in slot.leaves)
    empty = any(isinstance(each, Files) and each.empty for each in slot.leaves)
    if len(slot.leaves) > 1:
        # Which of them a datum has is told with the datum.
        return JobInput(name=slot.name, kind=kind, constant=False, lazy=lazy, empty=empty)
    found = JobInput(
        name=slot.name, kind=kind, constant=constant, repo=binding.repo, commit=binding.commit, tree=binding.tree
    )
    if isinstance(leaf, Files):
        return msgspec.structs.replace(found, glob=leaf.glob, lazy=lazy, empty=empty)
    return msgspec.structs.replace(found, path=leaf.path.strip("/"), halo=leaf.halo)
