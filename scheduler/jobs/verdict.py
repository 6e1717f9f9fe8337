"""How a job ended, and why: for the ledger, and for people. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ..pipelines.spec import PipelineSpec
from .fold import Folded
from .path_edits import Conflict

__all__ = ["HOPELESS_AFTER", "Verdict", "allows", "judge"]

HOPELESS_AFTER = 50
"""A job whose first so many datums all failed is stopped."""


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """How a job ended."""

    state: str
    """`done`, `failed` or `stopped`."""
    reason: str = ""
    """Empty: done."""


def allows(max_failures: str, failed: int, total: int) -> bool:
    """Whether so many failures are within an option's bounds: a number, or a share of all datums."""
    if failed == 0:
        return True
    if max_failures.endswith("%"):
        return failed <= total * float(max_failures[:-1]) / 100
    return failed <= int(max_failures or 0)


def judge(
    spec: PipelineSpec,
    folded: Folded,
    total: int,
    *,
    publish: bool,
    stop_reason: str | None,
    hopeless: bool,
    describe: Callable[[bytes], str],
) -> Verdict:
    """Say how a job ended.

    Parameters
    ----------
    total
        Datums of its inputs.
    publish
        Whether failures are within bounds, and nobody stopped it.
    stop_reason
        Why it was stopped; None: it was not.
    hopeless
        Whether it was stopped since its first datums all failed.
    describe
        Names a datum's input for people.
    """
    if stop_reason is not None:
        return Verdict("stopped", stop_reason)
    if folded.conflict is not None:
        return Verdict("failed", _conflict_text(spec.name, folded.conflict, describe))
    if publish:
        return Verdict("done")
    if hopeless:
        return Verdict("failed", f"the first {HOPELESS_AFTER} datums all failed")
    where = f", first: {folded.failures[0].path}" if folded.failures else ""
    return Verdict(
        "failed",
        f"{folded.counters.failed} of {total} datums failed (max_failures={spec.options.max_failures}){where}",
    )


def _conflict_text(repo: str, conflict: Conflict, describe: Callable[[bytes], str]) -> str:
    mine = describe(conflict.key)
    other = describe(conflict.other_key) if conflict.other_key is not None else "the array's own metadata"
    if conflict.path == conflict.other_path:
        return f"two datums write {repo}:/{conflict.path}: {mine} and {other}"
    return (
        f"{repo}:/{conflict.path} of {mine} and {repo}:/{conflict.other_path} of {other}"
        " cannot both exist: one is a file where the other needs a folder"
    )
