"""The tracker's rules, one by one and all at once."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.scheduler.peers.standing import DOUBT_MAX_S, DOUBT_S, REST_S, Standing, Trust
from dmlpipe.scheduler.peers.tracker import Limits, Tracker
from dmlpipe.worker.peers.messages import PEER_PROTOCOL, STORE, Failed, Fill, Reason, Take, pack_bits, unpack_bits

FILE = b"f" * 32


def make(**limits: Any) -> Tracker:
    return Tracker(random.Random(0), Limits(**limits))


def fill(worker: str, parts: int = 4, have: int = 0, *, cache: str = "", **more: Any) -> Fill:
    return Fill(
        protocol=PEER_PROTOCOL,
        worker=worker,
        address=f"tcp://{worker}",
        cache=cache or f"cache {worker}",
        file=more.pop("file", FILE),
        parts=parts,
        part_bytes=1 << 20,
        have=pack_bits(have),
        **more,
    )


def joined(tracker: Tracker, *workers: str, files: tuple[bytes, ...] = ()) -> None:
    for worker in workers:
        tracker.join(worker, f"tcp://{worker}", f"cache {worker}", files)


@given(st.integers(0, 1 << 200))
def test_sets_of_parts_travel_as_bytes(bits: int) -> None:
    assert unpack_bits(pack_bits(bits)) == bits


def test_a_part_is_read_from_the_store_by_one_worker_at_a_time() -> None:
    tracker = make()
    joined(tracker, *"abcde")
    takes = [take for worker in "abcde" for take in tracker.fill(fill(worker, want=4), 0.0)]
    assert all(take.source == STORE for take in takes)
    assert sorted(take.part for take in takes) == [0, 1, 2, 3]


def test_what_a_peer_holds_is_not_read_from_the_store() -> None:
    tracker = make()
    joined(tracker, "a", files=(FILE,))
    takes = tracker.fill(fill("b", want=4), 0.0)
    assert {take.source for take in takes} == {"a"}
    assert len(takes) == Limits().uploads_max
    assert {take.address for take in takes} == {"tcp://a"}


def test_the_least_loaded_holder_is_named() -> None:
    tracker = make()
    joined(tracker, "a", "b", files=(FILE,))
    takes = tracker.fill(fill("c", want=4), 0.0)
    assert sorted(take.source for take in takes) == ["a", "a", "b", "b"]


def test_the_rarest_part_goes_first() -> None:
    tracker = make()
    joined(tracker, "a", "b", "c")
    tracker.fill(fill("a", have=0b0111), 0.0)
    tracker.fill(fill("b", have=0b0110), 0.0)
    tracker.fill(fill("c", have=0b1010), 0.0)
    # Part 3 and part 0 are held once each, part 2 twice, part 1 three times.
    order = [take.part for take in tracker.fill(fill("d", want=4), 0.0)]
    assert set(order[:2]) == {0, 3}
    assert order[2:] == [2, 1]


def test_uploads_end_when_the_taker_does_not_name_them_any_more() -> None:
    tracker = make()
    joined(tracker, "a", files=(FILE,))
    came, *rest = [take.part for take in tracker.fill(fill("b", want=4), 0.0)]
    assert len(rest) == 2
    assert tracker.fill(fill("c", want=4), 0.0) == []
    tracker.fill(fill("b", have=1 << came, flying=tuple(rest)), 0.1)
    assert tracker.uploads("a") == 2
    assert sorted(take.source for take in tracker.fill(fill("c", want=4), 0.2)) == ["a", "b"]


def test_an_answer_that_was_lost_is_given_again() -> None:
    tracker = make()
    joined(tracker, "b")
    first = tracker.fill(fill("b", want=2), 0.0)
    again = tracker.fill(fill("b", want=2), 0.1)
    assert len(first) == len(again) == 2
    assert tracker.fill(fill("c", want=4), 0.2) == [
        take for take in tracker.fill(fill("c", want=4), 0.2) if take.part not in {t.part for t in again}
    ]


def test_workers_of_one_cache_are_not_sent_to_each_other_and_hold_the_same() -> None:
    tracker = make()
    tracker.join("a", "tcp://a", "host 1", [FILE])
    tracker.join("b", "tcp://b", "host 1")
    assert tracker.holds("b", FILE)
    assert {take.source for take in tracker.fill(fill("c", want=4), 0.0)} == {"a", "b"}
    assert tracker.fill(fill("d", want=1, cache="host 1", file=b"x" * 32), 0.0)[0].source == STORE


def test_a_worker_that_filled_a_file_holds_it_for_its_whole_cache() -> None:
    tracker = make()
    tracker.join("a", "tcp://a", "host 1")
    tracker.join("b", "tcp://b", "host 1")
    tracker.fill(fill("a", cache="host 1"), 0.0)
    tracker.fill(fill("a", have=0b1111, cache="host 1", ended=True), 1.0)
    assert tracker.holds("a", FILE)
    assert tracker.holds("b", FILE)


def test_a_cache_that_dropped_a_file_is_not_asked_for_it() -> None:
    tracker = make()
    joined(tracker, "a", files=(FILE,))
    (take,) = tracker.fill(fill("b", want=1), 0.0)
    tracker.fill(fill("b", failed=(Failed(take.part, "a", Reason.ABSENT),)), 0.1)
    assert not tracker.holds("a", FILE)
    assert tracker.standing("a", 0.1) is Standing.ASKED
    assert tracker.fill(fill("b", want=1), 0.1)[0].source == STORE
    # It fetches the file again, and serves what it has of it.
    tracker.fill(fill("a", have=0b0011), 0.2)
    assert {take.source for take in tracker.fill(fill("c", want=2), 0.2)} <= {"a", STORE}


def test_who_sent_garbage_is_never_asked_again() -> None:
    tracker = make()
    other = b"o" * 32
    joined(tracker, "a", files=(FILE, other))
    (take,) = tracker.fill(fill("b", want=1), 0.0)
    tracker.fill(fill("b", failed=(Failed(take.part, "a", Reason.GARBAGE),)), 0.1)
    assert tracker.standing("a", 1e9) is Standing.BANNED
    assert {take.source for take in tracker.fill(fill("b", want=4), 0.2)} == {STORE}
    tracker.fill(fill("a", have=1, file=other), 0.3)
    assert {take.source for take in tracker.fill(fill("c", want=4, file=other), 0.4)} == {STORE}


def test_a_first_stall_makes_others_wait_a_second_one_read_the_store() -> None:
    tracker = make()
    joined(tracker, "a", files=(FILE,))
    stalled = (Failed(0, "a", Reason.STALLED),)
    tracker.fill(fill("b", failed=stalled), 0.0)
    tracker.fill(fill("c", failed=stalled), 0.1)
    assert tracker.standing("a", 0.2) is Standing.RESTING
    assert tracker.fill(fill("b", want=4), 0.2) == []
    assert tracker.standing("a", REST_S) is Standing.ASKED
    tracker.fill(fill("b", failed=stalled), 5.0)
    assert tracker.standing("a", 5.0) is Standing.DOUBTED
    assert {take.source for take in tracker.fill(fill("b", want=4), 5.1)} == {STORE}
    assert tracker.standing("a", 5 + DOUBT_S) is Standing.ASKED
    tracker.fill(fill("c", failed=stalled), 20.0)
    assert tracker.standing("a", 19.9 + 2 * DOUBT_S) is Standing.DOUBTED
    assert tracker.standing("a", 20 + 2 * DOUBT_S) is Standing.ASKED


def test_a_part_that_came_ends_doubt() -> None:
    tracker = make()
    joined(tracker, "a", files=(FILE,))
    (take,) = tracker.fill(fill("b", want=1), 0.0)
    tracker.fill(fill("c", failed=(Failed(0, "a", Reason.GONE),)), 0.1)
    assert tracker.standing("a", 0.2) is Standing.DOUBTED
    tracker.fill(fill("b", have=1 << take.part), 0.3)
    assert tracker.standing("a", 0.3) is Standing.ASKED


@given(st.lists(st.tuples(st.sampled_from([*Reason, None]), st.floats(0, 20)), max_size=30))
def test_only_a_ban_is_for_ever(reports: list[tuple[Reason | None, float]]) -> None:
    trust, now, banned = Trust(), 0.0, False
    for reason, pause in reports:
        now += pause
        if reason is None:
            trust.served()
        else:
            trust.report(reason, now)
            banned |= reason is Reason.GARBAGE
        assert (trust.at(now) is Standing.BANNED) == banned
    assert trust.at(now + DOUBT_MAX_S) is (Standing.BANNED if banned else Standing.ASKED)


def test_a_claim_that_is_not_kept_is_made_again_by_another() -> None:
    tracker = make(claim_min_s=5, claim_bytes_s=1 << 20)
    joined(tracker, "a", "b")
    (take,) = tracker.fill(fill("a", 1, want=4), 0.0)
    assert take == Take(0, STORE)
    assert tracker.fill(fill("b", 1, want=4), 5.9) == []
    assert tracker.fill(fill("b", 1, want=4), 6.1) == [Take(0, STORE)]


def test_the_claims_of_a_worker_that_left_are_made_by_others_at_once() -> None:
    tracker = make()
    joined(tracker, "a", "b")
    tracker.fill(fill("a", 1, want=1), 0.0)
    assert tracker.fill(fill("b", 1, want=1), 0.1) == []
    tracker.leave("a")
    assert tracker.fill(fill("b", 1, want=1), 0.2) == [Take(0, STORE)]


@pytest.mark.parametrize(("parts", "have"), [(0, 0), (2, 0b100), (5, 0)])
def test_a_request_that_makes_no_sense_is_refused(parts: int, have: int) -> None:
    tracker = make()
    tracker.fill(fill("a", 4), 0.0)
    with pytest.raises(ValueError, match="parts"):
        tracker.fill(fill("b", parts, have=have), 0.0)


def test_nothing_is_kept_of_files_that_nobody_has() -> None:
    tracker = make()
    joined(tracker, "a", "b", files=(FILE,))
    tracker.fill(fill("c", want=4), 0.0)
    for worker in "abc":
        tracker.leave(worker)
    assert tracker._files == {}


@given(st.integers(0, 1 << 60))
def test_the_rules_hold_whatever_happens(seed: int) -> None:
    """Workers ask, take, fail, leave and come back in any order; a model of the truth stands beside the tracker."""
    limits = Limits(uploads_max=2, claims_max=3, claim_min_s=1e6)
    chance = random.Random(seed)
    tracker = Tracker(random.Random(seed), limits)
    parts, now = chance.randint(1, 6), 0.0
    every = (1 << parts) - 1
    have: dict[str, int] = {}
    flying: dict[str, dict[int, str]] = {}
    banned: set[str] = set()
    for _ in range(chance.randint(1, 60)):
        worker = chance.choice("abcde")
        now += chance.choice([0.0, 0.1, 1.0])
        if chance.random() < 0.08:
            tracker.leave(worker)
            have.pop(worker, None)
            flying.pop(worker, None)
            banned.discard(worker)
            continue
        mine, air = have.setdefault(worker, 0), flying.setdefault(worker, {})
        failed = []
        for part, source in list(air.items()):
            end = chance.choice(["on", "came", "came", "came", *Reason])
            if end == "on":
                continue
            del air[part]
            if end == "came":
                mine |= 1 << part
            elif isinstance(end, Reason) and (source == STORE) == (end is Reason.STORE):
                failed.append(Failed(part, source, end))
                if end is Reason.GARBAGE and source in have:
                    banned.add(source)
        have[worker] = mine
        request = fill(worker, parts, mine, flying=tuple(air), failed=tuple(failed), want=chance.randint(0, 4))
        for take in tracker.fill(request, now):
            assert not mine >> take.part & 1
            assert take.part not in air
            if take.source == STORE:
                asked = [w for w in have if w not in banned and w != worker and have[w] >> take.part & 1]
                assert all(
                    tracker.standing(w, now) is not Standing.ASKED or not _knows(tracker, w, take) for w in asked
                )
                claimed = [w for w in flying if flying[w].get(take.part) == STORE and w != worker]
                assert claimed == []
            else:
                assert take.source not in banned | {worker}
                assert have[take.source] >> take.part & 1
            air[take.part] = take.source
        assert all(0 <= tracker.uploads(w) <= limits.uploads_max for w in have)
        assert sum(list(air.values()).count(STORE) for air in flying.values()) <= limits.claims_max
        if mine == every:
            flying[worker] = {}
    counted: dict[int, int] = {}
    for (_, part), _flight in (item for file in tracker._files.values() for item in file.flights.items()):
        counted[part] = counted.get(part, 0) + 1
    for file in tracker._files.values():
        for bits in file.have.values():
            for part in range(parts):
                counted[part] = counted.get(part, 0) + (bits > 0 and bits >> part & 1)
    assert {part: count for part, count in counted.items() if count} == {
        part: count for file in tracker._files.values() for part, count in file.copies.items() if count
    }


def _knows(tracker: Tracker, worker: str, take: Take) -> bool:
    file = tracker._files.get(FILE)
    return file is not None and bool(file.have.get(worker, 0) >> take.part & 1)
