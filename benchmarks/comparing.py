"""Two result files side by side."""

from __future__ import annotations

from typing import NamedTuple

from dmlpipe.storage.errors import InvalidInputError

from .points import Level, Result, levels


class Compared(NamedTuple):
    """One number of workers in both results."""

    a: Level
    b: Level

    @property
    def ratio(self) -> float:
        """How many times faster B is."""
        return self.b.rate / self.a.rate


def compare(a: Result, b: Result) -> list[Compared]:
    """Pair what both have.

    Raises
    ------
    InvalidInputError
        They are of different benchmarks, or have no number of workers in common.
    """
    if a.benchmark != b.benchmark:
        raise InvalidInputError(f"A is of the benchmark {a.benchmark}, B of {b.benchmark}")
    others = {(level.scaling, level.workers): level for level in levels(b.rows)}
    found = [
        Compared(level, others[level.scaling, level.workers])
        for level in levels(a.rows)
        if (level.scaling, level.workers) in others
    ]
    if not found:
        raise InvalidInputError(
            "A and B have no number of workers in common",
            hint=f"A has {_workers(a)}, B has {_workers(b)}; measure more with --workers",
        )
    return found


def differences(a: Result, b: Result) -> list[str]:
    """Say what else differs, so that a ratio is not taken for what it is not."""
    found = []
    for name in ("workload", "cluster", "machine"):
        before, after = getattr(a, name), getattr(b, name)
        keys = sorted({*before, *after} - {"load_before"})
        told = [f"{key} {before.get(key)} / {after.get(key)}" for key in keys if before.get(key) != after.get(key)]
        if told:
            found.append(f"{name}: {', '.join(told)}")
    if (a.dmlpipe, a.commit) != (b.dmlpipe, b.commit):
        found.append(f"dmlpipe: {a.dmlpipe} {a.commit} / {b.dmlpipe} {b.commit}")
    return found


def _workers(result: Result) -> str:
    return ", ".join(f"{level.scaling} {level.workers}" for level in levels(result.rows)) or "none"
