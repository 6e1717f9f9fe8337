"""A worker's part in the exchange: fills its host's cache from peers, and hands out ranges of what that holds.

The cache calls `fill` from slots' threads; everything else happens on the worker's event loop, hashing and disk apart.
What is served is verified: parts of a file that is being filled here, or a whole file that nobody wrote to.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...storage.actor import host_name
from ...storage.digest import DIGEST_SIZE, Digest
from ...storage.errors import BackendError
from ...storage.host import boot_id
from ...storage.objects.cache import FileCache
from ...storage.objects.filling import Filling, FromStore, PartReader
from .fill import CHUNK_BYTES, FillRun, Pace, PeerSettings, Surroundings, Traffic
from .messages import PEER_PROTOCOL, Announce, decode_peer_reply, encode_peer_request
from .transport import PeerTransport

logger = logging.getLogger(__name__)

ANNOUNCED_MAX = 2000
"""Files that a joining worker names: those used last."""
_THREADS = 6
_FILLINGS_KEPT = 64
"""Fillings that ended and are still known: between its last part and its move a file is neither here nor there."""


def cache_id(folder: Path) -> str:
    """Return what is equal for workers that share a cache folder, and for no others: machine, device, folder."""
    machine = boot_id() or host_name()
    folder.mkdir(parents=True, exist_ok=True)
    status = folder.stat()
    return hashlib.blake2b(f"{machine} {status.st_dev} {status.st_ino}".encode(), digest_size=12).hexdigest()


class PeerExchange:
    """Fills files from peers and serves them. A `PartSource`; make it on the event loop that it is to use.

    Parameters
    ----------
    cache
        The host's.
    worker
        The worker's name.
    clock
        Monotonic seconds.
    """

    def __init__(
        self,
        cache: FileCache,
        transport: PeerTransport,
        *,
        worker: str,
        settings: PeerSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings or PeerSettings()
        self.traffic = Traffic()
        """Bytes that came here so far."""
        self._cache = cache
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="dmlpipe-peers")
        self._fillings: dict[bytes, Filling] = {}
        self._running: set[asyncio.Task[Any]] = set()
        self._around = Surroundings(
            worker=worker,
            cache=cache_id(cache.folder),
            transport=transport,
            settings=self.settings,
            pace=Pace(self.settings),
            traffic=self.traffic,
            downloads=asyncio.Semaphore(self.settings.downloads_max),
            threads=self._threads,
            clock=clock,
        )
        transport.serve(self.read)

    async def join(self) -> bool:
        """Tell the tracker what this host's cache holds; False where there is no tracker."""
        entries = await self._loop.run_in_executor(
            self._threads,
            lambda: self._cache.entries(min_bytes=self.settings.min_bytes, limit=ANNOUNCED_MAX),
        )
        request = Announce(
            protocol=PEER_PROTOCOL,
            worker=self._around.worker,
            address=self._transport.address,
            cache=self._around.cache,
            files=tuple(entry.name for entry in entries),
        )
        try:
            async with asyncio.timeout(self.settings.tracker_s):
                reply = decode_peer_reply(await self._transport.ask(encode_peer_request(request)))
        except OSError as err:
            logger.warning("no exchange with peers: %s", err)
            return False
        if reply.error:
            logger.warning("no exchange with peers: %s", reply.error)
        return not reply.error

    def fill(self, filling: Filling, origin: PartReader) -> None:
        """See `PartSource.fill`. From any thread but the event loop's."""
        if filling.size < self.settings.min_bytes:
            left = sum(part.size for part in filling.missing())
            FromStore().fill(filling, origin)
            self.traffic.from_store += left
            return
        try:
            asyncio.run_coroutine_threadsafe(self._fill(filling, origin), self._loop).result()
        except concurrent.futures.CancelledError as err:
            raise BackendError("the worker ended while a file was fetched", retryable=True) from err

    async def _fill(self, filling: Filling, origin: PartReader) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        self._fillings.pop(filling.name, None)
        self._fillings[filling.name] = filling
        try:
            await FillRun(self._around, filling, origin).run()
        finally:
            for name in list(self._fillings)[:-_FILLINGS_KEPT]:
                if not self._fillings[name].missing():
                    del self._fillings[name]

    def read(self, file: bytes, start: int, stop: int) -> bytes | None:
        """Return bytes [start, stop) of a file for a peer; None if they are not held here. From any thread."""
        if len(file) != DIGEST_SIZE or not 0 <= start < stop <= start + CHUNK_BYTES:
            return None
        filling = self._fillings.get(file)
        if filling is not None and filling.holds(start, stop):
            data = _read_filling(filling, start, stop)
            if data is not None:
                return data
        return self._cache.read_named(Digest(file), start, stop)

    async def close(self) -> None:
        """End what is being filled; what came of it stays in the cache and is taken up again."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)


def _read_filling(filling: Filling, start: int, stop: int) -> bytes | None:
    try:
        with open(filling.path, "rb", buffering=0) as source:
            if os.fstat(source.fileno()).st_ino != filling.inode:
                return None  # another process fills it anew: what that has verified is not known here
            data = os.pread(source.fileno(), stop - start, start)
    except FileNotFoundError:
        return None  # it is whole since
    return data if len(data) == stop - start else None
