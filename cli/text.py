"""How numbers, times, names and tables look in a terminal."""

from __future__ import annotations

import datetime
import unicodedata
from collections.abc import Sequence

ID_DIGITS = 6
"""Hex digits of a commit, job or datum that people are shown."""

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")


def count(number: int, noun: str) -> str:
    """`1 file`, `1,000 files`, `2 branches`."""
    if number == 1:
        return f"1 {noun}"
    plural = (
        f"{noun}es" if noun.endswith(("ch", "s", "x")) else f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}s"
    )
    return f"{number:,} {plural}"


def size(size_bytes: int) -> str:
    """`512 B`, `1.2 MB`."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in _SIZES:
        # 999.95 would be shown as 1000.0.
        if value < 999.95:
            return f"{value:.1f} {unit}"
        value /= 1000
    return f"{value * 1000:,.1f} {_SIZES[-1]}"


def duration(seconds: float) -> str:
    """`0.4 ms`, `2.1 s`, `3 min 05 s`, `1 h 02 min`."""
    if seconds < 0.1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def countdown(seconds: float) -> str:
    """`0:07`, `12:30`, `1:02:30`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def rate(per_second: float) -> str:
    """`1,420/s`, `0.3/s`, `4/min`."""
    if per_second >= 10:
        return f"{per_second:,.0f}/s"
    if per_second >= 0.1:
        return f"{per_second:.1f}/s"
    return f"{per_second * 60:.1f}/min"


def when(timestamp: str) -> str:
    """`2026-11-23 19:02` in local time, from a record's UTC time; as it is if it is no time."""
    try:
        moment = datetime.datetime.fromisoformat(timestamp)
    except ValueError:
        return timestamp
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def short(identity: str) -> str:
    """First digits of a commit, job, run or datum."""
    return identity[:ID_DIGITS]


def printable(text: str) -> str:
    r"""Escape what would move the cursor: names in a store are other people's.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def width(text: str) -> int:
    """Terminal cells that a text takes.

    >>> width("ab"), width("画像")
    (2, 4)
    """
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def columns(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset(), gap: int = 2) -> list[str]:
    """Align cells; the last column is never padded.

    >>> columns([["a", "10"], ["long", "7"]], right=frozenset({1}))
    ['a     10', 'long   7']
    """
    widths: dict[int, int] = {}
    for row in rows:
        for place, cell in enumerate(row):
            widths[place] = max(widths.get(place, 0), width(cell))
    lines = []
    for row in rows:
        cells = []
        for place, cell in enumerate(row):
            pad = " " * (widths[place] - width(cell))
            cells.append(pad + cell if place in right else cell + pad)
        lines.append((" " * gap).join(cells).rstrip())
    return lines
