"""Sorting records in files: the same as in memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.scheduler.jobs.sorting import SortedRecords

records = st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=3)), max_size=60)


@given(records, records, st.sampled_from([1, 700, 1 << 20]))
def test_records_come_sorted_and_equal_ones_in_order(
    first: list[tuple[bytes, bytes]], second: list[tuple[bytes, bytes]], memory: int
) -> None:
    found = SortedRecords(memory)
    for key, value in first:
        found.add(key, value)
    assert list(found) == sorted(first, key=lambda record: record[0])
    for key, value in second:
        found.add(key, value)
    assert list(found) == list(found) == sorted(first + second, key=lambda record: record[0])
    assert len(found) == len(first + second)
    found.close()
    assert (list(found), len(found)) == ([], 0)
