from __future__ import annotations

import itertools
import random

import pytest

from dmlpipe.storage.errors import ConflictError
from dmlpipe.storage.objects.segment import Failure, Outcome, Row
from dmlpipe.storage.objects.value import encode_value
from dmlpipe.storage.store import Store
from dmlpipe.worker.messages import StoredLease
from dmlpipe.worker.segments import FlushLimits, SegmentWriter
from tests.worker.bench import Bench


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def writer(store: Store, clock: Clock, limits: FlushLimits | None = None, worker: str = "w") -> SegmentWriter:
    return SegmentWriter(
        store,
        "job",
        worker=worker,
        host="h",
        next_seq=itertools.count().__next__,
        limits=limits or FlushLimits(),
        clock=clock,
    )


def row(key: bytes, content: bytes, to: SegmentWriter, outcome: Outcome = Outcome.OK) -> Row:
    outputs = [("o", encode_value(to.put(content)))] if outcome is Outcome.OK else []
    failure = None if outcome is Outcome.OK else Failure("x", "y")
    return Row(key, bytes(32), outcome, outputs, 1, 0.5, to.put_log(b"printed " * 40), failure)


def test_limits_come_from_the_environment() -> None:
    assert FlushLimits.from_environment({}) == FlushLimits(2.0, 8 << 20)
    assert FlushLimits.from_environment({"DMLPIPE_FLUSH_S": "0.1", "DMLPIPE_FLUSH_BYTES": "9"}) == FlushLimits(0.1, 9)


def test_a_segment_is_due_by_time_or_by_size(store: Store) -> None:
    clock = Clock()
    results = writer(store, clock, FlushLimits(2.0, 10_000))
    clock.now = 100.0
    assert not results.due()
    results.add(0, 1, [(0, row(b"a", b"x" * 500, results))])
    assert not results.due()
    clock.now = 102.0
    assert results.due()
    results.flush()
    assert not results.due()
    results.add(0, 1, [(1, row(b"b", random.Random(1).randbytes(20_000), results))])
    assert results.due()


def test_what_is_flushed_is_reported_once_by_fold_and_lease(bench: Bench) -> None:
    results = writer(bench.store, Clock())
    for fold, lease, index in ((1, 7, 3), (0, 5, 1), (0, 5, 0), (0, 6, 9)):
        outcome = Outcome.FAILED if index == 9 else Outcome.OK
        results.add(fold, lease, [(index, row(b"%d" % index, b"c%d" % index * 200, results, outcome))])
    assert results.waiting == 4
    first, second = results.flush()
    assert (first.leases, first.rows, first.failed) == ((StoredLease(5, (0, 1)), StoredLease(6, (9,))), 3, 1)
    assert (second.fold, second.leases) == (1, (StoredLease(7, (3,)),))
    assert first.key.startswith("results/job/000000/w-")
    assert results.flush() == []
    assert {r.key for r in bench.rows("job")} == {b"0", b"1", b"3", b"9"}
    assert len(bench.blobs("job")) == 4


def test_a_segment_never_replaces_another_workers(store: Store) -> None:
    one, two = writer(store, Clock()), writer(store, Clock())
    one.add(0, 1, [(0, row(b"a", b"one" * 100, one))])
    one.flush()
    two.add(0, 1, [(0, row(b"a", b"two" * 100, two))])
    with pytest.raises(ConflictError, match="two workers have the name w"):
        two.flush()
