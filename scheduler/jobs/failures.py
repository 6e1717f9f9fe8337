"""Datums of a job that failed or recovered, and why: grouped by cause, for people; one by one, for F."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...storage.objects.segment import Failure, Outcome
from ...storage.records import Counters
from ...storage.trees.tree_update import Edit
from ..report import FailureGroup
from .results import MAX_FAILURE_GROUPS, Finished, datum_id

__all__ = [
    "Failures",
]


class Failures:
    """Datums that failed or recovered, and why."""

    def __init__(self) -> None:
        self.failed: dict[bytes, str] = {}
        self._rows = 0
        self._recovered = 0
        self._groups: dict[tuple[str, str], tuple[Failure, int, bytes, bytes]] = {}
        """Kind and place to the first failure, how many, and the first datum's key and fingerprint."""

    def add(self, key: bytes, row: Finished) -> None:
        """Take a finished datum that is no success."""
        failure = row.failure or Failure("unknown", "no cause was recorded")
        self.failed[key] = f"{failure.kind}: {failure.message}".splitlines()[0][:200]
        if row.outcome == Outcome.FAILED:
            self._rows += 1
            self._group(failure, key, row.fingerprint)
        else:
            self._recovered += row.outcome == Outcome.RECOVERED

    def add_lost(self, lost: Mapping[bytes, bytes]) -> None:
        """Take datums that were given up."""
        failure = Failure("lost", "five workers were lost while they computed this datum alone")
        for key, fingerprint in lost.items():
            self.failed[key] = f"{failure.kind}: {failure.message}"
            self._group(failure, key, fingerprint)

    def _group(self, failure: Failure, key: bytes, fingerprint: bytes) -> None:
        # Messages name the file or the value at hand; failures of one cause share the kind and the place.
        cause = (failure.kind, failure.where or failure.message)
        first, count, its_key, its_fingerprint = self._groups.get(cause, (failure, 0, key, fingerprint))
        self._groups[cause] = (first, count + 1, its_key, its_fingerprint)

    def groups(self, describe: Callable[[bytes], str]) -> tuple[FailureGroup, ...]:
        """By cause, most frequent first."""
        found = [
            FailureGroup(failure=failure, count=count, datum=datum_id(fingerprint), path=describe(key))
            for failure, count, key, fingerprint in self._groups.values()
        ]
        return tuple(sorted(found, key=lambda group: (-group.count, group.path))[:MAX_FAILURE_GROUPS])

    def reasons(self) -> list[Edit]:
        """Edits of F."""
        return sorted((key, reason.encode()) for key, reason in self.failed.items())

    def counters(self, total: int, run: int, finished: int, lost: Mapping[bytes, bytes]) -> Counters:
        """Datums by what became of them."""
        return Counters(
            total=total,
            run=run,
            skipped=max(0, total - finished - len(lost)),
            failed=self._rows + len(lost),
            recovered=self._recovered,
        )
