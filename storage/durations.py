"""Durations as people write them."""

from __future__ import annotations

import math
import re

from .errors import ErrorCode, InvalidInputError

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ns|us|µs|ms|min|s|m|h|d)")


def parse_duration_s(value: str | float, *, what: str = "duration") -> float:
    """Seconds of `"1h30m"`, `"90s"` or a number of seconds.

    Examples
    --------
    >>> parse_duration_s("1h30m")
    5400.0
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value) or value < 0:
            raise InvalidInputError(f"{what}: expected seconds of 0 or more, got {value!r}", code=ErrorCode.BAD_SPEC)
        return float(value)
    text = str(value).strip()
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip():
        raise InvalidInputError(
            f'{what}: expected a duration such as "90s", "10m" or "1h30m", got {value!r}', code=ErrorCode.BAD_SPEC
        )
    return float(sum(float(number) * _SECONDS[unit] for number, unit in parts))
