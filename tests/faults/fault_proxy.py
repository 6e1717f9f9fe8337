"""A proxy before an S3 server that can be away, slow, or answer some requests with an error.

Each connection carries one request (the proxy has the server close it), so that faults hit requests, not connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections import Counter
from urllib.parse import urlsplit

_ERROR = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: 87\r\n\r\n"
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>by order</Message></Error>    "
)


class FaultProxy:
    """Listens on loopback; use it as a context manager.

    Parameters
    ----------
    upstream
        `http://127.0.0.1:9000`.
    seed
        Which requests fail follows from it.
    """

    def __init__(self, upstream: str, *, seed: int = 1) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname is not None
        self._upstream = (parts.hostname, parts.port)
        self._random = random.Random(seed)
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="fault-proxy", daemon=True)
        self.away = False
        """Close every connection without an answer."""
        self.delay_s = 0.0
        """Before each request is passed on."""
        self.errors = 0.0
        """Share of requests that are answered with 503."""
        self.counts = Counter[str]()
        """`passed`, `refused`, `failed`."""
        self.port = 0
        self._handling: set[asyncio.Task[None] | None] = set()
        """Nothing else holds on to a task whose client has gone: it would be collected in the middle."""
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._handling.add(asyncio.current_task())
        try:
            await self._one(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # either side went away: what a proxy is for
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()
            self._handling.discard(asyncio.current_task())

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if self.away:
            self.counts["refused"] += 1
            return
        if self._random.random() < self.errors:
            self.counts["failed"] += 1
            writer.write(_ERROR)
            await writer.drain()
            return
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        self.counts["passed"] += 1
        up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        try:
            up_writer.write(head[:-2] + b"Connection: close\r\n\r\n")
            sending = asyncio.create_task(_pump(reader, up_writer))
            try:
                await _pump(up_reader, writer)
            finally:
                sending.cancel()
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    await sending
        finally:
            up_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
