"""Durations, sizes and shares as people write them."""

from __future__ import annotations

import math

from ...storage.durations import parse_duration_s
from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.sizes import parse_size_bytes

__all__ = ["check_share", "parse_duration_s", "parse_size_bytes"]


def check_share(value: str | int, *, what: str = "max_failures") -> str:
    """Return a number or a percentage (`"0.1%"`) in its canonical text; refuse anything else.

    Examples
    --------
    >>> check_share("0.10%")
    '0.1%'
    """
    text = str(value).strip()
    number = text.removesuffix("%").strip()
    try:
        parsed = float(number)
    except ValueError:
        parsed = -1.0
    percent = text.endswith("%")
    if isinstance(value, bool) or not 0 <= parsed < math.inf or (percent and parsed > 100):
        parsed = -1.0
    if parsed < 0 or (not percent and not parsed.is_integer()):
        raise InvalidInputError(
            f'{what}: expected a number of datums or a share such as "0.1%", got {value!r}', code=ErrorCode.BAD_SPEC
        )
    return f"{parsed:g}%" if percent else str(int(parsed))
