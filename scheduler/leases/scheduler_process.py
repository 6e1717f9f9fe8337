"""The scheduler's process: ``python -m dmlpipe.scheduler.leases.scheduler_process HOST PORT``.

Ends on SIGTERM or SIGINT. It holds nothing that must survive it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys


async def serve(host: str, port: int) -> None:
    """Run a scheduler with a lease pool until a signal asks it to stop."""
    from .dask_plugin import LeaseService
    from .dask_seam import run_scheduler

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run_scheduler(host, port, LeaseService(), stop)


def main(argv: list[str]) -> int:
    """Parse HOST and PORT, then serve."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    host, port = argv
    asyncio.run(serve(host, int(port)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
