"""The lease pool: no datum is lost, none is counted twice, whatever workers do."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dmlpipe.scheduler.leases.executor import (
    DatumFailed,
    JobFinished,
    JobOffer,
    JobStuck,
    Progressed,
    SegmentStored,
    WorkersChanged,
)
from dmlpipe.scheduler.leases.pool import LOSSES_MAX, LeasePool
from dmlpipe.scheduler.leases.pool_events import LostDatum, PoolEvent, WorkerLost
from dmlpipe.scheduler.leases.recall import choose_recalls
from dmlpipe.scheduler.leases.sizing import TARGET_S
from dmlpipe.storage.errors import NotFoundError
from dmlpipe.storage.objects.segment import Failure
from dmlpipe.worker.job import Lease
from dmlpipe.worker.messages import (
    PROTOCOL,
    Computed,
    FailedDatum,
    GivenBack,
    LeaseRequest,
    Stored,
    StoredLease,
)

_segments = itertools.count()


def request(
    worker: str,
    *,
    slot: int = 0,
    returned: tuple[Computed, ...] = (),
    stored: tuple[Stored, ...] = (),
    giving_back: tuple[GivenBack, ...] = (),
    failures: tuple[FailedDatum, ...] = (),
    draining: bool = False,
) -> LeaseRequest:
    return LeaseRequest(
        protocol=PROTOCOL,
        version="0",
        worker=worker,
        slot=slot,
        returned=returned,
        stored=stored,
        giving_back=giving_back,
        failures=failures,
        draining=draining,
    )


def computed(lease: Lease, seconds: float = 0.0) -> Computed:
    return Computed(lease.id, lease.stop - lease.start, 0, seconds)


def stored(*leases: Lease) -> Stored:
    parts = tuple(StoredLease(lease.id, tuple(range(lease.start, lease.stop))) for lease in leases)
    rows = sum(len(part.indexes) for part in parts)
    return Stored(leases[0].job, f"segment-{next(_segments)}", leases[0].fold, parts, rows, 0)


def pool_with(count: int, *, slots: int = 4, batch: int = 0, cpus: float = 1.0, ended: bool = True) -> LeasePool:
    pool = LeasePool()
    pool.add_worker("w", slots)
    pool.offer(JobOffer(job="j", spec="spec", pipeline="p", batch=batch, cpus=cpus))
    pool.add_block("j", "block", count)
    if ended:
        pool.end_blocks("j")
    pool.events()
    return pool


def take(pool: LeasePool, worker: str = "w", slot: int = 0, now: float = 0.0) -> Lease:
    lease = pool.take(worker, slot, now)
    assert lease is not None
    return lease


def lose(pool: LeasePool, worker: str) -> list[PoolEvent]:
    """Lose a worker that had stored nothing it did not report; return the events."""
    pool.remove_worker(worker)
    before = pool.events()
    for event in before:
        if isinstance(event, WorkerLost):
            pool.settle(event.job, event.worker)
    return [*before, *pool.events()]


def kinds(events: list[PoolEvent]) -> list[type]:
    return [type(event) for event in events]


def test_a_job_finishes_when_its_last_datum_is_stored_not_when_it_is_computed() -> None:
    pool = pool_with(1)
    lease = take(pool)
    pool.report(request("w", returned=(computed(lease),)), 1.0)
    assert JobFinished(job="j") not in pool.events()
    pool.report(request("w", stored=(stored(lease),)), 1.0)
    assert kinds(pool.events()) == [SegmentStored, Progressed, JobFinished]
    assert pool.jobs() == []


def two_jobs(*, slots: int) -> LeasePool:
    pool = LeasePool()
    pool.add_worker("w", slots)
    pool.add_worker("far", slots)
    for job in ("a", "b"):
        pool.offer(JobOffer(job=job, spec="", pipeline=job, near=(b"model of " + job.encode(),)))
        pool.add_block(job, "block", 1000)
    return pool


def test_a_host_that_holds_a_jobs_inputs_works_at_that_job() -> None:
    pool = two_jobs(slots=8)
    assert pool.wanted_files() == {"a": (b"model of a",), "b": (b"model of b",)}
    leases = [pool.take(worker, slot, 0.0, [near]) for slot in range(8) for worker, near in (("w", "a"), ("far", "b"))]
    jobs = [lease.job for lease in leases if lease is not None]
    assert jobs == ["a", "b"] * 8


def test_no_job_starves_because_another_ones_inputs_are_everywhere() -> None:
    pool = two_jobs(slots=8)
    leases = [pool.take(worker, slot, 0.0, ["a"]) for slot in range(8) for worker in ("w", "far")]
    jobs = [lease.job for lease in leases if lease is not None]
    # Two slots more than its share of eight, never more.
    assert 6 <= jobs.count("b") <= 8
    assert all(jobs[:number].count("a") - jobs[:number].count("b") <= 3 for number in range(17))


def test_priority_counts_for_more_than_where_inputs_are() -> None:
    pool = two_jobs(slots=8)
    pool.offer(JobOffer(job="urgent", spec="", pipeline="u", priority=1))
    pool.add_block("urgent", "block", 1)
    lease = pool.take("w", 0, 0.0, ["a"])
    assert lease is not None
    assert lease.job == "urgent"


def test_a_job_of_no_blocks_finishes_at_its_end() -> None:
    pool = LeasePool()
    pool.offer(JobOffer(job="j", spec="", pipeline="p"))
    assert pool.events() == []
    pool.end_blocks("j")
    assert pool.events()[-1] == JobFinished(job="j")


def test_a_job_waits_for_its_last_block_to_be_announced() -> None:
    pool = pool_with(1, ended=False)
    lease = take(pool)
    pool.report(request("w", returned=(computed(lease),), stored=(stored(lease),)), 1.0)
    assert JobFinished(job="j") not in pool.events()
    pool.end_blocks("j")
    assert JobFinished(job="j") in pool.events()


def test_leases_grow_to_the_target_and_shrink_towards_the_end() -> None:
    pool = pool_with(4000)
    now, sizes = 0.0, []
    while (lease := pool.take("w", 0, now)) is not None:
        size = lease.stop - lease.start
        sizes.append(size)
        now += size * 0.01
        pool.report(request("w", returned=(computed(lease, size * 0.01),), stored=(stored(lease),)), now)
    assert sum(sizes) == 4000
    assert sizes[0] == 1
    assert max(sizes) == pytest.approx(TARGET_S / 0.01, abs=1)
    assert sizes[-1] == 1
    assert sizes[-30:] == sorted(sizes[-30:], reverse=True)


def test_leases_shrink_towards_the_end_of_a_job_not_towards_the_end_of_what_was_read_of_its_plan() -> None:
    pool = pool_with(4096, slots=1000, ended=False)
    first = take(pool)
    pool.report(request("w", returned=(computed(first, 0.01),), stored=(stored(first),)), 0.01)
    lease = take(pool, now=0.01)
    # The plan goes on for long: half a second of work, though half an even share of what waits is two datums.
    assert lease.stop - lease.start == 50
    pool.end_blocks("j")
    lease = take(pool, now=0.02)
    assert lease.stop - lease.start == 2


def test_leases_of_a_large_cluster_are_long_enough_for_the_scheduler() -> None:
    # A request of each of 4,000 slots waits for 0.4 s where one costs 100 us: a lease of one datum of 10 ms seems to
    # take that long. By half a second of work it would have one datum for ever.
    pool = LeasePool()
    for number in range(4_000):
        pool.add_worker(f"w{number}", 1)
    pool.offer(JobOffer(job="j", spec="", pipeline="p"))
    pool.add_block("j", "b", 1_000_000)
    now, size = 0.0, 0
    for _ in range(20):
        lease = pool.take("w0", 0, now)
        assert lease is not None
        size = lease.stop - lease.start
        now += 0.4 + size * 0.01
        done = Computed(lease.id, size, 0, size * 0.01)
        pool.report(LeaseRequest(protocol=PROTOCOL, version="0", worker="w0", slot=0, want=1, returned=(done,)), now)
    # 1.6 s at 0.4 ms for each slot, of which 0.4 s are waiting.
    assert size == pytest.approx(120, rel=0.1)


def test_the_cost_of_fetching_counts_when_leases_are_sized() -> None:
    pool = pool_with(4000)
    lease = take(pool, now=0.0)
    # The datum itself took a microsecond; getting it there took 100 ms.
    pool.report(request("w", returned=(computed(lease, 1e-6),)), 0.1)
    lease = take(pool, now=0.1)
    assert lease.stop - lease.start == 5


def test_a_batched_job_is_leased_in_whole_batches() -> None:
    pool = pool_with(1000, batch=64)
    now, sizes = 0.0, []
    while (lease := pool.take("w", 0, now)) is not None:
        sizes.append(lease.stop - lease.start)
        now += 0.001 * sizes[-1]
        pool.report(request("w", returned=(computed(lease),), stored=(stored(lease),)), now)
    assert sum(sizes) == 1000
    assert all(size % 64 == 0 for size in sizes[:-1])


def test_two_jobs_share_the_slots() -> None:
    pool = pool_with(100, slots=4)
    pool.offer(JobOffer(job="k", spec="", pipeline="q"))
    pool.add_block("k", "b", 100)
    taken = [take(pool, slot=slot).job for slot in range(4)]
    assert sorted(taken) == ["j", "j", "k", "k"]


def test_a_wide_datum_waits_for_its_slots_and_keeps_others_out() -> None:
    pool = pool_with(100, slots=4)
    narrow = [take(pool, slot=slot) for slot in range(3)]
    pool.offer(JobOffer(job="wide", spec="", pipeline="q", cpus=4))
    pool.add_block("wide", "b", 2)
    # Slot 3 is free, but the wide job is next and needs all four.
    assert pool.take("w", 3, 0.0) is None
    pool.report(request("w", returned=tuple(computed(lease) for lease in narrow)), 1.0)
    wide = take(pool, slot=3)
    assert wide.job == "wide"
    assert pool.take("w", 0, 0.0) is None
    pool.report(request("w", slot=3, returned=(computed(wide),)), 1.0)
    assert take(pool, slot=0).job == "j"


def test_a_lost_worker_returns_what_it_had_not_stored() -> None:
    pool = pool_with(10)
    first, second = take(pool), take(pool, slot=1)
    pool.report(request("w", returned=(computed(first), computed(second)), stored=(stored(first),)), 0.1)
    lose(pool, "w")
    pool.add_worker("x", 1)
    rows: list[int] = []
    while (lease := pool.take("x", 0, 1.0)) is not None:
        rows += range(lease.start, lease.stop)
        pool.report(request("x", returned=(computed(lease),), stored=(stored(lease),)), 1.0)
    assert sorted(rows) == [index for index in range(10) if index != first.start]
    assert JobFinished(job="j") in pool.events()


def test_datums_of_a_lost_unfinished_lease_are_leased_one_by_one() -> None:
    pool = pool_with(64, slots=2, batch=16)
    assert take(pool).stop == 16
    lose(pool, "w")
    pool.add_worker("x", 1)
    sizes = []
    while (lease := pool.take("x", 0, 1.0)) is not None:
        sizes.append(lease.stop - lease.start)
    # The innocent come first, in batches; then the suspects, alone.
    assert sizes == [16] * 3 + [1] * 16


def test_a_datum_that_loses_five_workers_alone_is_lost_and_the_job_ends() -> None:
    pool = pool_with(1)
    events: list[PoolEvent] = []
    for losses in range(LOSSES_MAX):
        pool.add_worker(f"w{losses}", 1)
        assert pool.take("w" if losses == 0 else f"w{losses}", 0, 0.0) is not None
        events += lose(pool, "w" if losses == 0 else f"w{losses}")
    assert LostDatum(job="j", block="block", index=0) in events
    assert events[-1] == JobFinished(job="j")
    assert [event.failed for event in events if isinstance(event, Progressed)] == [1]


def test_the_neighbours_of_a_datum_that_kills_workers_are_not_blamed() -> None:
    killer = 3
    pool = pool_with(8)
    events: list[PoolEvent] = []
    done: set[int] = set()
    for number in range(50):
        worker = f"v{number}"
        pool.add_worker(worker, 4)
        leases = [lease for slot in range(4) if (lease := pool.take(worker, slot, 0.0)) is not None]
        if not leases:
            break
        if any(lease.start <= killer < lease.stop for lease in leases):
            events += lose(pool, worker)
        else:
            pool.report(request(worker, returned=tuple(map(computed, leases)), stored=(stored(*leases),)), 0.1)
            done.update(index for lease in leases for index in range(lease.start, lease.stop))
    lost = [event.index for event in events if isinstance(event, LostDatum)]
    assert lost == [killer]
    assert done == set(range(8)) - {killer}


def test_reports_of_a_lost_worker_and_repeated_reports_count_nothing() -> None:
    pool = pool_with(4)
    lease = take(pool)
    report = request("w", returned=(computed(lease),), stored=(stored(lease),))
    pool.report(report, 0.1)
    pool.events()
    pool.report(report, 0.2)
    assert pool.events() == []
    late = take(pool)
    lose(pool, "w")
    pool.events()
    pool.report(request("w", stored=(stored(late),)), 0.3)
    assert pool.events() == []
    assert pool.status()[0].queued == 3


def test_a_lease_given_back_is_leased_again_from_where_it_was_left() -> None:
    pool = pool_with(64, batch=16)
    lease = take(pool)
    pool.report(request("w", returned=(Computed(lease.id, 6, 0, 0.0),), giving_back=(GivenBack(lease.id, 6, 16),)), 0.1)
    assert pool.flush_wanted("w")
    assert not pool.flush_wanted("w")
    again = take(pool)
    assert (again.start, again.stop) == (6, 16)


def test_cancel_drops_what_is_queued_and_waits_for_what_is_held() -> None:
    pool = pool_with(100)
    lease = take(pool)
    pool.cancel("j")
    pool.cancel("j")
    assert pool.take("w", 1, 0.0) is None
    assert pool.cancelled_for("w") == ("j",)
    assert pool.cancel_news("w", 0)
    assert not pool.cancel_news("w", 0)
    assert pool.cancel_news("w", -1)
    pool.report(request("w", stored=(stored(lease),)), 0.1)
    assert kinds(pool.events()) == [SegmentStored, Progressed, JobFinished]
    assert pool.cancelled_for("w") == ()


def test_revoke_finishes_a_job_whose_workers_do_not_answer() -> None:
    pool = pool_with(100)
    lease = take(pool)
    pool.revoke("j")
    assert pool.events()[-1] == JobFinished(job="j")
    pool.report(request("w", stored=(stored(lease),)), 0.1)
    assert pool.events() == []
    assert pool.holds("w") == 0


def test_folds_stay_open_while_a_lease_of_them_is_out() -> None:
    pool = pool_with(100)
    old = take(pool)
    pool.advance_fold("j", 1)
    new = take(pool, slot=1)
    assert (old.fold, new.fold) == (0, 1)
    assert pool.open_folds("j") == (0, 1)
    pool.report(request("w", stored=(stored(old),)), 0.1)
    assert pool.open_folds("j") == (1,)


def test_the_backlog_counts_blocks_that_no_slot_has_begun() -> None:
    pool = pool_with(1, ended=False)
    pool.add_block("j", "second", 1)
    pool.add_block("j", "second", 1)
    assert pool.backlog("j") == 2
    take(pool)
    assert pool.backlog("j") == 1
    assert pool.backlog("unknown") == 0


def test_a_draining_worker_gets_nothing_and_does_not_count() -> None:
    pool = pool_with(10)
    pool.report(request("w", draining=True), 0.0)
    assert pool.take("w", 0, 0.0) is None
    assert pool.events() == [WorkersChanged(workers=1, slots=0)]


def test_failures_are_reported_once_and_at_most_a_hundred() -> None:
    pool = pool_with(500)
    for number in range(200):
        failed = FailedDatum("j", str(number // 2).encode(), Failure("E", "m"))
        pool.report(request("w", failures=(failed,)), 0.0)
    events = [event for event in pool.events() if isinstance(event, DatumFailed)]
    assert len(events) == len({event.key for event in events}) == 100


def test_progress_comes_at_most_five_times_a_second() -> None:
    pool = pool_with(10)
    lease = take(pool)
    assert pool.progress(1.0) is None
    assert pool.events() == [Progressed(job="j", computed=0, failed=0, running=1, seconds=0.0)]
    pool.report(request("w", returned=(computed(lease, 0.5),)), 1.05)
    assert pool.progress(1.1) == pytest.approx(1.2)
    assert pool.events() == []
    assert pool.progress(1.2) is None
    assert pool.events() == [Progressed(job="j", computed=1, failed=0, running=0, seconds=0.5)]


def test_a_job_that_was_never_offered_is_refused() -> None:
    with pytest.raises(NotFoundError, match="never offered"):
        LeasePool().add_block("j", "b", 1)


def test_what_comes_for_a_finished_job_is_ignored_until_it_is_offered_again() -> None:
    pool = LeasePool()
    offer = JobOffer(job="j", spec="", pipeline="p")
    pool.offer(offer)
    pool.end_blocks("j")
    pool.add_block("j", "b", 1)
    pool.end_blocks("j")
    assert pool.jobs() == []
    pool.offer(offer)
    pool.add_block("j", "b", 1)
    assert pool.backlog("j") == 1


def test_what_a_lost_worker_had_stored_is_not_queued_again() -> None:
    pool = pool_with(12, batch=4)
    lease, other = take(pool), take(pool, slot=1)
    pool.remove_worker("w")
    assert WorkerLost(job="j", worker="w", leases=(lease, other)) in pool.events()
    assert pool.status()[0].leased == 8
    pool.settle("j", "w", [stored(lease)])
    assert [event.rows for event in pool.events() if isinstance(event, SegmentStored)] == [4]
    assert (pool.status()[0].leased, pool.status()[0].queued) == (0, 8)
    pool.settle("j", "w", [stored(other)])
    assert pool.events() == []


def test_a_fold_stays_open_until_a_lost_worker_is_settled() -> None:
    pool = pool_with(10)
    take(pool)
    pool.advance_fold("j", 1)
    pool.remove_worker("w")
    assert pool.open_folds("j") == (0,)
    pool.settle_all()
    assert pool.open_folds("j") == ()


# --- resources, priorities, recalls


def machine_pool(**workers: tuple[int, dict[str, float]]) -> LeasePool:
    pool = LeasePool()
    for name, (slots, resources) in workers.items():
        pool.add_worker(name, slots, resources)
    return pool


def offer(pool: LeasePool, job: str, count: int, **needs: Any) -> None:
    pool.offer(JobOffer(job=job, spec="s", pipeline=job, **needs))
    pool.add_block(job, f"block-{job}", count)
    pool.end_blocks(job)


def test_a_job_gets_only_workers_that_have_what_it_needs() -> None:
    pool = machine_pool(plain=(2, {}), gpu=(2, {"gpu": 1, "licence": 2}))
    offer(pool, "train", 4, gpus=1)
    offer(pool, "solve", 4, resources={"licence": 2})
    assert pool.take("plain", 0, 0.0) is None
    assert {take(pool, "gpu", 0).job, take(pool, "gpu", 1).job} == {"train", "solve"}


def test_a_device_is_given_to_one_lease_at_a_time_and_other_jobs_run_beside_it() -> None:
    pool = machine_pool(w=(3, {"gpu": 1}))
    offer(pool, "train", 4, gpus=1)
    first = take(pool, "w", 0)
    assert pool.take("w", 1, 0.0) is None
    offer(pool, "plain", 4)
    assert take(pool, "w", 1).job == "plain"
    assert take(pool, "w", 2).job == "plain"
    pool.report(request("w", returned=(computed(first),)), 1.0)
    assert take(pool, "w", 0).job == "train"


def test_leases_together_stay_below_the_memory_that_a_worker_says_it_has() -> None:
    pool = machine_pool(w=(4, {"memory": 10.0}), unsaid=(4, {}))
    offer(pool, "large", 9, memory_bytes=4)
    assert [pool.take("w", slot, 0.0) is not None for slot in range(4)] == [True, True, False, False]
    assert [pool.take("unsaid", slot, 0.0) is not None for slot in range(4)] == [True] * 4


def test_what_no_worker_has_is_said_once_and_so_is_that_one_came_that_has_it() -> None:
    pool = machine_pool()
    offer(pool, "train", 4, gpus=2)
    assert not any(isinstance(event, JobStuck) for event in pool.events())  # nobody is there yet
    pool.add_worker("a", 1, {"gpu": 1})
    pool.add_worker("b", 1)
    stuck = [event for event in pool.events() if isinstance(event, JobStuck)]
    assert stuck == [JobStuck(job="train", missing="gpu: 2 (the most that a worker has is 1)")]
    pool.add_worker("c", 1, {"gpu": 2})
    assert [event for event in pool.events() if isinstance(event, JobStuck)] == [JobStuck(job="train", missing="")]
    pool.remove_worker("c")
    assert [event for event in pool.events() if isinstance(event, JobStuck)] == stuck


@pytest.mark.parametrize(("cpus", "at_once"), [(0.5, 4), (1, 4), (1.5, 2), (2, 2), (3, 1), (4, 1), (9, 1)])
def test_a_datum_of_several_cpus_takes_as_many_slots_or_the_whole_worker(cpus: float, at_once: int) -> None:
    pool = machine_pool(w=(4, {}))
    offer(pool, "wide", 9, cpus=cpus)
    assert [pool.take("w", slot, 0.0) is not None for slot in range(4)].count(True) == at_once
    assert not any(isinstance(event, JobStuck) for event in pool.events())


def test_a_job_of_a_higher_priority_goes_first_whoever_came_first() -> None:
    pool = machine_pool(w=(4, {}))
    offer(pool, "low", 4)
    offer(pool, "high", 2, priority=1)
    assert [take(pool, "w", slot).job for slot in range(4)] == ["high", "high", "low", "low"]


def test_a_straggler_is_asked_for_what_it_has_not_begun() -> None:
    pool = pool_with(64, slots=1)
    pool.report(request("w", returned=(computed(first := take(pool), 0.01),), stored=(stored(first),)), 0.01)
    lease = take(pool, now=0.01)
    rest = take(pool, slot=0, now=0.01)  # everything is out now, but for what comes back
    while (more := pool.take("w", 0, 0.01)) is not None:
        rest = more
    pool.add_worker("idle", 1)

    def recalls(now: float) -> list[int]:
        chosen = choose_recalls(pool.recallable(["idle"]), pool.seconds_per_datum, idle=1, now=now)
        return [out.lease.id for out in chosen]

    assert recalls(0.02) == [lease.id]  # the largest
    assert recalls(0.02) != [lease.id]  # asked already
    half = GivenBack(lease.id, lease.stop - 8, lease.stop)
    pool.report(request("w", giving_back=(half,)), 0.03)
    back = take(pool, "idle")
    assert (back.block, back.start) == (lease.block, lease.stop - 8)
    assert rest.id != lease.id


def test_slow_datums_at_the_end_are_recalled_though_the_average_is_small() -> None:
    pool = pool_with(8, slots=1)
    first = take(pool)
    pool.report(request("w", returned=(computed(first, 0.0001),), stored=(stored(first),)), 0.0001)
    lease = take(pool, now=0.001)
    while pool.take("w", 0, 0.001) is not None:
        pass
    pool.add_worker("idle", 1)

    def recalls(now: float) -> list[int]:
        return [
            out.lease.id for out in choose_recalls(pool.recallable(["idle"]), pool.seconds_per_datum, idle=1, now=now)
        ]

    assert recalls(0.1) == []  # a millisecond of work: not worth a message
    assert recalls(0.5) == [lease.id]  # it has stood still for half a second
    assert lease.id not in recalls(1.0)
    assert recalls(1.6) == [lease.id]  # not answered


def test_nothing_is_recalled_for_a_worker_that_could_not_take_it() -> None:
    pool = machine_pool(gpu=(1, {"gpu": 1}), idle=(1, {}))
    offer(pool, "train", 2, gpus=1)
    first = take(pool, "gpu")
    pool.report(request("gpu", returned=(computed(first, 5.0),), stored=(stored(first),)), 5.0)
    take(pool, "gpu", now=5.0)
    assert list(pool.recallable(["idle"])) == []


def test_the_backlog_tells_how_many_slots_it_is_worth() -> None:
    pool = LeasePool()
    assert pool.slots_wanted(5.0) == 0
    offer(pool, "j", 1000)
    assert pool.slots_wanted(5.0) == 1000  # nothing is known: a slot each
    pool.add_worker("w", 1)
    first = take(pool)
    pool.report(request("w", returned=(computed(first, 0.1),), stored=(stored(first),)), 0.1)
    assert pool.slots_wanted(5.0) == 20  # 99.9 s of work
    assert pool.idle_workers() == ["w"]
    take(pool)
    assert pool.idle_workers() == []


def test_a_million_datums_are_a_few_numbers_in_the_pool() -> None:
    pool = LeasePool()
    pool.add_worker("w", 16)
    pool.offer(JobOffer(job="j", spec="s", pipeline="p"))
    tracemalloc.start()
    for number in range(250):
        pool.add_block("j", f"{number:064x}", 4096)
    for slot in range(16):
        take(pool, slot=slot)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 250 * 1024


@dataclass
class _Held:
    lease: Lease
    open: set[int]
    done: int = 0
    alone: int = 0


@dataclass
class _Model:
    ended: bool = False
    cancelled: bool = False
    finished: bool = False
    where: dict[tuple[str, int], str] = field(default_factory=dict)
    """Datum -> queued, held, stored, lost, dropped."""


class PoolMachine(RuleBasedStateMachine):
    """Workers take, compute, store, give back, vanish and repeat themselves; the controller offers and cancels."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = LeasePool()
        self.jobs: dict[str, _Model] = {}
        self.workers: dict[str, dict[int, _Held]] = {}
        self.lost: dict[str, dict[int, _Held]] = {}
        """Lost workers that were not settled."""
        self.old: list[LeaseRequest] = []
        self.names = itertools.count()
        self.now = 0.0

    # -- what the model knows

    def settle(self) -> None:
        """Check the events since the last step against the model."""
        for event in self.pool.events():
            if isinstance(event, LostDatum):
                model = self.jobs[event.job]
                assert model.where[event.block, event.index] == "queued"
                model.where[event.block, event.index] = "lost"
            elif isinstance(event, WorkerLost):
                held = self.lost[event.worker].values()
                assert {lease.id for lease in event.leases} == {h.lease.id for h in held if h.lease.job == event.job}
            elif isinstance(event, JobFinished):
                model = self.jobs[event.job]
                assert not model.finished
                model.finished = True
        for model in self.jobs.values():
            closed = all(place in ("stored", "lost", "dropped") for place in model.where.values())
            assert model.finished == ((model.ended or model.cancelled) and closed)

    def tell(self, message: LeaseRequest) -> None:
        self.old.append(message)
        self.now += 0.01
        self.pool.report(message, self.now)

    def back(self, lease: Lease, rows: set[int]) -> None:
        model = self.jobs[lease.job]
        for row in rows:
            model.where[lease.block, row] = "dropped" if model.cancelled else "queued"

    def some_lease(self, data: st.DataObject) -> tuple[str, _Held]:
        held = [(worker, item) for worker, leases in self.workers.items() for item in leases.values()]
        return data.draw(st.sampled_from(held))

    def holding(self) -> bool:
        return any(self.workers.values())

    # -- the controller

    @initialize()
    def begin(self) -> None:
        self.add_worker(2)
        self.offer(4, 1)
        self.jobs["j0"].where.update({("b", row): "queued" for row in range(12)})
        self.pool.add_block("j0", "b", 12)

    @rule(batch=st.sampled_from([0, 3, 5]), cpus=st.sampled_from([1, 1, 2]))
    def offer(self, batch: int, cpus: float) -> None:
        if len(self.jobs) < 4:
            name = f"j{len(self.jobs)}"
            self.jobs[name] = _Model()
            self.pool.offer(JobOffer(job=name, spec="", pipeline="p", batch=batch, cpus=cpus))

    @rule(data=st.data(), count=st.integers(1, 12))
    def add_block(self, data: st.DataObject, count: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.jobs)))
        model, block = self.jobs[name], f"b{next(self.names)}"
        self.pool.add_block(name, block, count)
        self.pool.add_block(name, block, count)
        if not (model.ended or model.cancelled):
            model.where.update({(block, row): "queued" for row in range(count)})

    @rule(data=st.data())
    def end_blocks(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.jobs)))
        self.jobs[name].ended = True
        self.pool.end_blocks(name)
        self.settle()

    @rule(data=st.data(), force=st.booleans())
    def cancel(self, data: st.DataObject, force: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.jobs)))
        model = self.jobs[name]
        if not model.finished:
            model.cancelled = True
            for datum, place in model.where.items():
                if place == "queued" or (force and place == "held"):
                    model.where[datum] = "dropped"
            if force:
                for leases in [*self.workers.values(), *self.lost.values()]:
                    for held in [held for held in leases.values() if held.lease.job == name]:
                        del leases[held.lease.id]
        if force:
            self.pool.revoke(name)
        else:
            self.pool.cancel(name)
        self.settle()

    # -- workers

    @rule(slots=st.integers(1, 4))
    def add_worker(self, slots: int) -> None:
        if len(self.workers) < 3:
            name = f"w{next(self.names)}"
            self.workers[name] = {}
            self.pool.add_worker(name, slots)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def lose_worker(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.workers)))
        self.lost[name] = self.workers.pop(name)
        self.pool.remove_worker(name)
        self.settle()

    @precondition(lambda self: any(self.lost.values()))
    @rule(data=st.data())
    def settle_lost(self, data: st.DataObject) -> None:
        """The controller looks at what a lost worker had stored: nothing, or some datums of some leases."""
        name = data.draw(st.sampled_from(sorted(name for name, leases in self.lost.items() if leases)))
        job = data.draw(st.sampled_from(sorted({held.lease.job for held in self.lost[name].values()})))
        found = []
        for held in [held for held in self.lost[name].values() if held.lease.job == job]:
            lease = held.lease
            rows = data.draw(st.sets(st.sampled_from(sorted(held.open))))
            for row in rows:
                self.jobs[job].where[lease.block, row] = "stored"
            self.back(lease, held.open - rows)
            del self.lost[name][lease.id]
            part = StoredLease(lease.id, tuple(sorted(rows)))
            found.append(Stored(job, f"s{next(self.names)}", lease.fold, (part,), len(rows), 0))
        self.pool.settle(job, name, found)
        self.settle()

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), slot=st.integers(0, 3))
    def take(self, data: st.DataObject, slot: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.workers)))
        lease = self.pool.take(name, slot, self.now)
        if lease is None:
            return
        where = self.jobs[lease.job].where
        rows = set(range(lease.start, lease.stop))
        for row in rows:
            assert where[lease.block, row] == "queued"
            where[lease.block, row] = "held"
        self.workers[name][lease.id] = _Held(lease, rows)

    @precondition(lambda self: self.holding())
    @rule(data=st.data(), part=st.booleans())
    def compute(self, data: st.DataObject, part: bool) -> None:
        worker, held = self.some_lease(data)
        done = max(0, len(held.open) - held.done)
        done = done // 2 if part else done
        held.done += done
        self.tell(request(worker, returned=(Computed(held.lease.id, done, 0, 0.01),)))
        self.settle()

    @precondition(lambda self: self.holding())
    @rule(data=st.data())
    def store(self, data: st.DataObject) -> None:
        worker, held = self.some_lease(data)
        rows = data.draw(st.sets(st.sampled_from(sorted(held.open)), min_size=1))
        lease = held.lease
        part = StoredLease(lease.id, tuple(sorted(rows)))
        for row in rows:
            self.jobs[lease.job].where[lease.block, row] = "stored"
        held.open -= rows
        if not held.open:
            del self.workers[worker][lease.id]
        segment = Stored(lease.job, f"s{next(self.names)}", lease.fold, (part,), len(rows), 0)
        self.tell(request(worker, stored=(segment,)))
        self.settle()

    @precondition(lambda self: self.holding())
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        worker, held = self.some_lease(data)
        lease = held.lease
        start = data.draw(st.integers(lease.start, lease.stop))
        rows = {row for row in held.open if row >= start}
        self.back(lease, rows)
        held.open -= rows
        if not held.open:
            del self.workers[worker][lease.id]
        # Rows of it that are stored already stay stored.
        self.tell(request(worker, giving_back=(GivenBack(lease.id, start, lease.stop),)))
        self.settle()

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def repeat_a_storing_report(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self.old))
        if message.stored:
            self.pool.report(message, self.now)
            self.settle()

    @invariant()
    def every_datum_is_in_one_place(self) -> None:
        status = {job.job: job for job in self.pool.status()}
        for name, model in self.jobs.items():
            places = list(model.where.values())
            if model.finished:
                assert name not in status
                continue
            assert status[name].queued == places.count("queued")
            assert status[name].leased == places.count("held")

    def teardown(self) -> None:
        """Whatever happened, a worker that simply works finishes every job."""
        for name, model in self.jobs.items():
            model.ended = True
            self.pool.end_blocks(name)
        for name in list(self.workers):
            self.lost[name] = self.workers.pop(name)
            self.pool.remove_worker(name)
        self.settle()
        for leases in self.lost.values():
            for held in leases.values():
                self.back(held.lease, held.open)
        self.pool.settle_all()
        self.pool.add_worker("last", 4)
        while (lease := self.pool.take("last", 0, self.now)) is not None:
            where = self.jobs[lease.job].where
            for row in range(lease.start, lease.stop):
                assert where[lease.block, row] == "queued"
                where[lease.block, row] = "stored"
            self.tell(request("last", returned=(computed(lease),), stored=(stored(lease),)))
        self.settle()
        assert self.pool.jobs() == []


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
