"""What slots are told to prepare for stays everybody's, and usually comes to them."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.scheduler.leases.executor import JobOffer
from dmlpipe.scheduler.leases.pool import LeasePool
from dmlpipe.worker.job import Lease
from dmlpipe.worker.messages import PROTOCOL, Computed, LeaseRequest, Stored, StoredLease


def pool_with(count: int, *workers: str) -> LeasePool:
    pool = LeasePool()
    for worker in workers:
        pool.add_worker(worker, 1)
    pool.offer(JobOffer(job="j", spec="", pipeline="p"))
    pool.add_block("j", "block", count)
    return pool


def done(pool: LeasePool, worker: str, lease: Lease, now: float, **more: Any) -> None:
    count = lease.stop - lease.start
    part = StoredLease(lease.id, tuple(range(lease.start, lease.stop)))
    stored = Stored("j", f"segment {lease.id}", 0, (part,), count, 0)
    returned = (Computed(lease.id, count, 0, 1.0 * count),)
    pool.report(
        LeaseRequest(protocol=PROTOCOL, version="0", worker=worker, slot=0, returned=returned, stored=(stored,)), now
    )


def take(pool: LeasePool, worker: str, now: float) -> Lease:
    lease = pool.take(worker, 0, now)
    assert lease is not None
    return lease


def test_a_slot_is_given_what_it_was_told_to_expect() -> None:
    pool = pool_with(20, "a", "b", "c")
    for worker in "abc":
        done(pool, worker, take(pool, worker, 0.0), 1.0)
    told = {}
    for worker in "abc":
        lease = take(pool, worker, 1.0)
        told[worker] = (lease, pool.expect(worker, 0, lease))
    spans = [span for _, span in told.values()]
    assert None not in spans
    assert len(set(spans)) == 3
    for worker in "cab":
        lease, span = told[worker]
        done(pool, worker, lease, 2.0)
        following = take(pool, worker, 2.0)
        assert span is not None
        assert (following.block, following.start) == (span.block, span.start)


def test_what_is_expected_comes_to_others_when_there_is_nothing_else() -> None:
    pool = pool_with(3, "a", "b")
    done(pool, "a", take(pool, "a", 0.0), 1.0)
    lease = take(pool, "a", 1.0)
    assert pool.expect("a", 0, lease) is not None
    assert take(pool, "b", 1.0).start == 2
    assert pool.take("b", 0, 1.0) is None


def test_a_worker_that_left_expects_nothing() -> None:
    pool = pool_with(9, "a", "b")
    done(pool, "a", take(pool, "a", 0.0), 1.0)
    span = pool.expect("a", 0, take(pool, "a", 1.0))
    pool.remove_worker("a")
    pool.settle_all()
    assert span is not None
    starts = {take(pool, "b", 2.0).start for _ in range(3)}
    assert span.start in starts


def test_short_datums_are_not_announced() -> None:
    pool = pool_with(1000, "a")
    lease = take(pool, "a", 0.0)
    assert pool.expect("a", 0, lease) is None
    pool.report(
        LeaseRequest(protocol=PROTOCOL, version="0", worker="a", slot=0, returned=(Computed(lease.id, 1, 0, 0.01),)),
        0.01,
    )
    assert pool.expect("a", 0, take(pool, "a", 0.01)) is None


@given(st.integers(0, 1 << 60))
def test_every_datum_is_leased_once_whatever_was_expected(seed: int) -> None:
    chance, now = random.Random(seed), 0.0
    workers = [f"w{number}" for number in range(chance.randint(1, 4))]
    pool = pool_with(chance.randint(1, 40), *workers)
    total = sum(status.queued for status in pool.status())
    pool.end_blocks("j")
    seen: list[int] = []
    out: dict[str, Lease] = {}
    while pool.jobs():
        now += 1.0
        worker = chance.choice(workers)
        if worker in out:
            done(pool, worker, out.pop(worker), now)
        lease = pool.take(worker, 0, now)
        if lease is not None:
            seen += range(lease.start, lease.stop)
            out[worker] = lease
            if chance.random() < 0.8:
                pool.expect(worker, 0, lease)
        assert now < 10_000
    assert sorted(seen) == list(range(total))
