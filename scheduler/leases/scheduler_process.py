"""The scheduler's process: ``python -m dmlpipe.scheduler.leases.scheduler_process HOST PORT [--key FOLDER]``.

Ends on SIGTERM or SIGINT. It holds nothing that must survive it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from ...storage.errors import DmlpipeError
from ...storage.logs import log_to_stderr
from ...worker.cluster_key import ClusterKey, read_cluster_key
from ...worker.collector import relax_collector


async def serve(host: str, port: int, *, key: ClusterKey | None = None, insecure: bool = False) -> None:
    """Run a scheduler with a lease pool and a tracker of peers until a signal asks it to stop."""
    from .dask_seam import run_scheduler
    from .service import LeaseService

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    relax_collector()
    await run_scheduler(host, port, LeaseService(), stop, key=key, insecure=insecure)


def main(argv: list[str]) -> int:
    """Parse the command line, then serve."""
    parser = argparse.ArgumentParser(prog="python -m dmlpipe.scheduler.leases.scheduler_process", description=__doc__)
    parser.add_argument("host", help="address to listen on")
    parser.add_argument("port", type=int)
    parser.add_argument("--key", type=Path, help="folder of the cluster's key: cert.pem and key.pem (mode 0600)")
    parser.add_argument("--insecure", action="store_true", help="listen beyond this machine without a key")
    arguments = parser.parse_args(argv)
    log_to_stderr("scheduler")
    try:
        key = read_cluster_key(arguments.key) if arguments.key else None
        asyncio.run(serve(arguments.host, arguments.port, key=key, insecure=arguments.insecure))
    except DmlpipeError as err:
        logging.getLogger(__name__).error("%s%s", err, f" ({err.hint})" if err.hint else "")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
