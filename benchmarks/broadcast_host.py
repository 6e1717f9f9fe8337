"""A host of the broadcast benchmark: a Dask worker with a cache of its own that fetches what it is told.

Usage: ``broadcast_host.py SCHEDULER NAME HOST STORE FOLDER KEY``. Each line of stdin, ``{"run": N, "value": HEX,
"peers": BOOL}``, is answered by one when the file is in the cache.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import sys
import time
from pathlib import Path

from dmlpipe.storage.objects.cache import FileCache
from dmlpipe.storage.objects.filling import FromStore
from dmlpipe.storage.objects.value import decode_value
from dmlpipe.storage.store import Store
from dmlpipe.worker.cluster_key import read_cluster_key
from dmlpipe.worker.dask_seam import DaskLink, serve
from dmlpipe.worker.peers.exchange import PeerExchange


async def main(scheduler: str, name: str, host: str, url: str, folder: Path, key: Path) -> None:
    """Join, obey, leave when stdin ends."""
    store = Store.open(url, cache_dir=folder / "store", read_only=True)

    async def body(link: DaskLink) -> str:
        loop = asyncio.get_running_loop()
        print("{}", flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            told = json.loads(line)
            cache = FileCache(folder / f"run-{told['run']}")
            exchange = PeerExchange(cache, link.peers, worker=name)
            cache.source = exchange if told["peers"] else FromStore()
            if told["peers"]:
                await exchange.join()
            # All begin together: whoever starts the clock has heard that all are ready.
            print("{}", flush=True)
            await loop.run_in_executor(None, sys.stdin.readline)
            began, used = time.perf_counter(), _cpu_s()
            value = decode_value(bytes.fromhex(told["value"]))
            path = await loop.run_in_executor(None, cache.get, value, store.objects)
            answer = {
                "seconds": time.perf_counter() - began,
                "cpu_s": _cpu_s() - used,
                "bytes": path.stat().st_size,
                "from_store": exchange.traffic.from_store,
                "from_peers": exchange.traffic.from_peers,
            }
            print(json.dumps(answer), flush=True)
            # Others may still want parts of it: the next line comes when all have theirs.
        return ""

    await serve(
        scheduler,
        body,
        name=name,
        slots=1,
        host=host,
        local_directory=str(folder / "dask"),
        connect_timeout_s=120,
        key=read_cluster_key(key),
    )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    words = sys.argv[1:]
    asyncio.run(main(words[0], words[1], words[2], words[3], Path(words[4]), Path(words[5])))
