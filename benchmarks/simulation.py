"""How many slots one scheduler serves: the real lease pool and its messages, workers and time simulated.

    python -m benchmarks.simulation --workers 10,100,1000,10000 --datums 10000000 --out results/simulation.json

Workers are events on a heap; their datums last as a log-normal distribution says, in virtual time. The scheduler is
the real one (`LeasePool`, encoding and decoding of every request and answer), and its CPU time is measured: a request
begins when the one before is done, each costing what it cost here plus what Dask's comm costs (`--comm-us`, measured
apart: see "Overhead" in README). So the plot shows where a busy scheduler makes slots wait. The plan streams in blocks
as the controller's does, as fast as `--plan-rate` says. Storing, fetching and the network are free here: what is shown
is the limit of the scheduler, not of a cluster.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import heapq
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dmlpipe.scheduler.jobs.jobrun import MAX_BACKLOG
from dmlpipe.scheduler.leases.executor import JobFinished, JobOffer
from dmlpipe.scheduler.leases.pool import LeasePool
from dmlpipe.storage.version import __version__
from dmlpipe.worker.job import BLOCK_MAX_DATUMS, Lease
from dmlpipe.worker.messages import (
    PROTOCOL,
    Computed,
    LeaseReply,
    LeaseRequest,
    Stored,
    StoredLease,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)

from .machine import describe

JOB = "job"
TRIP_S = 0.0005
FLUSH_S = 2.0
FEED = -1
"""The number of no slot: an event at which the controller has planned more."""


@dataclasses.dataclass
class Outcome:
    """One simulated cluster."""

    workers: int
    datums: int
    makespan_s: float
    efficiency: float
    """Work / (slots x makespan)."""
    scheduler_busy: float
    """Share of the makespan in which the scheduler worked."""
    cpu_us_per_lease: float
    """Of the pool and its messages, without Dask's comm."""
    leases: int
    datums_per_lease: float


class Simulation:
    """One job on a simulated cluster of one-slot workers."""

    def __init__(self, workers: int, datums: int, mean_s: float, comm_s: float, plan_rate: float, seed: int) -> None:
        self._random = random.Random(seed)
        self._mean_s = mean_s
        self._comm_s = comm_s
        self._rate = plan_rate
        self._datums = datums
        self._offered = 0
        self._pool = LeasePool()
        for number in range(workers):
            self._pool.add_worker(f"w{number}", 1)
        self._pool.offer(JobOffer(job=JOB, spec="0" * 64, pipeline="p"))
        self._workers = workers
        self._free_at = 0.0
        """When the scheduler has done what it was asked so far."""
        self._cpu_s = self._busy_s = 0.0
        self._leases = 0
        self._work_s = 0.0
        self._waiting: collections.deque[int] = collections.deque()
        """Slots whose request for a lease is held back, as a long poll is, longest first."""
        self._unstored: dict[int, list[Lease]] = {}
        self._flush_at: dict[int, float] = {}

    def run(self) -> Outcome:
        """Work the job off."""
        events: list[tuple[float, int, Lease | None, float]] = []
        for number in range(self._workers):
            heapq.heappush(events, (self._random.random() * 0.01, number, None, 0.0))
        now = 0.0
        finished = False
        while events and not finished:
            now, number, done, seconds = heapq.heappop(events)
            self._feed(now)
            if number == FEED:
                lease, answered = None, now
            else:
                lease, answered = self._ask(now, number, done, seconds)
                finished = any(isinstance(event, JobFinished) for event in self._pool.events())
                if lease is not None:
                    heapq.heappush(events, self._begun(number, lease, answered))
                elif number in self._unstored:
                    # Told to store what it holds: it does, and says so in its next request.
                    heapq.heappush(events, (answered + TRIP_S, number, None, 0.0))
                else:
                    self._waiting.append(number)
            for waiting, given, at in self._woken(answered):
                heapq.heappush(events, self._begun(waiting, given, at))
            if self._offered < self._datums and self._waiting and now < self._offered / self._rate:
                heapq.heappush(events, (self._offered / self._rate, FEED, None, 0.0))
        return Outcome(
            workers=self._workers,
            datums=self._datums,
            makespan_s=now,
            efficiency=self._work_s / (self._workers * now),
            scheduler_busy=self._busy_s / now,
            cpu_us_per_lease=self._cpu_s / self._leases * 1e6,
            leases=self._leases,
            datums_per_lease=self._datums / self._leases,
        )

    def _begun(self, number: int, lease: Lease, answered: float) -> tuple[float, int, Lease | None, float]:
        """Return the event that ends a lease."""
        count = lease.stop - lease.start
        # The sum of many draws: by its mean and spread, not one by one.
        lasts = max(0.1 * count, self._random.gauss(count, count**0.5)) * self._mean_s
        self._work_s += lasts
        self._leases += 1
        return answered + TRIP_S + lasts, number, lease, lasts

    def _woken(self, now: float) -> Iterator[tuple[int, Lease, float]]:
        """Let slots that wait look at the pool, as the service does when datums are queued; yield who got what."""
        if not self._waiting or not self._pool.has_queued:
            return
        for _ in range(len(self._waiting)):
            number = self._waiting.popleft()
            began = max(now, self._free_at)
            cpu = time.process_time()
            lease = self._pool.take(f"w{number}", 0, began)
            if lease is not None:
                encode_reply(LeaseReply(lease=lease))
            spent = time.process_time() - cpu
            self._cpu_s += spent
            # An answer is half of what the comm costs a request.
            busy = spent + (self._comm_s / 2 if lease is not None else 0.0)
            self._busy_s += busy
            self._free_at = began + busy
            if lease is None:
                self._waiting.append(number)
            else:
                yield number, lease, self._free_at

    def _feed(self, now: float) -> None:
        """Plan on, at most as many blocks ahead as a controller does."""
        while (
            self._offered < self._datums and self._offered <= now * self._rate and self._pool.backlog(JOB) < MAX_BACKLOG
        ):
            count = min(BLOCK_MAX_DATUMS, self._datums - self._offered)
            self._pool.add_block(JOB, f"{self._offered:064x}", count)
            self._offered += count
            if self._offered == self._datums:
                self._pool.end_blocks(JOB)

    def _ask(self, now: float, number: int, done: Lease | None, seconds: float) -> tuple[Lease | None, float]:
        """One request: when it is answered follows from what the scheduler had to do before it."""
        name = f"w{number}"
        returned: tuple[Computed, ...] = ()
        stored: tuple[Stored, ...] = ()
        if done is not None:
            count = done.stop - done.start
            returned = (Computed(done.id, count, 0, seconds),)
            self._unstored.setdefault(number, []).append(done)
        waiting = self._unstored.get(number)
        if waiting and (done is None or now >= self._flush_at.get(number, 0.0)):
            self._flush_at[number] = now + FLUSH_S
            parts = tuple(StoredLease(lease.id, tuple(range(lease.start, lease.stop))) for lease in waiting)
            rows = sum(len(part.indexes) for part in parts)
            stored = (Stored(JOB, f"results/{JOB}/000000/{name}-{self._leases:06d}.seg", 0, parts, rows, 0),)
            del self._unstored[number]
        raw = encode_request(
            LeaseRequest(
                protocol=PROTOCOL, version=__version__, worker=name, slot=0, want=1, returned=returned, stored=stored
            )
        )
        began = max(now + TRIP_S, self._free_at)
        cpu = time.process_time()
        request = decode_request(raw)
        self._pool.report(request, began)
        answer = encode_reply(LeaseReply(lease=self._pool.take(name, 0, began)))
        spent = time.process_time() - cpu
        self._cpu_s += spent
        decoded = decode_reply(answer)
        # A request that is held back is answered later, or not at all.
        held = decoded.lease is None and number not in self._unstored
        busy = spent + (self._comm_s / 2 if held else self._comm_s)
        self._busy_s += busy
        self._free_at = began + busy
        return decoded.lease, self._free_at


def draw(result: dict[str, Any], target: Path) -> None:
    """Draw efficiency and the scheduler's load against the number of slots."""
    from matplotlib.figure import Figure

    rows = result["outcomes"]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    slots = [row["workers"] for row in rows]
    axes.semilogx(slots, [row["efficiency"] for row in rows], "o-", label="efficiency")
    axes.semilogx(slots, [row["scheduler_busy"] for row in rows], "s--", label="scheduler busy")
    axes.set_xlabel("slots")
    axes.set_ylim(0, 1.05)
    axes.legend()
    axes.set_title(f"{result['datums']:,} datums of {result['mean_ms']:g} ms; {result['limit']}", fontsize="small")
    figure.savefig(target)


def main(argv: list[str] | None = None) -> None:
    """Simulate each size of cluster; write JSON and a plot beside it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workers", default="10,100,1000,3000,10000")
    parser.add_argument("--datums", type=int, default=10_000_000)
    parser.add_argument("--mean-ms", type=float, default=10.0)
    parser.add_argument("--comm-us", type=float, default=120.0, help="of Dask's comm, per request, on the scheduler")
    parser.add_argument("--plan-rate", type=float, default=1e12, help="datums a second that the controller plans")
    parser.add_argument("--out", type=Path, default=Path("simulation.json"))
    options = parser.parse_args(argv)
    outcomes = []
    for workers in [int(word) for word in options.workers.split(",")]:
        simulated = Simulation(
            workers, options.datums, options.mean_ms / 1e3, options.comm_us / 1e6, options.plan_rate, seed=workers
        )
        outcomes.append(dataclasses.asdict(simulated.run()))
        print(json.dumps(outcomes[-1]), flush=True)
    cost_us = outcomes[-1]["cpu_us_per_lease"] + options.comm_us
    limit = f"limit: one core of scheduler, {1e6 / cost_us:,.0f} leases/s"
    result = {
        "machine": dataclasses.asdict(describe()),
        "datums": options.datums,
        "mean_ms": options.mean_ms,
        "comm_us": options.comm_us,
        "limit": limit,
        "outcomes": outcomes,
    }
    print(limit)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    draw(result, options.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
