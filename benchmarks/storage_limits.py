"""What the storage figures are held against: each limit with what was measured beside it, kept or not."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .storage_peers import CP, DMLPIPE

Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Limit:
    """One line."""

    work: str
    must: str
    measured: float | None
    """None: a contender did not take part."""
    holds: bool | None


def judge(result: Result) -> list[dict[str, Any]]:
    """Return all limits of the storage benchmark as plain data."""
    parts, found = result["parts"], _Ratios(result)
    put, get, again, status = (DMLPIPE, "put"), (DMLPIPE, "get"), (DMLPIPE, "again"), (DMLPIPE, "status")
    tree = parts["tree"]
    limits = [
        _at_most("put of small files / cp -r", 1.0, found("small", put, (CP, "put"))),
        _at_least("dvc add / put of small files", 12, found("small", ("dvc", "put"), put)),
        _at_least("restic backup / put of small files", 3.5, found("small", ("restic", "put"), put)),
        _at_least("git add and commit / put of small files", 3.5, found("small", ("git", "put"), put)),
        _at_least("tuned git / put of small files", 2.5, found("small", ("git, tuned", "put"), put)),
        _at_most("put of large files / cp -r", 1 / 0.8, found("large", put, (CP, "put"))),
        _at_least("restic backup / put of large files", 2, found("large", ("restic", "put"), put)),
        _at_most("peak memory of a put of large files, MiB", 300, found.peak("large", put)),
        _at_most("put again, 10 files changed / first put", 0.3, found("small", again, put)),
        _at_most("diff of the unchanged folder / first put", 0.3, found("small", status, put)),
        _at_least("dvc status / diff", 10, found("small", ("dvc", "status"), status)),
        _at_most("diff / git status", 4, found("small", status, ("git", "status"))),
        _at_most("get of small files / cp -r", 1.5, found("small", get, (CP, "get"))),
        _at_least("dvc checkout / get", 6, found("small", ("dvc", "get"), get)),
        _at_least("restic restore / get", 2, found("small", ("restic", "get"), get)),
        _at_least("git checkout / get", 2, found("small", ("git", "get"), get)),
        _at_most("build of a tree / sorting and encoding alone", 1.5, tree["build_to_sort_and_encode"]),
        _at_most("nodes written by 10 changes", 15, tree["update_10"]["nodes_written"]),
        _at_most("nodes read by a diff of 10 changes", 30, tree["diff_10"]["nodes_read"]),
        _at_most("nodes read by the listing of a folder of 1,000", 5, tree["list_folder"]["nodes_read"]),
        _at_least("records a second by group commit", 1000, parts["ledger"]["group_records_per_s"]),
        _at_most("1,000 files through dml:// one by one / plain", 2, parts["reading"]["one_by_one_to_plain"]),
    ]
    return [asdict(limit) for limit in limits]


class _Ratios:
    """Medians of ratios within a round, by workload, contender and step."""

    def __init__(self, result: Result) -> None:
        self._rows = {
            (name, row["contender"], row.get("step")): row
            for name, workload in result["workloads"].items()
            for row in workload["rows"]
        }

    def __call__(self, workload: str, one: tuple[str, str], other: tuple[str, str]) -> float | None:
        mine, theirs = self._seconds(workload, one), self._seconds(workload, other)
        # A contender that took part in fewer rounds was there from the first.
        found = [value / base for value, base in zip(mine, theirs, strict=False)]
        return statistics.median(found) if found else None

    def peak(self, workload: str, one: tuple[str, str]) -> float:
        return float(self._rows[workload, *one]["peak_mib"])

    def _seconds(self, workload: str, one: tuple[str, str]) -> Sequence[float]:
        row = self._rows.get((workload, *one))
        return row["seconds"] if row is not None else []


def _at_most(work: str, limit: float, measured: float | None) -> Limit:
    return _limit(work, "<=", limit, measured, operator.le)


def _at_least(work: str, limit: float, measured: float | None) -> Limit:
    return _limit(work, ">=", limit, measured, operator.ge)


def _limit(
    work: str, sign: str, limit: float, measured: float | None, compare: Callable[[float, float], bool]
) -> Limit:
    if measured is None:
        return Limit(work, f"{sign} {limit:g}", None, None)
    return Limit(work, f"{sign} {limit:g}", round(measured, 3), compare(measured, limit))
