"""Why datums run: what differs between a pipeline's version and inputs now and those considered before.

Pure.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...storage.records import InputBinding
from ..inputs.expression import Files, canonical_json
from ..inputs.walk import constants, followed, placed
from ..pipelines.spec import Definition, PipelineSpec, expression

__all__ = ["FORCED_PREFIX", "Reason", "Why", "explain", "why_again"]

FORCED_PREFIX = "reprocess"
"""How a reason in F begins that asks for a run though a result is known."""

_SHOWN = 3
"""Definitions that are named; of more the number is given."""

_SHOWN_DIGITS = 6


class Reason(enum.StrEnum):
    """Why a datum runs. Append-only."""

    FIRST_RUN = "first-run"
    NEW = "new"
    INPUT_CHANGED = "input-changed"
    CODE_CHANGED = "code-changed"
    PARAMETER_CHANGED = "parameter-changed"
    ENV_CHANGED = "env-changed"
    CONSTANT_CHANGED = "constant-changed"
    EXPRESSION_CHANGED = "expression-changed"
    FAILED_BEFORE = "failed-before"
    FORCED = "forced"

    @property
    def phrase(self) -> str:
        """For people: `code changed`."""
        if self is Reason.CONSTANT_CHANGED:
            return "input changed"
        if self is Reason.EXPRESSION_CHANGED:
            return "declared input changed"
        return self.value.replace("-", " ")


@dataclasses.dataclass(frozen=True, slots=True)
class Why:
    """One reason, with what it is about."""

    reason: Reason
    detail: str = ""
    """`model(), dag.py:14`, `C: 1.0 -> 0.5`, `model@7d02b1 -> 9c41e2`."""

    def __str__(self) -> str:
        return f"{self.reason.phrase}: {self.detail}" if self.detail else self.reason.phrase

    def to_dict(self) -> dict[str, str]:
        """As JSON."""
        return {"reason": self.reason.value, "detail": self.detail}


def explain(
    spec: PipelineSpec,
    bindings: Mapping[str, InputBinding],
    previous: tuple[PipelineSpec, Sequence[InputBinding]] | None,
) -> list[Why]:
    """Say why a job's context differs from that of an earlier job.

    Parameters
    ----------
    spec, bindings
        The version and the commits of the job in question.
    previous
        The same of the earlier job, usually the pipeline's last one; None: there is none.

    Returns
    -------
    list of Why
        The most telling first; empty if every datum's fate follows from its own inputs.
    """
    if previous is None:
        return [Why(Reason.FIRST_RUN)]
    old, old_inputs = previous
    found: list[Why] = []
    if old.code_id != spec.code_id:
        found.append(Why(Reason.CODE_CHANGED, _code(old, spec)))
    found.extend(Why(Reason.PARAMETER_CHANGED, text) for text in _parameters(old.parameters, spec.parameters))
    if old.env != spec.env:
        found.append(Why(Reason.ENV_CHANGED, _arrow(old.env_name or old.env, spec.env_name or spec.env)))
    if old.writes != spec.writes:
        found.append(Why(Reason.EXPRESSION_CHANGED, "writes="))
    if old.by_content != spec.by_content:
        found.append(Why(Reason.EXPRESSION_CHANGED, "by_content"))
    if expression(old.input) != expression(spec.input):
        found.append(Why(Reason.EXPRESSION_CHANGED, _expressions(old, spec)))
    if old.salt != spec.salt:
        found.append(Why(Reason.FORCED))
    before = {binding.name: binding for binding in old_inputs}
    whole = constants(spec.input)
    for name, leaf in followed(spec.input).items():
        if isinstance(leaf, Files) and leaf.reference:
            continue
        binding, earlier = bindings.get(name), before.get(name)
        if name in whole and binding is not None and earlier is not None and binding.tree != earlier.tree:
            found.append(Why(Reason.CONSTANT_CHANGED, _commits(earlier, binding)))
    return found


def why_again(raw: bytes) -> Why:
    """Read a reason in F: why a datum is to be tried again."""
    reason = raw.decode()
    if reason.startswith(FORCED_PREFIX):
        return Why(Reason.FORCED, reason.removeprefix(FORCED_PREFIX).strip(": "))
    return Why(Reason.FAILED_BEFORE, reason)


def _code(old: PipelineSpec, new: PipelineSpec) -> str:
    before = {definition.name: definition for definition in old.definitions}
    after = {definition.name: definition for definition in new.definitions}
    told = [
        f"{_called(definition)}, {definition.file}:{definition.line}"
        + ("" if definition.name in before else " (added)")
        for definition in new.definitions
        if definition.name not in before or before[definition.name].hash != definition.hash
    ]
    told += [f"{_called(definition)} (gone)" for name, definition in before.items() if name not in after]
    if not told:
        return new.source
    more = len(told) - _SHOWN
    return "; ".join(told[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _called(definition: Definition) -> str:
    return definition.name.rpartition(".")[2] + "()"


def _parameters(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        before, after = (canonical_json(side[name]) if name in side else "" for side in (old, new))
        if before != after:
            yield f"{name}: {before or '(none)'} -> {after or '(none)'}"


def _expressions(old: PipelineSpec, new: PipelineSpec) -> str:
    before, after = ({entry.label: expression(entry.leaf) for entry in placed(side.input)} for side in (old, new))
    changed = [name for name in after if before.get(name) != after[name]]
    changed += [f"{name} (gone)" for name in before if name not in after]
    return ", ".join(changed) or "how inputs are combined"


def _commits(old: InputBinding, new: InputBinding) -> str:
    before, after = (side.commit[:_SHOWN_DIGITS] or "(none)" for side in (old, new))
    name = new.repo if new.branch == old.branch == "master" else f"{new.repo}@{new.branch}"
    return f"{name}: {before} -> {after}"


def _arrow(old: str, new: str) -> str:
    return new if old == new else f"{old or '(none)'} -> {new or '(none)'}"
