"""The tracker as a service: one RPC and one hook around the pure `Tracker`.

Everything runs on the event loop of whoever serves it; between two awaits the tracker is consistent. All state is soft.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

import msgspec

from ...storage.version import __version__
from ...worker.peers.messages import (
    PEER_PROTOCOL,
    Announce,
    Fill,
    PeerReply,
    PeerRequest,
    Reason,
    decode_peer_request,
    encode_peer_reply,
)
from .tracker import Tracker, Traffic

__all__ = ["PeerService"]

logger = logging.getLogger(__name__)

WAIT_MAX_S = 5.0
"""Longest long poll."""
GATHER_S = 0.02
"""News that come within this time are answered together."""


class PeerService:
    """Tells workers whom to take parts from.

    Parameters
    ----------
    clock
        Monotonic seconds.
    """

    def __init__(self, tracker: Tracker | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.tracker = tracker or Tracker(random.Random())
        self._clock = clock
        self._news = asyncio.Event()
        self._gone: set[str] = set()
        self._latest: dict[tuple[str, bytes], Fill] = {}
        """What a worker said last of a file: an answer that is still held back for what it said before is void."""

    @property
    def traffic(self) -> Traffic:
        """Bytes that all workers took so far, by where from."""
        return self.tracker.traffic

    def remove_worker(self, name: str) -> None:
        """A worker is gone."""
        self._gone.add(name)
        self.tracker.leave(name)
        for key in [key for key in self._latest if key[0] == name]:
            del self._latest[key]
        self._wake()

    async def peers(self, data: bytes) -> bytes:
        """Answer `dml_peers`."""
        try:
            reply = await self._answer(decode_peer_request(data))
        except (ValueError, msgspec.DecodeError) as err:
            logger.warning("a worker is told to read from the store: %s", err)
            reply = PeerReply(error=str(err))
        return encode_peer_reply(reply)

    async def _answer(self, request: PeerRequest) -> PeerReply:
        if request.protocol != PEER_PROTOCOL:
            return PeerReply(
                error=f"worker {request.worker} speaks peer protocol {request.protocol}, this scheduler "
                f"{PEER_PROTOCOL} (dmlpipe {__version__})"
            )
        if request.worker in self._gone:
            return PeerReply(error=f"worker {request.worker} has left this scheduler")
        if isinstance(request, Announce):
            self.tracker.join(request.worker, request.address, request.cache, request.files)
            self._wake()
            return PeerReply()
        return await self._fill(request)

    async def _fill(self, request: Fill) -> PeerReply:
        for failed in request.failed:
            if failed.reason is Reason.GARBAGE:
                logger.warning(
                    "worker %s got garbage from %s for part %d of %s: it is not asked again",
                    request.worker,
                    failed.source,
                    failed.part,
                    request.file.hex()[:12],
                )
        key = (request.worker, request.file)
        self._latest[key] = request
        if request.ended:
            del self._latest[key]
        deadline = self._clock() + min(request.wait_s, WAIT_MAX_S)
        takes = self.tracker.fill(request, self._clock())
        self._wake()
        # Said once: what follows only asks again.
        again = msgspec.structs.replace(request, failed=(), from_store=0, from_peers=0)
        while not takes and request.want and not request.ended:
            left = deadline - self._clock()
            if left <= 0:
                break
            news = self._news
            try:
                async with asyncio.timeout(left):
                    await news.wait()
                    await asyncio.sleep(GATHER_S)
            except TimeoutError:
                pass
            if self._latest.get(key) is not request:
                break
            takes = self.tracker.fill(again, self._clock())
        return PeerReply(take=tuple(takes))

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
