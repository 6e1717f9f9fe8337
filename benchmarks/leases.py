"""The lease machinery alone: the real scheduler process, workers that have computed a lease as soon as they have it.

`python -m benchmarks.leases --datums 1000000 --size 100`. Every message is a real one over Dask's comms; no user code,
no store. What is asked: how many datums a second, how much CPU of the scheduler a lease costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

BLOCK = 4096
LEASES_A_SEGMENT = 16
"""A worker stores what it has every two seconds: for all its slots, and several leases of each."""


async def _schedule(port: int, size: int) -> None:
    """Run a scheduler whose leases hold `size` datums, until its standard input closes; print the CPU seconds used."""
    from dmlpipe.scheduler.leases.dask_seam import run_scheduler
    from dmlpipe.scheduler.leases.service import LeaseService

    service = LeaseService()
    # Leases are sized by time; here their number is what is measured.
    service.pool._size = lambda job: max(1, min(size, job.queue.queued))  # type: ignore[method-assign]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def read() -> None:
        if os.read(0, 4096):
            usage = resource.getrusage(resource.RUSAGE_SELF)
            print(json.dumps({"cpu_s": usage.ru_utime + usage.ru_stime, "rss_kib": usage.ru_maxrss}), flush=True)
        else:
            stop.set()

    loop.add_reader(0, read)
    await run_scheduler("127.0.0.1", port, service, stop)


async def _work(address: str, name: str, slots: int) -> None:
    """Take leases and report them stored."""
    from dmlpipe.storage.version import __version__
    from dmlpipe.worker.dask_seam import serve
    from dmlpipe.worker.messages import PROTOCOL, Computed, LeaseRequest, LeaseSource, Stored, StoredLease

    async def body(source: LeaseSource) -> str:
        async def pull(slot: int) -> None:
            returned: tuple[Computed, ...] = ()
            stored: tuple[Stored, ...] = ()
            waiting: list[StoredLease] = []
            number = 0
            while True:
                reply = await source.lease(
                    LeaseRequest(
                        protocol=PROTOCOL,
                        version=__version__,
                        worker=name,
                        slot=slot,
                        want=1,
                        wait_s=5.0,
                        returned=returned,
                        stored=stored,
                    )
                )
                returned = stored = ()
                if reply.stop:
                    return
                if reply.lease is not None:
                    lease = reply.lease
                    count = lease.stop - lease.start
                    returned = (Computed(lease.id, count, 0, 1e-6 * count),)
                    waiting.append(StoredLease(lease.id, tuple(range(lease.start, lease.stop))))
                if waiting and (reply.flush or len(waiting) == LEASES_A_SEGMENT):
                    rows = sum(len(part.indexes) for part in waiting)
                    number += 1
                    stored = (Stored("bench", f"{name}-{slot}-{number}", 0, tuple(waiting), rows, 0),)
                    waiting.clear()

        await asyncio.gather(*(pull(slot) for slot in range(slots)))
        return ""

    with tempfile.TemporaryDirectory() as folder:
        await serve(
            address, body, name=name, slots=slots, host="127.0.0.1", local_directory=folder, connect_timeout_s=60
        )


def measure(datums: int, size: int, *, workers: int = 2, slots: int = 4) -> dict[str, float]:
    """Lease `datums` datums, `size` at a time, and return the figures."""
    from dmlpipe.scheduler.cluster.local import reserve_port
    from dmlpipe.scheduler.leases.dask_executor import DaskExecutor
    from dmlpipe.scheduler.leases.executor import ExecutorFailed, JobFinished, JobOffer

    held, port = reserve_port()
    address = f"tcp://127.0.0.1:{port}"
    me = [sys.executable, "-m", "dmlpipe.benchmarks.leases"]
    scheduler = subprocess.Popen(
        [*me, "--scheduler", str(port), "--size", str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    ask, answer = scheduler.stdin, scheduler.stdout
    assert ask is not None
    assert answer is not None
    children = [
        subprocess.Popen([*me, "--worker", address, "--name", f"w{number}", "--slots", str(slots)])
        for number in range(workers)
    ]

    def used() -> dict[str, float]:
        ask.write(b"\n")
        ask.flush()
        found: dict[str, float] = json.loads(answer.readline())
        return found

    try:
        with DaskExecutor(address, lambda name: b"") as executor:
            while executor.slots() < workers * slots:
                time.sleep(0.05)
            before = used()
            began = time.monotonic()
            executor.offer(JobOffer(job="bench", spec="", pipeline="bench"))
            left, number, finished = datums, 0, False
            while not finished:
                # As the controller does: at most 16 blocks ahead.
                room = 16 - executor.backlog("bench") if left else 0
                while left and room > 0:
                    executor.add_block("bench", f"block-{number}", min(BLOCK, left))
                    left, number, room = left - min(BLOCK, left), number + 1, room - 1
                    if not left:
                        executor.end_blocks("bench")
                for event in executor.poll(0.1):
                    finished |= isinstance(event, JobFinished)
                    if isinstance(event, ExecutorFailed):
                        raise RuntimeError(event.message)
            seconds = time.monotonic() - began
            after = used()
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()
        ask.close()
        answer.close()
        scheduler.wait()
        held.close()
    leases = -(-datums // size)
    return {
        "datums": datums,
        "lease_size": size,
        "seconds": round(seconds, 3),
        "datums_per_s": round(datums / seconds),
        "leases_per_s": round(leases / seconds),
        "scheduler_us_per_lease": round((after["cpu_s"] - before["cpu_s"]) / leases * 1e6, 1),
        "scheduler_peak_mib": round(after["rss_kib"] / 1024, 1),
        "scheduler_growth_mib": round((after["rss_kib"] - before["rss_kib"]) / 1024, 1),
    }


def main() -> None:
    """Measure, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leases")
    parser.add_argument("--datums", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--scheduler", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--worker", metavar="ADDRESS", help=argparse.SUPPRESS)
    parser.add_argument("--name", default="", help=argparse.SUPPRESS)
    parser.add_argument("--slots", type=int, default=4)
    given = parser.parse_args()
    if given.scheduler:
        asyncio.run(_schedule(given.scheduler, given.size))
    elif given.worker:
        asyncio.run(_work(given.worker, given.name, given.slots))
    else:
        print(json.dumps(measure(given.datums, given.size, slots=given.slots), indent=1))


if __name__ == "__main__":
    main()
