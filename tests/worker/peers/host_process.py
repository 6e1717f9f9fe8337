"""A host of a cluster, without slots: a cache, a Dask worker, the exchange. Driven by lines of JSON.

Usage: ``host_process.py SCHEDULER NAME CACHE SOURCE LOG GATES KEY``. Lines on stdin, each answered by one:

- ``{"get": SPELLED}``: fetch a file (see `cache_process.Folder`); says its hash and what came from where.
- ``{"mode": MODE}``: serve peers honestly (``good``), with other bytes (``garbage``), never (``stall``), by ending
  (``vanish``), or by sending a pickle that would make the file GATES/ran (``pickle``).
- ``{"served": true}``: how often a peer asked.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from dmlpipe.storage.digest import digest
from dmlpipe.storage.objects.cache import FileCache
from dmlpipe.worker.cluster_key import read_cluster_key
from dmlpipe.worker.dask_seam import DaskLink, serve
from dmlpipe.worker.peers.exchange import PeerExchange
from dmlpipe.worker.peers.fill import PeerSettings
from dmlpipe.worker.peers.transport import ReadRange
from tests.storage.objects.cache_process import Folder


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mknod, (self.marker,)


class Host:
    """What the lines of stdin drive."""

    def __init__(self, folder: Folder, cache: FileCache) -> None:
        self.folder, self.cache = folder, cache
        self.mode = "good"
        self.served = 0

    def misbehaving(self, read: ReadRange) -> ReadRange:
        """Wrap what peers are served by."""

        def served(file: bytes, start: int, stop: int) -> bytes | None:
            self.served += 1
            if self.mode == "vanish":
                os._exit(9)
            if self.mode == "stall":
                threading.Event().wait(30)
            if self.mode == "garbage":
                return os.urandom(stop - start)
            return read(file, start, stop)

        return served

    def answer(self, line: str) -> dict[str, Any]:
        """Do what a line says. In a thread."""
        asked = json.loads(line)
        if "mode" in asked:
            self.mode = asked["mode"]
            return {}
        if "served" in asked:
            return {"served": self.served}
        size, _, hashes = asked["get"].partition(":")
        value = self.folder.know(int(size), [bytes.fromhex(each) for each in hashes.split(",")])
        exchange = self.cache.source
        assert isinstance(exchange, PeerExchange)
        store, peers = exchange.traffic.from_store, exchange.traffic.from_peers
        path = self.cache.get(value, self.folder)
        now = exchange.traffic
        return {
            "hash": digest(path.read_bytes()).hex(),
            "from_store": now.from_store - store,
            "from_peers": now.from_peers - peers,
        }


async def main(scheduler: str, name: str, cache: str, source: str, log: str, gates: str, key: str) -> None:
    """Join, obey, leave when stdin ends."""
    files = FileCache(Path(cache))
    host = Host(Folder(Path(source), Path(log), Path(gates)), files)

    async def body(link: DaskLink) -> str:
        real = link.peers.serve
        link.peers.serve = lambda read: real(host.misbehaving(read))  # type: ignore[method-assign]
        exchange = PeerExchange(
            files,
            link.peers,
            worker=name,
            settings=PeerSettings(min_bytes=1, stall_min_s=0.6, connect_s=1.5, stall_factor=2.0),
        )
        files.source = exchange
        honest = link._worker.handlers["dml_read"]

        async def dml_read(comm: Any, file: bytes, start: int, stop: int) -> Any:
            if host.mode == "pickle":
                from distributed.protocol.serialize import Serialize

                host.served += 1
                evil: Any = Serialize(Evil(f"{gates}/ran"))  # type: ignore[no-untyped-call]
                return {"status": "ok", "data": evil}
            return await honest(comm, file, start, stop)

        link._worker.handlers["dml_read"] = dml_read
        assert await exchange.join()
        print("{}", flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            print(json.dumps(await loop.run_in_executor(None, host.answer, line)), flush=True)
        return ""

    with tempfile.TemporaryDirectory() as local:
        await serve(
            scheduler,
            body,
            name=name,
            slots=1,
            host="127.0.0.1",
            local_directory=local,
            connect_timeout_s=float(os.environ.get("DML_CONNECT_S", "60")),
            key=read_cluster_key(Path(key)),
        )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main(*sys.argv[1:]))
