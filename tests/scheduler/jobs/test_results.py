"""Rows gathered from segments, and resuming at a cost that does not follow the job's size."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec
import pytest
from msgspec.structs import replace

from dmlpipe.scheduler.jobs.results import Results
from dmlpipe.scheduler.store import Store
from dmlpipe.storage.objects.fold import fold_key
from dmlpipe.storage.objects.pack import PackBuilder
from dmlpipe.storage.objects.segment import Outcome, Row, SegmentMeta, encode_rows, segment_key
from dmlpipe.storage.testing import CountingBackend

_names = itertools.count()
JOB = "0123456789abcdef"


def add_segment(store: Store, fold: int, seq: int, rows: list[Row]) -> str:
    key = segment_key(JOB, fold, "w", seq)
    meta = SegmentMeta(job=JOB, fold=fold, worker="w", seq=seq, host="h", versions={"numpy": "2"})
    body = PackBuilder().finish(rows=encode_rows(rows), meta=msgspec.to_builtins(meta))
    assert store.backend.put_if_absent(key, body)
    return key


def row(number: int, outcome: Outcome = Outcome.OK, text: bytes = b"v") -> Row:
    outputs = [(f"{number}", text)] if outcome == Outcome.OK else []
    return Row(f"{number:05d}".encode(), bytes(32), outcome, outputs, 1, 0.5)


@pytest.fixture
def store() -> Store:
    return Store.init(f"memory://results-{next(_names)}")


def test_rows_come_sorted_by_key_and_a_success_wins_over_a_failure(store: Store) -> None:
    results = Results(store, JOB)
    results.add(add_segment(store, 0, 2, [row(2), row(0, text=b"second")]))
    results.add(add_segment(store, 0, 1, [row(1, Outcome.FAILED), row(0, text=b"first")]))
    results.add(add_segment(store, 0, 3, [row(1)]))
    found = [(key, finished.outcome, finished.outputs) for key, finished, _ in results.rows()]
    assert found == [
        (b"00000", Outcome.OK, (("0", b"first"),)),
        (b"00001", Outcome.OK, (("1", b"v"),)),
        (b"00002", Outcome.OK, (("2", b"v"),)),
    ]
    assert results.versions == {"numpy": "2"}


@pytest.mark.parametrize("folds", [1, 3, 12])
def test_resuming_reads_the_last_fold_and_what_came_after(store: Store, folds: int) -> None:
    results = Results(store, JOB, fold_segments=4)
    number = seq = 0
    for _ in range(folds):
        for _ in range(4):
            results.add(add_segment(store, results.fold, seq, [row(number), row(number + 1)]))
            number, seq = number + 2, seq + 1
        assert results.should_fold()
        results.close_fold(results.fold)
    results.add(add_segment(store, results.fold, seq, [row(number)]))
    before = list(results.rows())
    counting = CountingBackend(store.backend)
    store.backend = counting
    resumed = Results.resume(store, JOB, fold_segments=4)
    assert len(list(resumed.rows())) == len(before) == number + 1
    # How segments are numbered is each one's own affair.
    assert [(key, replace(found, segment=0), segment) for key, found, segment in resumed.rows()] == [
        (key, replace(found, segment=0), segment) for key, found, segment in before
    ]
    assert resumed.segments == results.segments
    # LIST of folds, two tries for the fold object, LIST and segments of the two folds that were open.
    assert counting.counts["get"] <= 2 + 5
    assert counting.counts["list"] <= 2


@pytest.mark.parametrize("damage", [lambda body: body[:-1], lambda body: bytes([body[0]]) + b"x" + body[2:]])
def test_a_damaged_fold_costs_reading_the_segments_and_no_result(
    store: Store, damage: Callable[[bytes], bytes]
) -> None:
    results = Results(store, JOB, fold_segments=2)
    for number in range(5):
        results.add(add_segment(store, results.fold, number, [row(number)]))
        if results.should_fold():
            results.close_fold(results.fold)
    before = [key for key, _, _ in results.rows()]
    for fold in range(2):
        key = fold_key(JOB, fold)
        store.backend.put(key, damage(store.backend.get(key)))
        resumed = Results.resume(store, JOB, fold_segments=2)
        assert [key for key, _, _ in resumed.rows()] == before
        assert resumed.fold == results.fold
