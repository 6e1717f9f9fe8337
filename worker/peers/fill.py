"""One file being filled from peers and the store, as the tracker says.

A turn: ask for as many parts as may be on their way, begin them, wait until one ends. Whatever goes wrong with a peer
or the tracker, the store is left; only what the store itself says ends a fill.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from ...storage.objects.filling import Filling, FromStore, Part, PartReader
from .messages import (
    PEER_PROTOCOL,
    STORE,
    Failed,
    Fill,
    PeerReply,
    Reason,
    Take,
    decode_peer_reply,
    encode_peer_request,
    pack_bits,
)
from .transport import PeerTransport, RefusedError

logger = logging.getLogger(__name__)

CHUNK_BYTES = 4 << 20
"""Asked of a peer at a time: what comes between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """Knobs of the exchange; the defaults are what production uses."""

    parts_at_once: int = 3
    """Parts of one file on their way: as many as a worker hands out, so that neither side waits for the other."""
    downloads_max: int = 4
    """Parts of all files on their way from peers."""
    uploads_max: int = 3
    min_bytes: int = 1 << 20
    """Smaller files are read from the store: there they lie together in packs."""
    poll_s: float = 0.2
    """How often to ask while there is less on its way than could be."""
    wait_s: float = 2.0
    """How long the tracker may think while nothing is on its way."""
    tracker_s: float = 10.0
    """A tracker that does not answer for so long is given up for this file."""
    patience_s: float = 120.0
    """When nothing came for so long, the store is read without asking."""
    stall_min_s: float = 5.0
    stall_factor: float = 4.0
    """A chunk that takes so many times longer than chunks do (and `stall_min_s`) has stalled."""
    connect_s: float = 5.0
    """Added for the first chunk of a part: there may be no connection yet."""


class Pace:
    """How fast chunks come, and from when on one has stalled."""

    def __init__(self, settings: PeerSettings) -> None:
        self._settings = settings
        self._seconds_per_byte = 1 / (1 << 20)

    def deadline_s(self, size: int) -> float:
        """Seconds that `size` bytes may take."""
        return self._settings.stall_min_s + self._settings.stall_factor * size * self._seconds_per_byte

    def note(self, size: int, seconds: float) -> None:
        """Take in how long a chunk took."""
        self._seconds_per_byte += 0.2 * (seconds / size - self._seconds_per_byte)


@dataclass(slots=True)
class Traffic:
    """Bytes that came, by where from."""

    from_store: int = 0
    from_peers: int = 0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all fills of a worker share."""

    worker: str
    cache: str
    transport: PeerTransport
    settings: PeerSettings
    pace: Pace
    traffic: Traffic
    downloads: asyncio.Semaphore
    threads: Executor
    """For reads of the store, hashing and writing."""
    clock: Callable[[], float]


class FillRun:
    """Fills one file. Use once, from the exchange's event loop."""

    def __init__(self, around: Surroundings, filling: Filling, origin: PartReader) -> None:
        self._around = around
        self._filling = filling
        self._origin = origin
        self._flying: dict[int, asyncio.Task[Reason | None]] = {}
        self._sources: dict[int, str] = {}
        self._landing: set[int] = set()
        """Parts that are here and on their way into the file: what brought them is still to be counted."""
        self._failed: list[Failed] = []
        self._tracked = True
        self._told = Traffic()
        self._traffic = Traffic()
        self._progress_at = around.clock()

    async def run(self) -> None:
        """Put every missing part into the file.

        Raises
        ------
        DmlpipeError, OSError
            What the store said of a part, or the disk.
        """
        try:
            while self._filling.missing():
                await self._turn()
        finally:
            for number, task in self._flying.items():
                if number not in self._landing:
                    task.cancel()
            await asyncio.gather(*self._flying.values(), return_exceptions=True)
            self._flying.clear()
            if self._tracked:
                with contextlib.suppress(OSError):
                    await self._ask(0, 0.0, ended=True)

    async def _turn(self) -> None:
        settings = self._around.settings
        free = settings.parts_at_once - len(self._flying)
        if free and self._tracked:
            await self._begin(free)
        if not self._flying:
            waited = self._around.clock() - self._progress_at
            if not self._tracked or waited > settings.patience_s:
                if self._tracked:
                    logger.warning("no peer gave a part of a file for %.0f s: it is read from the store", waited)
                await self._rest_from_store()
            return
        poll = settings.poll_s if self._tracked and len(self._flying) < settings.parts_at_once else None
        ended, _ = await asyncio.wait(self._flying.values(), timeout=poll, return_when=asyncio.FIRST_COMPLETED)
        for number in [number for number, task in self._flying.items() if task in ended]:
            reason = self._flying.pop(number).result()
            source = self._sources.pop(number)
            self._landing.discard(number)
            if reason is None:
                self._progress_at = self._around.clock()
            else:
                logger.info("part %d did not come from %s: %s", number, source, reason.name.lower())
                self._failed.append(Failed(number, source, reason))

    async def _begin(self, free: int) -> None:
        try:
            reply = await self._ask(free, 0.0 if self._flying else self._around.settings.wait_s)
        except OSError as err:
            logger.info("the tracker of peers does not answer (%s): reading from the store", err)
            self._tracked = False
            return
        if reply.error:
            logger.info("no peers for this worker: %s", reply.error)
            self._tracked = False
            return
        missing = {part.number: part for part in self._filling.missing()}
        for take in reply.take:
            part = missing.get(take.part)
            if part is None or take.part in self._flying:
                continue
            work = self._from_store(part) if take.source == STORE else self._from_peer(take, part)
            self._sources[take.part] = take.source
            self._flying[take.part] = asyncio.create_task(work)

    async def _ask(self, want: int, wait_s: float, *, ended: bool = False) -> PeerReply:
        around, filling = self._around, self._filling
        failed, self._failed = tuple(self._failed), []
        now = self._traffic
        request = Fill(
            protocol=PEER_PROTOCOL,
            worker=around.worker,
            address=around.transport.address,
            cache=around.cache,
            file=filling.name,
            parts=len(filling.parts),
            part_bytes=max(part.size for part in filling.parts),
            have=pack_bits(filling.have),
            flying=tuple(self._flying),
            failed=failed,
            want=want,
            wait_s=wait_s,
            ended=ended,
            from_store=now.from_store - self._told.from_store,
            from_peers=now.from_peers - self._told.from_peers,
        )
        self._told = Traffic(now.from_store, now.from_peers)
        async with asyncio.timeout(wait_s + around.settings.tracker_s):
            return decode_peer_reply(await around.transport.ask(encode_peer_request(request)))

    # --- where parts come from

    async def _from_store(self, part: Part) -> Reason | None:
        def read() -> bool:
            data = self._origin.read_part(part)
            self._landing.add(part.number)
            return self._filling.put(part, data)

        await asyncio.get_running_loop().run_in_executor(self._around.threads, read)
        self._count(part.size, 0)
        return None

    async def _rest_from_store(self) -> None:
        left = sum(part.size for part in self._filling.missing())
        fill = FromStore().fill
        await asyncio.get_running_loop().run_in_executor(self._around.threads, fill, self._filling, self._origin)
        self._count(left, 0)

    async def _from_peer(self, take: Take, part: Part) -> Reason | None:
        async with self._around.downloads:
            buffer = bytearray(part.size)
            reason = await self._download(take, part, memoryview(buffer))
        if reason is not None:
            return reason
        put = self._filling.put
        self._landing.add(part.number)
        if not await asyncio.get_running_loop().run_in_executor(self._around.threads, put, part, buffer):
            return Reason.GARBAGE
        self._count(0, part.size)
        return None

    async def _download(self, take: Take, part: Part, into: memoryview) -> Reason | None:
        around, at = self._around, 0
        while at < part.size:
            size = min(CHUNK_BYTES, part.size - at)
            began = around.clock()
            try:
                first_s = 0.0 if at else around.settings.connect_s
                async with asyncio.timeout(first_s + around.pace.deadline_s(size)):
                    start = part.offset + at
                    frames = await around.transport.read(take.address, self._filling.name, start, start + size)
            except TimeoutError:
                return Reason.STALLED
            except RefusedError as refused:
                return refused.reason
            except OSError:
                return Reason.GONE
            if sum(len(frame) for frame in frames) != size:
                return Reason.GARBAGE
            for frame in frames:
                into[at : at + len(frame)] = frame
                at += len(frame)
            around.pace.note(size, around.clock() - began)
        return None

    def _count(self, from_store: int, from_peers: int) -> None:
        for traffic in (self._traffic, self._around.traffic):
            traffic.from_store += from_store
            traffic.from_peers += from_peers
