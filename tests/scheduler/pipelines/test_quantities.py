from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.scheduler.pipelines.quantities import check_share, parse_duration_s, parse_size_bytes
from dmlpipe.storage.errors import InvalidInputError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("2d", 172800),
        (5, 5),
        (0.5, 0.5),
    ],
)
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "soon", "1h30", "-1s", -1, float("nan"), float("inf"), True, "1w"])
def test_what_is_no_duration_is_refused(text: str | float) -> None:
    with pytest.raises(InvalidInputError, match="timeout"):
        parse_duration_s(text, what="timeout")


@given(st.integers(0, 10**6), st.integers(0, 59))
def test_parts_of_a_duration_add_up(hours: int, minutes: int) -> None:
    assert parse_duration_s(f"{hours}h{minutes}m") == hours * 3600 + minutes * 60


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 << 30),
        ("64M", 64_000_000),
        ("1Gi", 1 << 30),
        ("10", 10),
        ("1.5kB", 1500),
        (7, 7),
        ("256Mi", 256 << 20),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "8XB", "-1", -1, True, "1e9"])
def test_what_is_no_size_is_refused(text: str | int) -> None:
    with pytest.raises(InvalidInputError):
        parse_size_bytes(text)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        (0, "0"),
        ("12", "12"),
        ("0.1%", "0.1%"),
        ("5.0 %", "5%"),
        ("100%", "100%"),
    ],
)
def test_shares(text: str | int, share: str) -> None:
    assert check_share(text) == share


@pytest.mark.parametrize("text", ["", "x", "-1", "101%", "0.5", "nan", "inf", "nan%", True])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        check_share(text)
