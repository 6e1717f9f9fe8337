"""The tracker: which missing part of a file a worker takes from whom. Pure; time and chance are passed in.

Rules:

* A part that a usable peer holds is never read from the store. A part that nobody holds is read by one worker, which
  *claims* it; the others take other parts meanwhile, or wait. A claim ends when the part came, when its worker says
  that it failed, leaves, or forgets it, and at its deadline: then the next worker claims it.
* Among parts on offer the rarest goes first (copies on their way count), among equals chance decides; so workers that
  begin together begin with different parts. Its source is the holder with the fewest uploads, at most `uploads_max`.
* Workers of one cache hold what the cache holds, and are never sent to each other.
* A request is the worker's whole view of a file: what the tracker thought is on its way and the worker does not name
  is over. Nothing here must survive the scheduler: the next requests say it all again.
* A peer that sent garbage is not named again; one that stalls again and again is doubted (`standing`), and what only it
  holds counts as held by nobody.

Left out on purpose: waiting (`service`), how fast links are, who shares a rack.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ...worker.peers.messages import STORE, Fill, Reason, Take, unpack_bits
from .standing import Standing, Trust

__all__ = ["Limits", "Tracker", "Traffic"]

_WINDOW = 256
"""Parts looked at for the rarest: bounds the cost of one decision."""
_FILES_MAX = 50_000
_FLIGHT_S = 60.0
_SLOWEST_BYTES_S = 64 << 10


@dataclass(frozen=True, slots=True)
class Limits:
    """Knobs; the defaults are what production uses."""

    uploads_max: int = 3
    """Parts that a worker hands out at a time."""
    claims_max: int = 8
    """Parts of one file that are read from the store at a time."""
    worker_claims_max: int = 4
    """Of these, by one worker; less where there are many caches."""
    claim_min_s: float = 10.0
    claim_bytes_s: float = 256 << 10
    """A claim's first deadline; later ones follow what claims took."""
    claim_factor: float = 4.0


@dataclass(slots=True)
class Traffic:
    """Bytes that workers said they took."""

    from_store: int = 0
    from_peers: int = 0


@dataclass(slots=True)
class _Peer:
    name: str
    address: str
    cache: str
    trust: Trust = field(default_factory=Trust)
    uploads: int = 0
    filling: set[bytes] = field(default_factory=set)
    holding: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class _Flight:
    source: str
    began: float
    deadline: float


@dataclass(slots=True)
class _File:
    parts: int = 0
    """0: only known as a whole."""
    part_bytes: int = 0
    have: dict[str, int] = field(default_factory=dict)
    """By worker; -1: the whole file."""
    flights: dict[tuple[str, int], _Flight] = field(default_factory=dict)
    """By (taker, part); a claim is a flight from the store."""
    fillers: set[str] = field(default_factory=set)
    copies: Counter[int] = field(default_factory=Counter)
    """By part: workers that hold it and not the whole file, and flights."""

    @property
    def all_bits(self) -> int:
        return (1 << self.parts) - 1


class Tracker:
    """Files, holders, and what is on its way.

    Parameters
    ----------
    chance
        Breaks ties.

    Examples
    --------
    >>> tracker = Tracker(random.Random(0))
    >>> tracker.join("a", "tcp://1.2.3.4:5", "cache a", [b"model"])
    >>> asked = Fill(
    ...     protocol=1, worker="b", address="", cache="cache b", file=b"model", parts=1, part_bytes=9, have=b"", want=1
    ... )
    >>> tracker.fill(asked, now=0.0)
    [Take(part=0, source='a', address='tcp://1.2.3.4:5')]
    """

    def __init__(self, chance: random.Random, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.traffic = Traffic()
        self._chance = chance
        self._peers: dict[str, _Peer] = {}
        self._files: dict[bytes, _File] = {}
        self._seconds_per_byte = 0.0
        """Moving average of claims that came."""

    # --- peers

    def join(self, worker: str, address: str, cache: str, files: Iterable[bytes] = ()) -> None:
        """A worker is there; its cache holds `files` as a whole. Idempotent."""
        peer = self._peers.get(worker)
        if peer is None or (peer.address, peer.cache) != (address, cache):
            self.leave(worker)
            peer = self._peers[worker] = _Peer(worker, address, cache)
            for other in self._peers.values():
                if other.cache == cache and other is not peer:
                    for name in other.holding:
                        if self._files[name].have.get(other.name) == -1:
                            self._set_have(peer, name, self._files[name], -1)
                    break
        for name in files:
            file = self._file(name)
            for each in self._peers.values():
                if each.cache == cache:
                    self._set_have(each, name, file, -1)

    def leave(self, worker: str) -> None:
        """A worker is gone: what it held is forgotten, what it claimed is anybody's."""
        peer = self._peers.pop(worker, None)
        if peer is None:
            return
        for name in list(peer.holding):
            self._set_have(peer, name, self._files[name], 0)
        for name in list(peer.filling):
            self._end_fill(peer, name)
        for name, file in list(self._files.items()):
            for key, flight in list(file.flights.items()):
                if flight.source == worker:
                    self._end_flight(file, key)
            self._forget_if_idle(name)

    def standing(self, worker: str, now: float) -> Standing | None:
        """What is thought of a worker; None if it is not there."""
        peer = self._peers.get(worker)
        return peer.trust.at(now) if peer is not None else None

    def holds(self, worker: str, name: bytes) -> bool:
        """Whether the worker's cache holds the whole file."""
        file = self._files.get(name)
        return file is not None and file.have.get(worker, 0) == -1

    def uploads(self, worker: str) -> int:
        """Parts on their way from a worker."""
        peer = self._peers.get(worker)
        return peer.uploads if peer is not None else 0

    # --- fills

    def fill(self, request: Fill, now: float) -> list[Take]:
        """Take in a worker's view of a file, and name up to `want` parts that it should take.

        Raises
        ------
        ValueError
            The request contradicts itself, or what is known of the file: its sender reads from the store.
        """
        name = request.file
        have = self._checked(request)
        self.join(request.worker, request.address, request.cache)
        peer, file = self._peers[request.worker], self._file(name)
        file.parts, file.part_bytes = request.parts, request.part_bytes
        self.traffic.from_store += request.from_store
        self.traffic.from_peers += request.from_peers
        peer.filling.add(name)
        file.fillers.add(peer.name)
        self._reconcile(peer, file, request, have, now)
        if have == file.all_bits:
            self.join(peer.name, peer.address, peer.cache, [name])
        else:
            if file.have.get(peer.name) == -1:
                self._drop(peer.cache, name, file)  # its cache had all of it, once
            self._set_have(peer, name, file, have)
        for failed in request.failed:
            self._failed(peer, name, file, failed.part, failed.source, failed.reason, now)
        self._expire(file, now)
        if request.ended or have == file.all_bits:
            self._end_fill(peer, name)
            self._forget_if_idle(name)
            return []
        takes: list[Take] = []
        wanted = file.all_bits & ~have & ~sum(1 << part for part in set(request.flying))
        while len(takes) < request.want and (take := self._next(peer, file, wanted, now)) is not None:
            takes.append(take)
            wanted &= ~(1 << take.part)
        return takes

    # --- inside: deciding

    def _next(self, taker: _Peer, file: _File, missing: int, now: float) -> Take | None:
        """Name one of the parts in `missing`, and note that it is on its way."""
        if not missing:
            return None
        held, offered = 0, 0
        free: list[_Peer] = []
        for worker, bits in file.have.items():
            peer = self._peers[worker]
            standing = peer.trust.at(now)
            if peer.cache == taker.cache or standing in (Standing.DOUBTED, Standing.BANNED):
                continue
            held |= bits
            if standing is Standing.ASKED and peer.uploads < self.limits.uploads_max and bits & missing:
                offered |= bits & missing
                free.append(peer)
        # The store first: it is the slowest, and should never be idle while there is something to read.
        claimed = sum(1 << part for part in {part for (_, part), f in file.flights.items() if f.source == STORE})
        unclaimed = missing & ~held & ~claimed
        if unclaimed and self._may_claim(taker, file):
            part = self._chance.choice(list(_bits(unclaimed, self._chance)))
            return self._fly(taker, file, part, None, now)
        if not offered:
            return None
        part = min(_bits(offered, self._chance), key=lambda p: (file.copies[p], self._chance.random()))
        holders = [peer for peer in free if file.have[peer.name] >> part & 1]
        source = min(holders, key=lambda p: (p.uploads, self._chance.random()))
        return self._fly(taker, file, part, source, now)

    def _may_claim(self, taker: _Peer, file: _File) -> bool:
        claims = [worker for (worker, _), flight in file.flights.items() if flight.source == STORE]
        # Spread over the caches that are there, not those that asked already: the first to ask must not take it all.
        caches = len({peer.cache for peer in self._peers.values()})
        each = max(1, min(self.limits.worker_claims_max, self.limits.claims_max // caches))
        return len(claims) < self.limits.claims_max and claims.count(taker.name) < each

    def _fly(self, taker: _Peer, file: _File, part: int, source: _Peer | None, now: float) -> Take:
        if source is None:
            deadline = now + self._claim_s(file.part_bytes)
        else:
            # The taker itself notices a stall; this only keeps a lost one from holding an upload for ever.
            deadline = now + _FLIGHT_S + file.part_bytes / _SLOWEST_BYTES_S
            source.uploads += 1
        file.flights[taker.name, part] = _Flight(source.name if source else STORE, now, deadline)
        file.copies[part] += 1
        return Take(part, source.name, source.address) if source else Take(part, STORE)

    def _claim_s(self, size: int) -> float:
        limits = self.limits
        if not self._seconds_per_byte:
            return limits.claim_min_s + size / limits.claim_bytes_s
        return max(limits.claim_min_s, limits.claim_factor * size * self._seconds_per_byte)

    # --- inside: what is known

    def _checked(self, request: Fill) -> int:
        have = unpack_bits(request.have)
        known = self._files.get(request.file)
        if request.parts < 1 or have >> request.parts:
            raise ValueError(f"a file of {request.parts} parts cannot have part {have.bit_length() - 1}")
        if known is not None and known.parts not in (0, request.parts):
            raise ValueError(f"file {request.file.hex()[:12]} has {known.parts} parts, not {request.parts}")
        return have

    def _file(self, name: bytes) -> _File:
        file = self._files.get(name)
        if file is None:
            if len(self._files) >= _FILES_MAX:
                self._forget_some()
            file = self._files[name] = _File()
        return file

    def _set_have(self, peer: _Peer, name: bytes, file: _File, bits: int) -> None:
        before = file.have.get(peer.name, 0)
        if bits == before:
            return
        if before > 0:
            file.copies.subtract(_each(before & ~bits if bits >= 0 else before))
        if bits > 0:
            file.copies.update(_each(bits & ~max(before, 0)))
        if bits:
            file.have[peer.name] = bits
            peer.holding.add(name)
        else:
            file.have.pop(peer.name, None)
            peer.holding.discard(name)

    def _reconcile(self, peer: _Peer, file: _File, request: Fill, have: int, now: float) -> None:
        for worker, part in [key for key in file.flights if key[0] == peer.name and key[1] not in request.flying]:
            flight = file.flights[worker, part]
            if have >> part & 1:
                source = self._peers.get(flight.source)
                if source is not None:
                    source.trust.served()
                elif flight.source == STORE and file.part_bytes:
                    sample = (now - flight.began) / file.part_bytes
                    old = self._seconds_per_byte
                    self._seconds_per_byte = sample if not old else 0.7 * old + 0.3 * sample
            self._end_flight(file, (worker, part))

    def _failed(
        self, taker: _Peer, name: bytes, file: _File, part: int, source: str, reason: Reason, now: float
    ) -> None:
        peer = self._peers.get(source)
        if peer is None or peer is taker:
            return
        if reason is Reason.GARBAGE:
            # What is on the disk there is the same for all workers of that cache.
            for each in [other for other in self._peers.values() if other.cache == peer.cache]:
                each.trust.report(reason, now)
                for held in list(each.holding):
                    self._set_have(each, held, self._files[held], 0)
            return
        peer.trust.report(reason, now)
        if reason is Reason.ABSENT:
            self._drop(peer.cache, name, file)

    def _drop(self, cache: str, name: bytes, file: _File) -> None:
        for each in self._peers.values():
            if each.cache == cache:
                self._set_have(each, name, file, 0)

    def _expire(self, file: _File, now: float) -> None:
        for key in [key for key, flight in file.flights.items() if now >= flight.deadline]:
            self._end_flight(file, key)

    def _end_flight(self, file: _File, key: tuple[str, int]) -> None:
        flight = file.flights.pop(key)
        file.copies[key[1]] -= 1
        source = self._peers.get(flight.source)
        if source is not None:
            source.uploads -= 1

    def _end_fill(self, peer: _Peer, name: bytes) -> None:
        peer.filling.discard(name)
        file = self._files.get(name)
        if file is None:
            return
        file.fillers.discard(peer.name)
        for key in [key for key in file.flights if key[0] == peer.name]:
            self._end_flight(file, key)
        if file.have.get(peer.name, 0) > 0:
            # It can be asked for what it has only while it fills: the file then is whole, or no file.
            self._set_have(peer, name, file, 0)

    def _forget_if_idle(self, name: bytes) -> None:
        file = self._files.get(name)
        if file is not None and not file.have and not file.flights and not file.fillers:
            del self._files[name]

    def _forget_some(self) -> None:
        """Drop a tenth of the files, those known longest first, that nobody fills."""
        idle = [name for name, file in self._files.items() if not file.fillers]
        for name in idle[: max(1, _FILES_MAX // 10)]:
            for worker in list(self._files[name].have):
                self._set_have(self._peers[worker], name, self._files[name], 0)
            del self._files[name]


def _each(bits: int) -> Iterator[int]:
    """The numbers in a set of bits."""
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low


def _bits(bits: int, chance: random.Random) -> Iterator[int]:
    """Up to `_WINDOW` numbers of a set of bits, beginning anywhere."""
    count = bits.bit_count()
    if count <= _WINDOW:
        yield from _each(bits)
        return
    begin = chance.randrange(bits.bit_length())
    window = (bits >> begin) << begin
    found = 0
    for part in _each(window):
        yield part
        found += 1
        if found == _WINDOW:
            return
    for part in _each(bits ^ window):
        yield part
        found += 1
        if found == _WINDOW:
            return
