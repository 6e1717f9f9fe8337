"""What of a job no slot holds: rows of its blocks, in order, and suspects. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["JobQueue", "Span", "Suspect"]


class Span(NamedTuple):
    """Rows of a block that stand in a queue."""

    block: str
    start: int
    stop: int


class Suspect(NamedTuple):
    """A datum that is leased alone, since a worker was lost with it in hand."""

    block: str
    row: int
    losses: int


@dataclass(slots=True)
class JobQueue:
    """Rows and suspects of one job.

    Examples
    --------
    >>> queue = JobQueue()
    >>> queue.add_block("b", 10)
    >>> queue.cut(queue.spans.popleft(), 4)
    Span(block='b', start=0, stop=4)
    >>> queue.put_back("b", [1, 2])
    >>> list(queue.spans), queue.queued
    ([Span(block='b', start=1, stop=3), Span(block='b', start=4, stop=10)], 8)
    """

    spans: deque[Span] = field(default_factory=deque)
    suspects: deque[Suspect] = field(default_factory=deque)
    queued: int = 0
    """Datums in `spans`."""
    expected: dict[tuple[str, int], tuple[str, int]] = field(default_factory=dict)
    """(block, first row) of spans to the (worker, slot) that was told to prepare for it: see `expected`."""
    fresh: set[str] = field(default_factory=set)
    """Blocks that no slot has begun."""
    _blocks: set[str] = field(default_factory=set)
    """All that were ever added."""

    @property
    def is_empty(self) -> bool:
        """Whether every datum is in a slot's hands, or done."""
        return not self.spans and not self.suspects

    @property
    def waiting(self) -> int:
        """Datums in no slot's hands."""
        return self.queued + len(self.suspects)

    def add_block(self, block: str, count: int) -> None:
        """Queue the datums of a block at the end. Idempotent."""
        if block in self._blocks:
            return
        self._blocks.add(block)
        self.fresh.add(block)
        self.spans.append(Span(block, 0, count))
        self.queued += count

    def clear(self) -> None:
        """Drop everything; blocks that were added before stay known."""
        self.spans.clear()
        self.suspects.clear()
        self.expected.clear()
        self.fresh.clear()
        self.queued = 0

    def has_for(self, *, exclusive: bool) -> bool:
        """Whether there is something for a worker.

        Parameters
        ----------
        exclusive
            It holds a datum that took a worker along before: then it gets no other such datum.
        """
        if self.spans:
            return True
        return bool(self.suspects) and (not exclusive or any(suspect.losses == 0 for suspect in self.suspects))

    def cut(self, span: Span, size: int) -> Span:
        """Lease the first `size` rows of a span that was taken off; the rest is the head of the queue again."""
        stop = min(span.stop, span.start + size)
        if stop < span.stop:
            self.spans.appendleft(Span(span.block, stop, span.stop))
        self.queued -= stop - span.start
        self.fresh.discard(span.block)
        return Span(span.block, span.start, stop)

    def put_back(self, block: str, rows: Sequence[int]) -> None:
        """Put rows (ascending) at the head of the queue, as few spans."""
        spans: list[Span] = []
        for index in rows:
            if spans and spans[-1].stop == index:
                spans[-1] = Span(block, spans[-1].start, index + 1)
            else:
                spans.append(Span(block, index, index + 1))
        self.spans.extendleft(reversed(spans))
        self.queued += len(rows)

    def suspect(self, block: str, rows: Iterable[int], losses: int) -> None:
        """Let rows be leased one by one.

        Parameters
        ----------
        losses
            Workers already lost with such a datum alone in hand.
        """
        self.suspects.extend(Suspect(block, index, losses) for index in rows)

    def take_suspect(self, *, exclusive: bool) -> Suspect:
        """Take off the first suspect that a worker may have of which `has_for` is true."""
        for at, suspect in enumerate(self.suspects):
            if not exclusive or suspect.losses == 0:
                del self.suspects[at]
                return suspect
        raise AssertionError("take_suspect() without has_for()")
