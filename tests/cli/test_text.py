from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.cli.text import columns, count, countdown, duration, printable, rate, size, when, width


@pytest.mark.parametrize(
    ("bytes_", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (5 * 10**12, "5.0 TB"),
     (10**19, "10,000.0 PB")],
)  # fmt: skip
def test_sizes(bytes_: int, shown: str) -> None:
    assert size(bytes_) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0004, "0.4 ms"), (0.25, "0.2 s"), (59.9, "59.9 s"), (185, "3 min 05 s"), (3725, "1 h 02 min")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_counts_rates_and_times() -> None:
    assert (count(1, "file"), count(1234, "branch"), count(2, "entry")) == ("1 file", "1,234 branches", "2 entries")
    assert (rate(1420.4), rate(0.5), rate(0.05)) == ("1,420/s", "0.5/s", "3.0/min")
    assert (countdown(7), countdown(750), countdown(3750)) == ("0:07", "12:30", "1:02:30")
    assert when("no time") == "no time"
    assert len(when("2026-11-23T19:02:11.123456Z")) == len("2026-11-23 19:02")


@given(st.text())
def test_names_never_move_the_cursor(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text


@given(st.lists(st.lists(st.text("ab画é", min_size=1, max_size=5), min_size=2, max_size=2), max_size=5))
def test_columns_begin_at_the_same_cell(rows: list[list[str]]) -> None:
    lines = columns(rows, gap=3)
    assert len({width(line) - width(row[1]) for line, row in zip(lines, rows, strict=True)}) <= 1
