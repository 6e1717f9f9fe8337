"""What a slot will probably be given next: it is told, to fetch the inputs meanwhile. Pure.

What is expected stays in its job's queue, and belongs to nobody. It is only passed over for others while there is
something else for them among the first `LOOKED_AT` spans.
"""

from __future__ import annotations

from itertools import islice

from .job_queue import JobQueue, Span

__all__ = ["EXPECT_FROM_S", "expect", "forget", "pop"]

LOOKED_AT = 64
EXPECT_FROM_S = 0.1
"""Jobs with shorter datums have so many in a lease that these are fetched ahead of each other."""


def expect(queue: JobQueue, worker: str, slot: int, size: int) -> Span | None:
    """Choose up to `size` datums that `slot` will be given next; None if all are expected by others."""
    for at, span in enumerate(islice(queue.spans, LOOKED_AT)):
        if (span.block, span.start) in queue.expected:
            continue
        stop = min(span.stop, span.start + size)
        found = Span(span.block, span.start, stop)
        if stop < span.stop:
            queue.spans[at] = found
            queue.spans.insert(at + 1, Span(span.block, stop, span.stop))
        queue.expected[span.block, span.start] = (worker, slot)
        return found
    return None


def pop(queue: JobQueue, worker: str, slot: int) -> Span:
    """Take off the queue, which is not empty, what `slot` expects, else what nobody expects, else what is first."""
    if not queue.expected:
        return queue.spans.popleft()
    chosen = -1
    for at, span in enumerate(islice(queue.spans, LOOKED_AT)):
        by = queue.expected.get((span.block, span.start))
        if by == (worker, slot):
            chosen = at
            break
        if by is None and chosen < 0:
            chosen = at
    span = queue.spans[max(chosen, 0)]
    del queue.spans[max(chosen, 0)]
    queue.expected.pop((span.block, span.start), None)
    return span


def forget(queue: JobQueue, worker: str) -> None:
    """A worker is gone: it expects nothing."""
    for key in [key for key, by in queue.expected.items() if by[0] == worker]:
        del queue.expected[key]
