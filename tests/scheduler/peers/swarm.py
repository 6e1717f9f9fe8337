"""Hosts that fill one file by a real `Tracker`, in virtual time; a link shares its rate among what it carries."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from dmlpipe.scheduler.peers.tracker import Limits, Tracker
from dmlpipe.worker.peers.messages import PEER_PROTOCOL, STORE, Failed, Fill, Reason, Take, pack_bits

POLL_S = 0.2
TOGETHER = 3


@dataclass
class Flight:
    """A part on its way, in part-sizes of work."""

    taker: str
    take: Take
    left: float = 1.0


@dataclass
class Host:
    """A worker with a cache of its own."""

    name: str
    have: int = 0
    flying: dict[int, Flight] = field(default_factory=dict)
    ask_at: float = 0.0
    done_at: float = -1.0
    failed: list[Failed] = field(default_factory=list)
    gone: bool = False
    garbage: bool = False
    stalls_until: float = -1.0


class Swarm:
    """A cluster whose every host wants the same file.

    Parameters
    ----------
    store_s, link_s
        Seconds that one part takes from the store, and over a host's link (each way), when nothing else does.
    """

    def __init__(
        self, hosts: int, parts: int, *, store_s: float, link_s: float, seed: int, limits: Limits | None = None
    ) -> None:
        self.parts = parts
        self.store_s, self.link_s = store_s, link_s
        self.chance = random.Random(seed)
        self.tracker = Tracker(random.Random(seed + 1), limits)
        self.hosts = {f"w{n}": Host(f"w{n}") for n in range(hosts)}
        self.now = 0.0
        self.origin_reads = 0
        self.most_uploads = 0
        self.requests = 0
        for name in self.hosts:
            self.tracker.join(name, f"tcp://{name}", f"cache-{name}")

    def ask(self, host: Host) -> None:
        """One request, and what comes of it."""
        self.requests += 1
        request = Fill(
            protocol=PEER_PROTOCOL,
            worker=host.name,
            address=f"tcp://{host.name}",
            cache=f"cache-{host.name}",
            file=b"file",
            parts=self.parts,
            part_bytes=16 << 20,
            have=pack_bits(host.have),
            flying=tuple(host.flying),
            failed=tuple(host.failed),
            want=TOGETHER - len(host.flying),
            ended=host.have == (1 << self.parts) - 1,
        )
        host.failed.clear()
        for take in self.tracker.fill(request, self.now):
            assert not host.have >> take.part & 1
            assert take.part not in host.flying
            assert take.source != host.name
            if take.source == STORE:
                self.origin_reads += 1
            host.flying[take.part] = Flight(host.name, take)
        self.most_uploads = max(self.most_uploads, *(self.tracker.uploads(name) for name in self.hosts))
        host.ask_at = self.now + POLL_S

    def kill(self, name: str) -> None:
        """A host disappears, and Dask says so."""
        self.hosts[name].gone = True
        self.tracker.leave(name)

    def rate(self, flight: Flight, loads: dict[tuple[str, str], int]) -> float:
        """Parts a second."""
        source = flight.take.source
        down = 1 / (self.link_s * loads["down", flight.taker])
        if source == STORE:
            return min(down, 1 / (self.store_s * loads["up", STORE]))
        if self.now < self.hosts[source].stalls_until:
            return 0.0
        return min(down, 1 / (self.link_s * loads["up", source]))

    def step(self) -> None:
        """Go on to the next thing that happens."""
        alive = [host for host in self.hosts.values() if not host.gone]
        flights = [flight for host in alive for flight in host.flying.values()]
        for flight in flights:
            source = flight.take.source
            if source != STORE and self.hosts[source].gone:
                self.over(flight, Reason.GONE)
                return
        loads: dict[tuple[str, str], int] = {}
        for flight in flights:
            for key in (("down", flight.taker), ("up", flight.take.source)):
                loads[key] = loads.get(key, 0) + 1
        rates = [self.rate(flight, loads) for flight in flights]
        asking = [host for host in alive if host.done_at < 0 and len(host.flying) < TOGETHER]
        until = min((host.ask_at for host in asking), default=self.now + 60)
        ends = [self.now + flight.left / rate for flight, rate in zip(flights, rates, strict=True) if rate]
        until = max(self.now, min([until, *ends]))
        for flight, rate in zip(flights, rates, strict=True):
            flight.left -= rate * (until - self.now)
        self.now = until
        for flight in [flight for flight in flights if flight.left <= 1e-9]:
            source = flight.take.source
            garbage = source != STORE and self.hosts[source].garbage
            self.over(flight, Reason.GARBAGE if garbage else None)
        for host in asking:
            if host.ask_at <= self.now:
                self.ask(host)

    def over(self, flight: Flight, reason: Reason | None) -> None:
        """A part came, or did not."""
        host = self.hosts[flight.taker]
        del host.flying[flight.take.part]
        if reason is None:
            host.have |= 1 << flight.take.part
        else:
            host.failed.append(Failed(flight.take.part, flight.take.source, reason))
        self.ask(host)
        if host.have == (1 << self.parts) - 1:
            host.done_at = self.now

    def run(self, *, until_s: float = 1e9) -> float:
        """Go on until every host that lives has the file; return the time."""
        while any(host.done_at < 0 and not host.gone for host in self.hosts.values()) and self.now < until_s:
            self.step()
        return self.now
