r"""What a terminal shows after a command has ended, from the bytes it was sent.

A live table writes itself many times: it moves the cursor up, clears a line, writes it again. `Screen` follows the few
sequences that rich uses for this, so that a picture of a command shows what a person saw last. Colours are kept as
they came. No other terminal feature is known here.

>>> screen = Screen()
>>> screen.feed("one\ntwo\n\x1b[1A\x1b[2Kthree\n")
>>> screen.lines()
['one', 'three']
"""

from __future__ import annotations

import re

_CONTROL = re.compile(
    r"\x1b\[(?P<argument>[?0-9;]*)(?P<command>[A-Za-z])|\x1b\](?:[^\x07\x1b]|\x1b(?!\\))*(?:\x07|\x1b\\)"
)


class Screen:
    """Rows of a terminal that is as high as it needs to be."""

    def __init__(self) -> None:
        self._rows: list[str] = [""]
        self._row = 0
        self._fresh = False
        self._text: list[str] = []

    def feed(self, text: str) -> None:
        """Take more of what was written."""
        self._text.append(text)

    def lines(self) -> list[str]:
        """Rows with their colour sequences, without empty ones at the end."""
        text, self._text = "".join(self._text), []
        place = 0
        for found in _CONTROL.finditer(text):
            self._write(text[place : found.start()])
            if found["command"] == "m":
                self._write(found[0])
            elif found["command"] == "A":
                self._row = max(0, self._row - int(found["argument"] or 1))
            elif found["command"] == "K":
                self._rows[self._row] = ""
            place = found.end()
        self._write(text[place:])
        rows = [*self._rows]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def _write(self, text: str) -> None:
        for part in re.split(r"(\r\n|\n|\r)", text):
            if part in ("\n", "\r\n"):
                self._row += 1
                self._fresh = False
                if self._row == len(self._rows):
                    self._rows.append("")
            elif part == "\r":
                # What follows writes over the row; whoever writes less than stood there clears it first.
                self._fresh = True
            elif part:
                self._rows[self._row] = part if self._fresh else self._rows[self._row] + part
                self._fresh = False
