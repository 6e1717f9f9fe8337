"""Which of the units in a child's hands it may begin: numbers in a pipe that both sides read.

A slot writes the number of each unit it sends; the child takes a unit's number out before it begins the unit. Reading a
pipe is atomic, so a number is taken by exactly one side: what the slot takes out again (`withdraw`) was not begun, and
never will be.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

_NUMBER = struct.Struct("=Q")
_ALL_BYTES = 1 << 16
"""What a pipe holds."""


class Permits:
    """The child's side.

    Parameters
    ----------
    fd
        The pipe's reading end, not blocking.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._taken = -1

    def take(self, number: int) -> bool:
        """Whether unit `number` may begin. Asked in the order in which units were sent."""
        while self._taken < number:
            try:
                data = os.read(self._fd, _NUMBER.size)
            except BlockingIOError:
                return False
            if not data:
                return False
            (self._taken,) = _NUMBER.unpack(data)
        return self._taken == number


class PermitPipe:
    """The slot's side: makes the pipe."""

    def __init__(self) -> None:
        self.child_end, self._write = os.pipe()
        os.set_blocking(self.child_end, False)

    def give(self, numbers: Sequence[int]) -> None:
        """Allow units; before they are sent."""
        os.write(self._write, b"".join(map(_NUMBER.pack, numbers)))

    def withdraw(self) -> list[int]:
        """Take back what was not begun; return the units' numbers, ascending."""
        try:
            data = os.read(self.child_end, _ALL_BYTES)
        except BlockingIOError:
            return []
        return [number for (number,) in _NUMBER.iter_unpack(data)]

    def close(self) -> None:
        """Close both ends."""
        os.close(self.child_end)
        os.close(self._write)
