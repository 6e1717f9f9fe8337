"""Which leases are asked to give back what their slots have not begun. Pure.

A slot that has nothing to do is worth a recall if another holds datums that it will not begin for a while. How long
that is follows from the job's average, or, where the present datum takes much longer than that, from how long ago the
lease last moved: of a hundred slow datums at the end of a job the average knows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .held import Out

__all__ = ["RECALL_EVERY_S", "choose_recalls"]

RECALL_EVERY_S = 0.1
"""How often the pool is looked through while slots have nothing to do."""
AGAIN_S = 1.0
"""A recall that was not answered is repeated after so long."""
WORTH_S = 0.02
"""Work left in a lease below which nothing is gained."""
STILL_S = 0.3
"""A lease that has not moved for so long is at a slow datum: reports come every quarter of a second."""


def choose_recalls(
    leases: Iterable[Out], seconds_per_datum: Callable[[str], float | None], *, idle: int, now: float
) -> list[Out]:
    """Return leases to recall, the one with most work left first, at most one for each idle slot; they count as asked.

    Parameters
    ----------
    leases
        That are out and not computed.
    seconds_per_datum
        Of a job; None: not known yet.
    idle
        Slots that have nothing to do.
    now
        Monotonic seconds.
    """
    found: list[tuple[float, Out]] = []
    for out in leases:
        # One of them runs.
        left = out.waiting - 1
        if left < 1 or now - out.recalled_at < AGAIN_S:
            continue
        still_s = now - out.moved_at
        work_s = left * (seconds_per_datum(out.lease.job) or 0.0)
        if still_s >= STILL_S:
            work_s = max(work_s, left * still_s)
        if work_s >= WORTH_S:
            found.append((work_s, out))
    found.sort(key=lambda pair: (-pair[0], pair[1].lease.id))
    chosen = [out for _, out in found[:idle]]
    for out in chosen:
        out.recalled_at = now
    return chosen
