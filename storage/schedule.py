"""Times that come again: cron's five fields, ``@daily`` and its like, ``@every 20s``, ``@never``. All in UTC.

Fields are those of robfig/cron: ``*``, ``?``, numbers, names, ranges, steps and lists; ``5/15`` begins at 5. A day must
fit both the day of the month and the day of the week where one of them is ``*`` or ``?``, else one of the two.
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from .durations import parse_duration_s
from .errors import ErrorCode, InvalidInputError

__all__ = ["Schedule", "format_time", "parse_schedule", "parse_time"]

_DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NAMES = {name: at for at, name in enumerate(_MONTHS, 1)} | {name: at for at, name in enumerate(_WEEKDAYS)}
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _WEEKDAYS),
)
_TERM = re.compile(r"(?:(?P<star>[*?])|(?P<low>\w+)(?:-(?P<high>\w+))?)(?:/(?P<step>\d+))?")
_HORIZON_YEARS = 9
"""29 February comes again within eight years."""
_MINUTE = datetime.timedelta(minutes=1)
_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Times that come again. Make one with `parse_schedule`."""

    minutes: tuple[int, ...] = ()
    hours: tuple[int, ...] = ()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    """0: Sunday."""
    both: bool = True
    """A day must fit `days` and `weekdays`; else one of them."""
    every_s: int = 0
    """``@every``: seconds from one time to the next; then the fields are empty."""

    def after(self, moment: datetime.datetime) -> datetime.datetime | None:
        """Return the first time after `moment` (aware); None: there is none.

        Examples
        --------
        >>> moment = parse_time("2026-11-29T10:00:00Z")
        >>> format_time(parse_schedule("0 6 * * mon").after(moment))
        '2026-11-30T06:00:00Z'
        """
        moment = moment.astimezone(datetime.UTC)
        if self.every_s:
            return moment.replace(microsecond=0) + datetime.timedelta(seconds=self.every_s)
        if not self.minutes:
            return None
        first = moment.replace(second=0, microsecond=0) + _MINUTE
        day = first.replace(hour=0, minute=0)
        while day.year <= moment.year + _HORIZON_YEARS and day.year < datetime.MAXYEAR:
            if day.month not in self.months:
                day = (day.replace(day=1) + 32 * _DAY).replace(day=1)
                continue
            if self._on(day):
                for hour in self.hours:
                    for minute in self.minutes:
                        found = day.replace(hour=hour, minute=minute)
                        if found >= first:
                            return found
            day += _DAY
        return None

    def between(self, after: datetime.datetime, until: datetime.datetime) -> Iterator[datetime.datetime]:
        """Yield the times after `after` up to `until`, that one included."""
        found = self.after(after)
        while found is not None and found <= until:
            yield found
            found = self.after(found)

    def last(self, after: datetime.datetime, until: datetime.datetime) -> datetime.datetime | None:
        """Return the last time after `after` up to `until`, that one included; None: there is none."""
        found = self.after(after)
        if found is None or found > until:
            return None
        if self.every_s:
            return found + (until - found) // datetime.timedelta(seconds=self.every_s) * datetime.timedelta(
                seconds=self.every_s
            )
        # Nearer beginnings first: a schedule of every minute has a million times in two years.
        for back in (datetime.timedelta(hours=2), 2 * _DAY, 40 * _DAY):
            begin = max(found, until - back)
            near = list(self.between(begin, until))
            if near:
                return near[-1]
        return max(self.between(found, until), default=found)

    def _on(self, day: datetime.datetime) -> bool:
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (of_month and of_week) if self.both else (of_month or of_week)


@functools.lru_cache(maxsize=256)
def parse_schedule(text: str) -> Schedule:
    """Read a schedule.

    Raises
    ------
    InvalidInputError
        It is none, or has no time at all (code ``bad-spec``).
    """
    given = text.strip()
    lower = given.lower()
    if lower == "@never":
        return Schedule()
    if lower.startswith("@every"):
        seconds = parse_duration_s(given[len("@every") :], what=f"schedule {text!r}")
        return Schedule(every_s=max(1, int(seconds)))
    if lower.startswith("@"):
        if lower not in _DESCRIPTORS:
            _refuse(text, f"there are {', '.join(_DESCRIPTORS)}, @every DURATION and @never")
        given = _DESCRIPTORS[lower]
    if given.upper().startswith(("TZ=", "CRON_TZ=")):
        _refuse(text, "times are in UTC; leave the zone out")
    fields = given.split()
    if len(fields) != len(_FIELDS):
        _refuse(text, f"expected 5 fields (minute hour day month weekday), got {len(fields)}")
    read = [_field(text, field, place) for place, field in enumerate(fields)]
    (minutes, _), (hours, _), (days, any_day), (months, _), (weekdays, any_weekday) = read
    found = Schedule(
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=frozenset(days),
        months=frozenset(months),
        weekdays=frozenset(weekdays),
        both=any_day or any_weekday,
    )
    if found.after(datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)) is None:
        _refuse(text, "no month has such a day")
    return found


def _field(text: str, field: str, place: int) -> tuple[set[int], bool]:
    """The numbers of a field, and whether it takes all."""
    name, low, high, words = _FIELDS[place]
    found: set[int] = set()
    every = False
    for term in field.split(","):
        read = _TERM.fullmatch(term)
        if read is None:
            _refuse(text, f"{name}: cannot read {term!r}")
        step = int(read["step"] or 1)
        if read["star"]:
            first, last = low, high
            every |= step == 1
        else:
            first = _number(text, name, read["low"], words)
            last = _number(text, name, read["high"], words) if read["high"] else high if read["step"] else first
        if not low <= first <= last <= high or not step:
            _refuse(text, f"{name}: {term!r} is not within {low} to {high}")
        found.update(range(first, last + 1, step))
    return found, every


def _number(text: str, name: str, word: str, words: tuple[str, ...]) -> int:
    if word.isdecimal():
        return int(word)
    if word.lower() not in words:
        _refuse(text, f"{name}: cannot read {word!r}")
    return _NAMES[word.lower()]


def _refuse(text: str, why: str) -> NoReturn:
    raise InvalidInputError(
        f"schedule {text!r}: {why}",
        code=ErrorCode.BAD_SPEC,
        hint='for example: "0 6 * * 1-5", "*/15 * * * *", "@daily", "@every 20s"',
    )


def parse_time(text: str | datetime.datetime) -> datetime.datetime:
    """Read a time of RFC 3339, or check one: aware, in UTC.

    Raises
    ------
    InvalidInputError
        It is none, or says no zone (code ``bad-spec``).
    """
    try:
        found = datetime.datetime.fromisoformat(text) if isinstance(text, str) else text
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise InvalidInputError(
            f"time {text!r}: expected one of RFC 3339 with its zone",
            code=ErrorCode.BAD_SPEC,
            hint='for example: "2026-11-29T06:00:00Z"',
        )
    return found.astimezone(datetime.UTC)


def format_time(moment: datetime.datetime) -> str:
    """Write a time as RFC 3339 in UTC, with a fraction only if it has one; such texts sort by time within a second."""
    return moment.astimezone(datetime.UTC).replace(tzinfo=None).isoformat() + "Z"
