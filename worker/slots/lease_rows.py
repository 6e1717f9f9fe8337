"""The rows of one lease: held until the job's shared inputs were compared with what they were, then let go."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import msgspec

from ...storage.objects.segment import Failure, Outcome, Row
from ..job import Datum
from .failures import wrote_to_input
from .job_work import JobWork


class LeaseReport:
    """What became of a lease's datums, for whoever reports; called from the slot's thread."""

    def ended(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Datums ended, by index in their block (their rows go to the segment writer at the same time)."""

    def given_back(self, indexes: Sequence[int]) -> None:
        """Datums that were not begun and will not be."""

    def notice(self, text: str) -> None:
        """Something that people should be told once."""


class LeaseRows:
    """The rows of one lease.

    Parameters
    ----------
    datums
        Of the lease.
    start
        Index of the first datum in its block.
    fold, lease
        Where the rows belong.
    slot
        Number of the slot.
    now
        Monotonic seconds, the child's clock.
    """

    def __init__(
        self,
        job: JobWork,
        datums: Sequence[Datum],
        report: LeaseReport,
        *,
        start: int,
        fold: int,
        lease: int,
        slot: int,
        now: Callable[[], float],
    ) -> None:
        self._job = job
        self._datums = datums
        self._report = report
        self._start = start
        self._fold = fold
        self._lease = lease
        self._slot = slot
        self._now = now
        self._held: list[tuple[int, Row]] = []
        """By index in the block."""
        self._wall = time.time() - now()
        """What the child's clock lacks to the time of day."""
        self.settled_at = now()

    @property
    def held(self) -> bool:
        """Whether rows wait for the shared inputs to be looked at."""
        return bool(self._held)

    def hold(
        self,
        index: int,
        outcome: Outcome,
        outputs: list[tuple[str, bytes]],
        seconds: float,
        log: bytes,
        failure: Failure | None,
        *,
        tries: int,
        ended_at: float | None = None,
    ) -> None:
        """Take in how a datum (by its index in the lease) ended; now, unless it says when."""
        datum = self._datums[index]
        failure = self._job.redacted(failure) if failure else None
        ended = self._wall + (ended_at if ended_at is not None else self._now())
        row = Row(datum.key, datum.fingerprint, outcome, outputs, tries, seconds, log, failure, ended, self._slot)
        self._held.append((self._start + index, row))

    def settle(self) -> None:
        """Compare the shared inputs, then let the held rows go."""
        self.settled_at = self._now()
        if not self._held:
            return
        held, self._held = self._held, []
        changed = self._job.inputs.changed()
        if changed is not None:
            failure = wrote_to_input(os.path.relpath(changed, self._job.inputs.folder / "constants"))
            held = [(index, row if row.outcome is Outcome.FAILED else _spoilt(row, failure)) for index, row in held]
        self._job.results.add(self._fold, self._lease, held)
        self._report.ended(held)

    def give_back(self, indexes: Sequence[int]) -> None:
        """Give datums (by their index in the lease) back: they were not begun and will not be."""
        if indexes:
            self._report.given_back([self._start + index for index in indexes])


def _spoilt(row: Row, failure: Failure) -> Row:
    return msgspec.structs.replace(row, outcome=Outcome.FAILED, outputs=[], failure=failure)
