"""What a job's page tells: read from the ledger, the job's record and its segments."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from ...storage import records as r
from ..planning.rows import DatumRow, datum_rows
from ..store import Store

SLOWEST = 25
BINS = 240
"""Parts into which a job's time is cut: a lane of a million datums is drawn as these."""


@dataclass(frozen=True, slots=True)
class Lane:
    """What one slot did over the job's time."""

    worker: str
    slot: int
    datums: int
    seconds: float
    """Sum of the datums' own."""
    busy: tuple[float, ...]
    """Of each of `BINS` parts of the time, the share in which a datum ran, 0 to 1."""
    failed: frozenset[int]
    """Parts in which a datum failed."""


@dataclass(frozen=True, slots=True)
class JobReport:
    """Everything on the page."""

    id: str
    state: r.JobState
    record: r.JobRecord | None
    """None: the job has not ended."""
    began: float
    """Unix seconds; 0 where nothing was computed, as is `ended`."""
    ended: float
    lanes: tuple[Lane, ...]
    """By worker and slot."""
    slowest: tuple[DatumRow, ...]
    failures: tuple[tuple[DatumRow, int], ...]
    """By cause: the first, and how many; most frequent first."""
    datums: int
    """Rows of all segments."""
    tries: int
    seconds: float
    untimed: int = 0
    """Datums of segments that do not say when: not in the lanes."""

    @property
    def wall_s(self) -> float:
        """From the begin of the first datum to the end of the last."""
        return max(0.0, self.ended - self.began)

    @property
    def busy_share(self) -> float:
        """Share of the slots' time in which a datum ran."""
        whole = self.wall_s * len(self.lanes)
        return min(1.0, sum(lane.seconds for lane in self.lanes) / whole) if whole else 0.0


def read_report(store: Store, job: str) -> JobReport:
    """Gather what is known of a job, ended or under way.

    Notes
    -----
    One LIST and the footers of the job's segments; memory in proportion to its datums (three numbers each).
    """
    name, state, record = store.job(job)
    lanes: dict[tuple[str, int], list[tuple[float, float, bool]]] = {}
    slowest: list[tuple[float, int, DatumRow]] = []
    failures: dict[tuple[str, str], tuple[DatumRow, int]] = {}
    datums = tries = untimed = 0
    seconds = 0.0
    for number, row in enumerate(datum_rows(store, name)):
        datums += 1
        tries += row.tries
        seconds += row.seconds
        (heapq.heappush if len(slowest) < SLOWEST else heapq.heappushpop)(slowest, (row.seconds, -number, row))
        if row.failure is not None:
            cause = (row.failure.kind, row.failure.where or row.failure.message)
            first, count = failures.get(cause, (row, 0))
            failures[cause] = first, count + 1
        if not row.ended:
            untimed += 1
            continue
        spans = lanes.setdefault((row.worker, row.slot), [])
        spans.append((row.ended - row.seconds, row.ended, row.outcome == "failed"))
    began = min((span[0] for spans in lanes.values() for span in spans), default=0.0)
    ended = max((span[1] for spans in lanes.values() for span in spans), default=0.0)
    return JobReport(
        id=name,
        state=state,
        record=record,
        began=began,
        ended=ended,
        lanes=tuple(lane_of(*key, lanes[key], began, ended) for key in sorted(lanes)),
        slowest=tuple(row for _, _, row in sorted(slowest, key=lambda item: item[:2], reverse=True)),
        failures=tuple(sorted(failures.values(), key=lambda found: -found[1])),
        datums=datums,
        tries=tries,
        seconds=seconds,
        untimed=untimed,
    )


def lane_of(worker: str, slot: int, spans: Sequence[tuple[float, float, bool]], began: float, ended: float) -> Lane:
    """Cut what a slot did into `BINS` parts of the job's time.

    Parameters
    ----------
    spans
        (begin, end, failed) of each datum.

    Examples
    --------
    >>> lane = lane_of("w", 0, [(0.0, 5.0, False), (7.5, 10.0, True)], 0.0, 10.0)
    >>> round(sum(lane.busy) / BINS, 9), min(lane.failed) / BINS
    (0.75, 0.75)
    """
    width = max(ended - began, 1e-9) / BINS
    busy = [0.0] * BINS
    failed: set[int] = set()
    for begin, end, bad in spans:
        first = min(BINS - 1, max(0, int((begin - began) / width)))
        last = min(BINS - 1, max(first, int((end - began) / width)))
        for at in range(first, last + 1):
            left, right = began + at * width, began + (at + 1) * width
            busy[at] += max(0.0, min(end, right) - max(begin, left)) / width
        if bad:
            # One that ends where a part begins has nothing in that part.
            failed.update(range(first, max(first + 1, last)))
    return Lane(
        worker=worker,
        slot=slot,
        datums=len(spans),
        seconds=sum(end - begin for begin, end, _ in spans),
        busy=tuple(min(1.0, share) for share in busy),
        failed=frozenset(failed),
    )
