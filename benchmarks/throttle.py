"""A proxy in front of a server that lets so many bytes a second through, and counts them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

_CHUNK_BYTES = 64 << 10


class Throttle:
    """Forwards TCP connections to `target`; what the server answers is limited and counted. Use as a context manager.

    Parameters
    ----------
    host
        Address to listen on.
    target
        Host and port of the server.
    bytes_per_s
        All connections together.
    """

    def __init__(self, host: str, target: tuple[str, int], bytes_per_s: float) -> None:
        self.host, self.target, self.bytes_per_s = host, target, bytes_per_s
        self.port = 0
        self.answered_bytes = 0
        self._free_at = 0.0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Throttle:
        self._thread.start()
        self._ready.wait(30)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)

    @property
    def endpoint(self) -> str:
        """URL of the proxy."""
        return f"http://{self.host}:{self.port}"

    async def _run(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, self.host, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            other_reader, other_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(
                self._pump(reader, other_writer, limited=False), self._pump(other_reader, writer, limited=True)
            )
        finally:
            for each in (writer, other_writer):
                each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, limited: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if limited:
                    self.answered_bytes += len(data)
                    now = time.monotonic()
                    # A debt of up to 50 ms is let through at once: a busy machine wakes this loop late.
                    self._free_at = max(now - 0.05, self._free_at) + len(data) / self.bytes_per_s
                    if self._free_at > now:
                        await asyncio.sleep(self._free_at - now)
                writer.write(data)
                await writer.drain()
            with contextlib.suppress(RuntimeError):
                writer.write_eof()
