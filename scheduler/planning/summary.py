"""What a plan comes to, for people and programs: how many datums run, are skipped, leave, and why."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from typing import Any

import msgspec

from ...storage.provenance.datum_key import KeyPart, read_key
from ..inputs.expression import Input
from .datums import SEPARATOR
from .plan import JobPlan
from .plan_items import Drop, Hit, Run, Twin
from .reasons import Reason, Why

__all__ = ["PlanSummary", "ReasonCount", "describe_key", "summarize"]


@dataclasses.dataclass(frozen=True, slots=True)
class ReasonCount:
    """How many datums run for one reason."""

    reason: Reason
    detail: str
    count: int
    example: str
    """The first such datum, as `describe_key` says it; empty if the job has a single datum without a name."""

    def __str__(self) -> str:
        return str(Why(self.reason, self.detail))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"reason": self.reason.value, "detail": self.detail, "count": self.count, "example": self.example}


@dataclasses.dataclass(frozen=True, slots=True)
class PlanSummary:
    """What a job's plan comes to."""

    pipeline: str
    mode: str
    """`reuse`, `delta` or `all`."""
    total: int
    """Datums of the inputs."""
    run: int
    known: int
    """Of those that do not run: results that are taken from earlier jobs, or from another datum of equal content."""
    removed: int
    """Datums whose inputs are gone."""
    reasons: tuple[ReasonCount, ...]
    """Most datums first."""

    @property
    def skipped(self) -> int:
        """Datums that do not run."""
        return self.total - self.run

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "pipeline": self.pipeline,
            "mode": self.mode,
            "total": self.total,
            "run": self.run,
            "skipped": self.skipped,
            "known": self.known,
            "removed": self.removed,
            "reasons": [reason.to_dict() for reason in self.reasons],
        }

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{line.count:,}</td><td>{html.escape(str(line))}</td><td><code>{html.escape(line.example)}</code>"
            "</td></tr>"
            for line in self.reasons
        )
        head = f"<b>{html.escape(self.pipeline)}</b> {self.run:,} of {self.total:,} run, {self.skipped:,} skipped"
        if self.removed:
            head += f", {self.removed:,} removed"
        return f"<div>{head}<table>{rows}</table></div>" if rows else f"<div>{head}</div>"


def summarize(plan: JobPlan, pipeline: str) -> PlanSummary:
    """Count what a plan does, by reason.

    Reads what `plan.items` reads; where everything runs, only as much as counting takes.
    """
    if plan.runs_all:
        first = next(plan.items(), None)
        example = "" if first is None else describe_key(first.key, plan.input, plan.order)
        reasons = [ReasonCount(plan.why.reason, plan.why.detail, plan.total, example)] if plan.total else []
        return PlanSummary(pipeline, plan.mode, plan.total, plan.total, 0, 0, tuple(reasons))
    run = known = removed = 0
    counts: dict[Why, int] = {}
    examples: dict[Why, str] = {}
    for item in plan.items():
        match item:
            case Drop():
                removed += item.gone
            case Hit() | Twin():
                known += 1
            case Run():
                run += 1
                why = Why(item.reason, item.detail)
                if why not in counts:
                    examples[why] = describe_key(item.key, plan.input, plan.order)
                counts[why] = counts.get(why, 0) + 1
    ordered = sorted(counts, key=lambda why: -counts[why])
    lines = tuple(ReasonCount(why.reason, why.detail, counts[why], examples[why]) for why in ordered)
    return PlanSummary(pipeline, plan.mode, plan.total, run, known, removed, lines)


def describe_key(key: bytes, node: Input, order: Sequence[str]) -> str:
    """Say a datum key as people write names: ``images:/a.png``, ``images:/a.png C=0.1``, of a group ``shop=north``.

    Parameters
    ----------
    node
        The pipeline's input.
    order
        Varying inputs in the order of the key (`JobPlan.order`).
    """
    parts = read_key(msgspec.to_builtins(node), order, key)
    if parts is None:
        return key.replace(SEPARATOR, b" ").decode("utf-8", "backslashreplace")
    return " ".join(text for part in parts if (text := _describe(part)))


def _describe(part: KeyPart) -> str:
    leaf = part.leaf
    if leaf is None:
        return f"{part.name}={part.text}" if part.text else ""
    match leaf.get("type"):
        case "values":
            return f"{part.name}={part.text}"
        case "array":
            folder = str(leaf.get("path", "")).strip("/")
            return f"{leaf['repo']}:/{folder}/{part.text}" if folder else f"{leaf['repo']}:/{part.text}"
        case _:
            return "" if part.grouped else f"{leaf['repo']}:/{part.text}"
