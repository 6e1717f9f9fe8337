"""A lease pool and its worker at the two ends of one socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest

from dmlpipe.storage.version import __version__
from dmlpipe.worker.messages import PROTOCOL, LeaseReply, LeaseRequest, decode_request, encode_reply
from dmlpipe.worker.pipe import FramePipe, Join, PipeLink, open_pipe

WAIT_S = 30.0
REQUEST = LeaseRequest(protocol=PROTOCOL, version=__version__, worker="w", slot=0, want=1)


@pytest.fixture
async def ends() -> AsyncIterator[tuple[FramePipe, PipeLink]]:
    """The pool's end, and the worker's."""
    ours, theirs = socket.socketpair()
    pool, link = await open_pipe(ours), PipeLink(await open_pipe(theirs))
    async with asyncio.timeout(WAIT_S):
        yield pool, link
    await link.close()
    await pool.close()


async def read(pool: FramePipe) -> tuple[int, str, bytes]:
    frame = await pool.read()
    assert frame is not None
    return frame


async def test_answers_find_their_requests_in_any_order(ends: tuple[FramePipe, PipeLink]) -> None:
    pool, link = ends
    link.join(Join(name="w", slots=2, resources={"memory": 1.0}))
    first = asyncio.create_task(link.lease(REQUEST))
    second = asyncio.create_task(link.peers.ask(b"who"))
    number, what, body = await read(pool)
    assert (number, what) == (0, "join")
    assert msgspec.msgpack.decode(body, type=Join) == Join(name="w", slots=2, resources={"memory": 1.0})
    lease, peers = await read(pool), await read(pool)
    assert (lease[1], decode_request(lease[2])) == ("lease", REQUEST)
    assert peers[1:] == ("peers", b"who")
    pool.write(99, "lease", b"nobody asked")
    pool.write(peers[0], "peers", b"nobody")
    pool.write(lease[0], "lease", encode_reply(LeaseReply(flush=True)))
    assert await second == b"nobody"
    assert await first == LeaseReply(flush=True)


async def test_a_recall_is_heard(ends: tuple[FramePipe, PipeLink]) -> None:
    pool, link = ends
    heard: asyncio.Queue[int] = asyncio.Queue()
    link.on_recall(heard.put_nowait)
    pool.write(0, "recall", (7).to_bytes(8, "big"))
    assert await heard.get() == 7


async def test_a_pool_that_goes_is_an_error_of_every_call(ends: tuple[FramePipe, PipeLink]) -> None:
    pool, link = ends
    waiting = asyncio.create_task(link.lease(REQUEST))
    await read(pool)
    await pool.close()
    with pytest.raises(ConnectionError, match="gone"):
        await waiting
    with pytest.raises(ConnectionError, match="gone"):
        await link.lease(REQUEST)


@pytest.mark.parametrize(
    "sent", [b"\0\0\0\x02", b"\xff\xff\xff\xff", b"\0\0\0\x01\xc1"], ids=["cut", "huge", "garbage"]
)
async def test_what_is_no_frame_is_the_end(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    pool = await open_pipe(ours)
    with theirs:
        theirs.sendall(sent)
    async with asyncio.timeout(WAIT_S):
        assert await pool.read() is None
    await pool.close()


async def test_nobody_is_asked_for_parts(ends: tuple[FramePipe, PipeLink]) -> None:
    _, link = ends
    with pytest.raises(ConnectionError, match="the only one"):
        await link.peers.read("tcp://10.0.0.1:1", b"f" * 32, 0, 1)
