from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.worker.slots.attempts import Attempts


def run(attempts: Attempts, bad: set[int]) -> tuple[list[int], list[int], int]:
    good: list[int] = []
    failed: list[int] = []
    calls = 0
    while (call := attempts.take()) is not None:
        calls += 1
        if bad & set(call.indexes):
            if attempts.call_failed(call):
                failed.extend(call.indexes)
        else:
            for index in call.indexes:
                attempts.succeeded(index)
                good.append(index)
    return good, failed, calls


@given(st.integers(0, 60), st.integers(0, 16), st.integers(1, 3), st.sets(st.integers(0, 59)))
def test_every_datum_ends_once_and_only_the_bad_ones_fail(count: int, batch: int, tries: int, bad: set[int]) -> None:
    attempts = Attempts(count, batch=batch, tries=tries, together=lambda a, b: True)
    good, failed, _ = run(attempts, bad)
    assert sorted(good) == [i for i in range(count) if i not in bad]
    assert sorted(failed) == [i for i in range(count) if i in bad]
    assert all(attempts.tries_of(i) == (tries if i in bad else 1) for i in range(count))


def test_one_bad_datum_in_a_batch_costs_logarithmically_many_calls() -> None:
    _, failed, calls = run(Attempts(64, batch=64, together=lambda a, b: True), {17})
    assert failed == [17]
    assert calls == 13


def test_a_batch_shares_its_resident_inputs() -> None:
    models = [0, 0, 1, 1, 1, 0]
    attempts = Attempts(6, batch=4, together=lambda a, b: models[a] == models[b])
    calls = []
    while (call := attempts.take()) is not None:
        calls.append(call.indexes)
    assert calls == [(0, 1), (2, 3, 4), (5,)]


def test_a_call_that_was_not_begun_is_made_again_for_free() -> None:
    attempts = Attempts(2, together=lambda a, b: True)
    first, second = attempts.take(), attempts.take()
    assert first is not None
    assert second is not None
    attempts.put_back(second)
    attempts.put_back(first)
    assert attempts.take() == first == ((0,), 1)
    assert attempts.rest() == [1]
    assert attempts.take() is None


def test_half_of_what_nobody_knows_anything_of_is_given_away() -> None:
    attempts = Attempts(10, batch=2, tries=2, together=lambda a, b: True)
    first = attempts.take()
    assert first is not None
    attempts.call_failed(first)
    # Two halves of the failed call stay, and four whole calls wait behind them.
    assert attempts.give_half() == [6, 7, 8, 9]
    assert attempts.give_half() == [4, 5]
    assert attempts.give_half() == [2, 3]
    assert attempts.give_half() == []
    assert attempts.rest() == [0, 1]


def test_a_datum_that_was_tried_stays() -> None:
    attempts = Attempts(1, tries=3, together=lambda a, b: True)
    call = attempts.take()
    assert call is not None
    assert not attempts.failed(0)
    assert attempts.give_half() == []
    assert attempts.waiting == 1
