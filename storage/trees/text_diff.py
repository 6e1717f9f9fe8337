"""What differs inside small text files, as ``diff -u`` and ``git diff`` say it.

Pure. What is no UTF-8, holds a NUL, or is large counts as binary and is not looked into.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

TEXT_MAX_BYTES = 256 << 10
"""Larger files are not compared line by line."""

_CONTEXT = 3
_NO_NEWLINE = "\\ No newline at end of file"


@dataclass(frozen=True, slots=True)
class TextDiff:
    """How one text became another."""

    added: int
    """Lines."""
    removed: int
    patch: str
    """Unified diff with headers, each line ended; what ``patch -p1`` and ``git apply`` take."""


def diff_text(path: str, old: bytes | None, new: bytes | None) -> TextDiff | None:
    r"""Compare two contents of a file; None if one of them is binary.

    Parameters
    ----------
    path
        With leading slash.
    old, new
        None: there is no such file.

    Examples
    --------
    >>> print(diff_text("/a", b"one\ntwo\n", b"one\n2\n").patch, end="")
    --- a/a
    +++ b/a
    @@ -1,2 +1,2 @@
     one
    -two
    +2
    """
    before, after = _lines(old), _lines(new)
    if before is None or after is None:
        return None
    left = "/dev/null" if old is None else f"a{path}"
    right = "/dev/null" if new is None else f"b{path}"
    lines = list(difflib.unified_diff(before, after, left, right, n=_CONTEXT))
    body = lines[2:]
    return TextDiff(
        added=sum(line.startswith("+") for line in body),
        removed=sum(line.startswith("-") for line in body),
        patch="".join(_ended(lines)),
    )


def _ended(lines: list[str]) -> Iterator[str]:
    for line in lines:
        yield line if line.endswith("\n") else f"{line}\n{_NO_NEWLINE}\n"


def _lines(content: bytes | None) -> list[str] | None:
    if content is None:
        return []
    if len(content) > TEXT_MAX_BYTES or b"\0" in content:
        return None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    # Only \n ends a line: str.splitlines knows many more.
    *whole, last = text.split("\n")
    return [line + "\n" for line in whole] + ([last] if last else [])
