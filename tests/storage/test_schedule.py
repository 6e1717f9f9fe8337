"""Schedules against cronsim, an independent reader of cron's language, and by example where the two differ."""

from __future__ import annotations

import datetime
import itertools

import pytest
from cronsim import CronSim
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dmlpipe.storage.errors import ErrorCode, InvalidInputError
from dmlpipe.storage.schedule import format_time, parse_schedule, parse_time

MOMENT = "2026-11-29T10:17:30.5Z"
RANGES = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 6)}


@st.composite
def fields(draw: st.DrawFn, name: str) -> str:
    low, high = RANGES[name]
    terms = []
    for _ in range(draw(st.integers(1, 2))):
        first = draw(st.integers(low, high - 1))
        last = draw(st.integers(first + 1, high))
        step = draw(st.integers(1, 20))
        terms.append(draw(st.sampled_from(["*", f"{first}", f"{first}-{last}", f"{first}-{last}/{step}", f"*/{step}"])))
    return ",".join(terms)


@st.composite
def crons(draw: st.DrawFn) -> str:
    minute, hour, day, month, weekday = (draw(fields(name)) for name in RANGES)
    # Where one of the two days is a star with a step, or a star in a list, the dialects differ.
    assume(not any("*" in field and field != "*" for field in (day, weekday)))
    return f"{minute} {hour} {day} {month} {weekday}"


moments = st.datetimes(datetime.datetime(2000, 1, 1), datetime.datetime(2090, 1, 1), timezones=st.just(datetime.UTC))


@given(crons(), moments)
def test_the_next_times_are_those_of_an_independent_reader(text: str, moment: datetime.datetime) -> None:
    wanted = list(itertools.islice(CronSim(text, moment), 3))
    if not wanted:
        with pytest.raises(InvalidInputError, match="no month has such a day"):
            parse_schedule(text)
        return
    schedule = parse_schedule(text)
    found = [schedule.after(moment)]
    while len(found) < len(wanted):
        last = found[-1]
        assert last is not None
        found.append(schedule.after(last))
    assert found == wanted


@settings(max_examples=20)
@given(crons(), moments, st.timedeltas(datetime.timedelta(0), datetime.timedelta(days=50)))
def test_the_last_time_is_the_last_of_all(text: str, moment: datetime.datetime, span: datetime.timedelta) -> None:
    try:
        schedule = parse_schedule(text)
    except InvalidInputError:
        return
    times = list(itertools.islice(schedule.between(moment, moment + span), 400))
    assume(len(times) < 400)
    assert schedule.last(moment, moment + span) == (times[-1] if times else None)


@pytest.mark.parametrize(
    ("text", "next_", "then"),
    [
        ("@yearly", "2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"),
        ("@monthly", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("@weekly", "2026-12-06T00:00:00Z", "2026-12-13T00:00:00Z"),
        ("@Daily", "2026-11-30T00:00:00Z", "2026-12-01T00:00:00Z"),
        ("@hourly", "2026-11-29T11:00:00Z", "2026-11-29T12:00:00Z"),
        ("@every 1m30s", "2026-11-29T10:19:00Z", "2026-11-29T10:20:30Z"),
        ("@every 10ms", "2026-11-29T10:17:31Z", "2026-11-29T10:17:32Z"),
        ("5/20 * * * *", "2026-11-29T10:25:00Z", "2026-11-29T10:45:00Z"),
        ("0 6 ? * MON-fri", "2026-11-30T06:00:00Z", "2026-12-01T06:00:00Z"),
        # One of the two: the 13th, or a Friday. A star with a step is no star.
        ("0 0 13 * fri", "2026-12-04T00:00:00Z", "2026-12-11T00:00:00Z"),
        ("0 0 */15 * sun", "2026-12-01T00:00:00Z", "2026-12-06T00:00:00Z"),
        ("0 0 29 feb *", "2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"),
    ],
)
def test_what_comes_next(text: str, next_: str, then: str) -> None:
    schedule = parse_schedule(text)
    first = schedule.after(parse_time(MOMENT))
    assert first is not None
    second = schedule.after(first)
    assert second is not None
    assert (format_time(first), format_time(second)) == (next_, then)


def test_never_has_no_time() -> None:
    assert parse_schedule("@never").after(parse_time(MOMENT)) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected 5 fields"),
        ("* * * *", "got 4"),
        ("0 0 * * * *", "got 6"),
        ("60 * * * *", "minute: '60' is not within 0 to 59"),
        ("* * * * 7", "day of the week: '7' is not within 0 to 6"),
        ("* * 5-3 * *", "day of the month: '5-3'"),
        ("*/0 * * * *", "minute"),
        ("a * * * *", "minute: cannot read 'a'"),
        ("* * * mon *", "month: cannot read 'mon'"),
        ("0 0 30 2 *", "no month has such a day"),
        ("@fortnightly", "there are @yearly"),
        ("@every soon", "expected a duration"),
        ("CRON_TZ=Europe/Berlin 0 6 * * *", "UTC"),
    ],
)
def test_what_is_no_schedule_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        parse_schedule(text)
    assert caught.value.code is ErrorCode.BAD_SPEC


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-11-29T06:00:00"])
def test_a_time_needs_its_zone(text: str) -> None:
    with pytest.raises(InvalidInputError, match="RFC 3339"):
        parse_time(text)


@given(moments)
def test_a_time_is_read_as_it_was_written(moment: datetime.datetime) -> None:
    assert parse_time(format_time(moment)) == moment
