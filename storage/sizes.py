"""Sizes as people write them."""

from __future__ import annotations

import re

from .errors import ErrorCode, InvalidInputError

_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([kmgtp]?)(i?)b?", re.IGNORECASE)


def parse_size_bytes(value: str | int, *, what: str = "size") -> int:
    """Bytes of `"8GiB"`, `"64M"`, `"1e9"` is none; a number is bytes.

    Examples
    --------
    >>> parse_size_bytes("8GiB") == 8 * 1024**3
    True
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = _SIZE.fullmatch(str(value).strip())
    if found is None:
        raise InvalidInputError(
            f'{what}: expected a size such as "512MiB" or "8GiB", got {value!r}', code=ErrorCode.BAD_SPEC
        )
    number, prefix, binary = found.groups()
    power = "kmgtp".find(prefix.lower()) + 1 if prefix else 0
    unit = 1024**power if binary else _BYTES[prefix.lower()]
    return int(float(number) * unit)
