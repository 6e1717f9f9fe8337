"""Segments that a worker stored and could not report before it was lost."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from dmlpipe.scheduler.leases.executor import JobOffer, SegmentStored
from dmlpipe.scheduler.leases.pool import LeasePool
from dmlpipe.scheduler.leases.pool_events import WorkerLost
from dmlpipe.scheduler.leases.unreported import find_unreported
from dmlpipe.storage.backend import Backend, open_backend
from dmlpipe.storage.objects.pack import PackBuilder
from dmlpipe.storage.objects.segment import Outcome, Row, SegmentMeta, encode_rows, segment_key
from dmlpipe.worker.job import Datum, encode_block

_names = itertools.count()
DATUMS = [Datum(f"key{index}".encode(), bytes([index]) * 32, ()) for index in range(10)]


@pytest.fixture
def backend() -> Backend:
    return open_backend(f"memory://unreported-{next(_names)}")


def read_block(block: str) -> bytes:
    assert block == "block"
    return encode_block(DATUMS)


def write_segment(backend: Backend, indexes: list[int], *, worker: str = "w", fold: int = 0, failed: int = 0) -> str:
    key = segment_key("j", fold, worker, next(_names))
    outcomes = [Outcome.FAILED] * failed + [Outcome.OK] * (len(indexes) - failed)
    rows = [
        Row(DATUMS[index].key, DATUMS[index].fingerprint, outcome, [], 1, 0.1)
        for index, outcome in zip(indexes, outcomes, strict=True)
    ]
    meta = SegmentMeta(job="j", fold=fold, worker=worker, seq=0, host="h")
    body = PackBuilder().finish(rows=encode_rows(rows), meta=msgspec.to_builtins(meta, builtin_types=(bytes,)))
    assert backend.put_if_absent(key, body)
    return key


def lost_with(*spans: tuple[int, int]) -> tuple[LeasePool, WorkerLost]:
    """A pool whose worker was lost with leases of these datums."""
    pool = LeasePool()
    pool.add_worker("w", len(spans))
    size = spans[0][1] - spans[0][0]
    pool.offer(JobOffer(job="j", spec="", pipeline="p", batch=size))
    pool.add_block("j", "block", len(DATUMS))
    for slot, (start, stop) in enumerate(spans):
        lease = pool.take("w", slot, 0.0)
        assert lease is not None
        assert (lease.start, lease.stop) == (start, stop)
    pool.remove_worker("w")
    (lost,) = [event for event in pool.events() if isinstance(event, WorkerLost)]
    return pool, lost


def test_a_segment_that_was_not_reported_is_found_and_its_datums_are_not_leased_again(backend: Backend) -> None:
    pool, lost = lost_with((0, 3), (3, 6))
    key = write_segment(backend, [1, 2, 4], failed=1)
    (found,) = find_unreported(backend, read_block, lost)
    assert (found.key, found.rows, found.failed) == (key, 3, 1)
    pool.settle("j", "w", [found])
    assert SegmentStored(job="j", key=key, rows=3, failed=1, fold=0) in pool.events()
    pool.add_worker("x", 1)
    rows: list[int] = []
    while (lease := pool.take("x", 0, 1.0)) is not None:
        rows += range(lease.start, lease.stop)
    assert sorted(rows) == [0, 3, 5, 6, 7, 8, 9]


def test_segments_of_other_workers_folds_and_datums_are_not_taken(backend: Backend) -> None:
    _, lost = lost_with((0, 3))
    write_segment(backend, [0], worker="other")
    write_segment(backend, [1], fold=1)
    write_segment(backend, [7])
    assert find_unreported(backend, read_block, lost) == ()


def test_a_segment_that_was_reported_is_counted_once(backend: Backend) -> None:
    pool, lost = lost_with((0, 3))
    write_segment(backend, [0, 1, 2])
    found = find_unreported(backend, read_block, lost)
    pool.settle("j", "w", [*found, *found])
    assert len([event for event in pool.events() if isinstance(event, SegmentStored)]) == 1
    pool.settle("j", "w", found)
    assert pool.events() == []
