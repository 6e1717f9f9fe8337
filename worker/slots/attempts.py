"""What is tried next of one lease: tries, batches that split, datums whose child died. Pure: no I/O, no clock.

A *call* is one datum or a batch. A failed call of one datum costs that datum a try. A failed call of several (user code
raised, the process died, it hung) costs nobody a try: it is split in halves, until the one that fails is alone. A call
that was sent but not begun when the child died is made again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..job import Datum


class Call(NamedTuple):
    """Datums for one call of the transform, by index in the lease."""

    indexes: tuple[int, ...]
    attempt: int
    """1 for the first try."""


class Attempts:
    """The open calls of a lease.

    Parameters
    ----------
    count
        Datums of the lease.
    batch
        Datums per call; 0 or 1: one.
    tries
        Tries that a datum has (at least 1).
    together
        Whether two neighbouring datums may be in one batch (they share their resident inputs).
    """

    def __init__(self, count: int, *, batch: int = 0, tries: int = 1, together: Callable[[int, int], bool]) -> None:
        self._tries = max(1, tries)
        self._used = [0] * count
        self._queue: deque[tuple[int, ...]] = deque()
        self._split: set[int] = set()
        """First datums of calls that are halves of a failed one."""
        if batch <= 1:
            self._queue.extend(zip(range(count)))
            return
        group: list[int] = []
        for index in range(count):
            if group and (len(group) >= max(1, batch) or not together(group[-1], index)):
                self._queue.append(tuple(group))
                group = []
            group.append(index)
        if group:
            self._queue.append(tuple(group))

    @property
    def waiting(self) -> int:
        """Calls that can be taken."""
        return len(self._queue)

    def take(self) -> Call | None:
        """Return the next call, or None if there is none now."""
        if not self._queue:
            return None
        indexes = self._queue.popleft()
        return Call(indexes, self._used[indexes[0]] + 1)

    def put_back(self, call: Call) -> None:
        """Make a call again that was not begun. Later calls are put back before earlier ones."""
        self._queue.appendleft(call.indexes)

    def tries_of(self, index: int) -> int:
        """Tries that a datum used, its successful one included."""
        return self._used[index]

    def succeeded(self, index: int) -> None:
        """Count the try of a datum that ended well."""
        self._used[index] += 1

    def failed(self, index: int) -> bool:
        """Count a failed try of one datum; return whether it was the last. Otherwise it is tried again."""
        self._used[index] += 1
        if self._used[index] >= self._tries:
            return True
        self._queue.appendleft((index,))
        return False

    def call_failed(self, call: Call) -> bool:
        """Handle a failed call as a whole; return whether it was one datum's last try."""
        if len(call.indexes) == 1:
            return self.failed(call.indexes[0])
        half = (len(call.indexes) + 1) // 2
        self._split |= {call.indexes[0], call.indexes[half]}
        self._queue.appendleft(call.indexes[half:])
        self._queue.appendleft(call.indexes[:half])
        return False

    def give_half(self) -> list[int]:
        """Give up the later half of what waits, as far as nothing is known of it yet; return its indexes, ascending.

        What was tried or split stays: whoever took it would have to find out again.
        """
        waiting = sum(map(len, self._queue))
        given: list[int] = []
        while self._queue and len(given) + len(self._queue[-1]) <= (waiting + 1) // 2:
            last = self._queue[-1]
            if last[0] in self._split or any(self._used[index] for index in last):
                break
            given += self._queue.pop()
        return sorted(given)

    def rest(self) -> list[int]:
        """Give up what is waiting; return its indexes, ascending."""
        left = sorted(index for indexes in self._queue for index in indexes)
        self._queue.clear()
        return left


def resident_key(datum: Datum, positions: Sequence[int]) -> tuple[bytes | str, ...]:
    """What decides whether two datums share an instance of a resident class."""
    return tuple(part for i in positions for part in (datum.items[i].path, datum.items[i].value))
