"""A worker process without slots: takes leases and reports them stored at once. Stands in for `dmlpipe.worker`.

Usage: ``python lease_worker.py ADDRESS NAME SLOTS SECONDS_PER_DATUM``. With seconds < 0 it holds its leases for ever.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from distributed import Worker
from distributed.core import Status

from dmlpipe.storage.version import __version__
from dmlpipe.worker.messages import (
    PROTOCOL,
    Computed,
    LeaseReply,
    LeaseRequest,
    Stored,
    StoredLease,
    decode_reply,
    encode_request,
)


async def pull(worker: Worker, name: str, slot: int, seconds: float) -> None:
    returned: tuple[Computed, ...] = ()
    stored: tuple[Stored, ...] = ()
    seq = 0
    while True:
        request = LeaseRequest(
            protocol=PROTOCOL,
            version=__version__,
            worker=name,
            slot=slot,
            want=1,
            wait_s=5,
            returned=returned,
            stored=stored,
        )
        scheduler: Any = worker.scheduler
        reply: LeaseReply = decode_reply(await scheduler.dml_lease(request=encode_request(request)))
        returned = stored = ()
        if reply.stop:
            return
        lease = reply.lease
        if lease is None:
            continue
        if seconds < 0:
            await asyncio.Event().wait()
        count = lease.stop - lease.start
        await asyncio.sleep(seconds * count)
        returned = (Computed(lease.id, count, 0, seconds * count),)
        part = StoredLease(lease.id, tuple(range(lease.start, lease.stop)))
        seq += 1
        stored = (Stored(lease.job, f"{name}-{slot}-{seq}", lease.fold, (part,), count, 0),)


async def main(address: str, name: str, slots: int, seconds: float) -> None:
    async with Worker(address, name=name, nthreads=slots, dashboard_address="127.0.0.1:0", host="127.0.0.1") as worker:
        # What it holds it has begun: there is nothing to give back.
        worker.stream_handlers["dml-recall"] = lambda lease: None
        await asyncio.gather(*(pull(worker, name, slot, seconds) for slot in range(slots)))
        while worker.status == Status.running:
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
