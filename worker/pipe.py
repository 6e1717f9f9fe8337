"""A lease pool and its worker at the two ends of one socket, which no third process can reach.

Frames are a length (4 bytes, big-endian) and msgpack: ``[number, what, body]``. A request has a number of its own, its
answer the same one; what nobody answers has number 0. Nothing is unpickled.

The pool's end says ``recall``; the worker's end says ``join`` once, first, and asks ``lease`` and ``peers``. A worker
has left when its end is closed, in whatever way.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from ..storage.digest import Data
from .messages import LeaseReply, LeaseRequest, decode_reply, encode_request
from .peers.transport import ReadRange

__all__ = ["FramePipe", "Join", "LonePeers", "PipeLink", "open_pipe"]

FRAME_MAX_BYTES = 1 << 30
_encode = msgspec.msgpack.Encoder().encode
_decode: msgspec.msgpack.Decoder[tuple[int, str, bytes]] = msgspec.msgpack.Decoder(tuple[int, str, bytes])


class Join(msgspec.Struct, frozen=True, kw_only=True):
    """A worker says what it is."""

    name: str
    slots: int
    resources: dict[str, float]


class FramePipe:
    """Whole frames over one connected stream socket. Used from one event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> tuple[int, str, bytes] | None:
        """Return the next frame; None when the other end is closed."""
        try:
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            if size > FRAME_MAX_BYTES:
                return None
            return _decode.decode(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, OSError, msgspec.DecodeError):
            return None

    def write(self, number: int, what: str, body: bytes) -> None:
        """Send a frame; nothing happens if the other end is closed, which `read` says."""
        payload = _encode((number, what, body))
        self._writer.write(len(payload).to_bytes(4, "big") + payload)

    def abort(self) -> None:
        """Close this end at once: the other one finds that out."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close this end."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def open_pipe(end: socket.socket) -> FramePipe:
    """Return the frames of a socket, which is closed with it."""
    return FramePipe(*await asyncio.open_connection(sock=end))


class LonePeers:
    """A `PeerTransport` of a worker that is alone: its tracker counts what it reads, and knows of nobody else.

    Parameters
    ----------
    ask
        Calls the tracker.
    """

    address = "alone"

    def __init__(self, ask: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._ask = ask

    async def ask(self, request: bytes) -> bytes:
        """See `PeerTransport.ask`."""
        return await self._ask(request)

    async def read(self, address: str, file: bytes, start: int, stop: int) -> Sequence[Data]:
        """There is nobody."""
        raise ConnectionError(f"no peer at {address}: this worker is the only one")

    def serve(self, read: ReadRange) -> None:
        """Nobody will ask."""


class PipeLink:
    """The worker's end: a `Link`."""

    def __init__(self, pipe: FramePipe) -> None:
        self._pipe = pipe
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._recall: Callable[[int], None] = lambda lease: None
        self._gone = False
        self._task = asyncio.create_task(self._listen())
        self.peers = LonePeers(lambda request: self._call("peers", request))

    def join(self, join: Join) -> None:
        """Say what this worker is."""
        self._pipe.write(0, "join", _encode(join))

    async def lease(self, request: LeaseRequest) -> LeaseReply:
        """See `LeaseSource.lease`."""
        return decode_reply(await self._call("lease", encode_request(request)))

    def on_recall(self, recall: Callable[[int], None]) -> None:
        """See `LeaseSource.on_recall`."""
        self._recall = recall

    async def _call(self, what: str, body: bytes) -> bytes:
        if self._gone:
            raise ConnectionError("the lease pool is gone")
        number = next(self._numbers)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._pipe.write(number, what, body)
        try:
            return await answer
        finally:
            del self._waiting[number]

    async def _listen(self) -> None:
        while (frame := await self._pipe.read()) is not None:
            number, what, body = frame
            if number == 0 and what == "recall":
                self._recall(int.from_bytes(body, "big"))
            elif (answer := self._waiting.get(number)) is not None and not answer.done():
                answer.set_result(body)
        self._gone = True
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the lease pool is gone"))

    async def close(self) -> None:
        """Leave."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._pipe.close()
