"""What a lost worker had stored and could not say: its segments are in the store, under its name.

Without this look, datums of such a segment would be computed again: the window is the time between a segment's write
and the report of it.
"""

from __future__ import annotations

from collections.abc import Callable

from ...storage.backend import Backend
from ...storage.objects.pack import read_rows
from ...storage.objects.segment import SEGMENT_PREFIX, Outcome, decode_rows
from ...worker.job import decode_block
from ...worker.messages import Stored, StoredLease
from .pool_events import WorkerLost

__all__ = ["find_unreported"]


def find_unreported(backend: Backend, read_block: Callable[[str], bytes], lost: WorkerLost) -> tuple[Stored, ...]:
    """Return reports of the lost worker's segments, as far as they hold datums of the leases that it had.

    Parameters
    ----------
    backend
        Of the store.
    read_block
        Returns the bytes of a block's node.
    lost
        The worker and its leases of one job.

    Notes
    -----
    One LIST per fold, one footer per segment of this worker.
    """
    places: dict[bytes, tuple[int, int]] = {}
    for lease in lost.leases:
        datums = decode_block(read_block(lease.block))
        for index in range(lease.start, lease.stop):
            places[datums[index].key] = (lease.id, index)
    found = []
    for fold in sorted({lease.fold for lease in lost.leases}):
        for key, _ in backend.list(f"{SEGMENT_PREFIX}/{lost.job}/{fold:06d}/{lost.worker}-"):
            rows = decode_rows(read_rows(backend, key)[0])
            held: dict[int, list[int]] = {}
            for row in rows:
                if row.key in places:
                    lease_id, index = places[row.key]
                    held.setdefault(lease_id, []).append(index)
            if held:
                parts = tuple(StoredLease(lease_id, tuple(sorted(indexes))) for lease_id, indexes in held.items())
                failed = sum(1 for row in rows if row.outcome is Outcome.FAILED)
                found.append(Stored(lost.job, key, fold, parts, len(rows), failed))
    return tuple(found)
