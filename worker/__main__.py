"""``python -m dmlpipe.worker SCHEDULER --store URL --slots N``: one worker, of a cluster or of one run.

SCHEDULER is the address of a Dask scheduler, or ``fd:N``: a socket that was inherited, with the lease pool of a run at
its other end.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from importlib.metadata import version
from pathlib import Path

from ..storage.errors import DmlpipeError
from ..storage.logs import log_to_stderr
from ..storage.objects.cache_size import CACHE_SIZE_VARIABLE, check_cache_size
from ..storage.store import Store
from .child.environment import clean_environment
from .child.zygote import Zygote
from .cluster_key import read_cluster_key
from .collector import relax_collector
from .folders import release, worker_folder
from .messages import COMPARED_PACKAGES
from .pipe import Join, PipeLink, open_pipe
from .pull import PATIENCE_S, PullLoop, new_worker_name
from .serving import Link, find_equipment, serve_slots

logger = logging.getLogger("dmlpipe.worker")

PIPE = "fd:"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m dmlpipe.worker", description=__doc__)
    parser.add_argument("scheduler", help="address of the Dask scheduler: tcp://127.0.0.1:8786; or fd:N")
    parser.add_argument("--store", required=True, help="URL of the store")
    parser.add_argument("--slots", type=int, default=os.cpu_count() or 1, help="places that run user code")
    parser.add_argument("--name", default="", help="unique name (default: host, pid and 8 random digits)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback only)")
    parser.add_argument("--cache-dir", type=Path, help="folder of the file cache (default: $DMLPIPE_CACHE_DIR)")
    parser.add_argument(
        "--resource",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="something that pipelines ask for with resources=, memory= (bytes) or gpus= (default: the memory and the "
        "GPUs that are found, and what $DMLPIPE_RESOURCES lists: licence=2,fpga=1)",
    )
    parser.add_argument("--cache-size", type=check_cache_size, help="limit of the cache: 20GiB, or 30%% of the disk")
    parser.add_argument("--no-peers", action="store_true", help="read everything from the store")
    parser.add_argument("--key", type=Path, help="folder of the cluster's key: cert.pem and key.pem (mode 0600)")
    parser.add_argument("--insecure", action="store_true", help="listen beyond this machine without a key")
    parser.add_argument("--connect-timeout", type=float, default=60.0, help="seconds to look for the scheduler")
    return parser.parse_args(argv)


async def _serve(arguments: argparse.Namespace, store: Store, zygote: Zygote) -> str:
    name = arguments.name or new_worker_name()
    folder = worker_folder(store.cache_dir, name)
    equipment = find_equipment(os.environ, arguments.resource)
    of_a_run = arguments.scheduler.startswith(PIPE)

    async def body(link: Link) -> str:
        return await serve_slots(
            store,
            link,
            zygote,
            name=name,
            slots=arguments.slots,
            folder=folder,
            devices=equipment.devices,
            packages=None if of_a_run else {package: version(package) for package in COMPARED_PACKAGES},
            peers=not arguments.no_peers,
            begun=_begun,
        )

    try:
        if of_a_run:
            end = socket.socket(fileno=int(arguments.scheduler.removeprefix(PIPE)))
            end.set_inheritable(False)
            link = PipeLink(await open_pipe(end))
            link.join(Join(name=name, slots=arguments.slots, resources=equipment.resources))
            try:
                return await body(link)
            finally:
                await link.close()
        # Imported now, after the zygote: slot children must know nothing of it.
        from .dask_seam import serve

        local = worker_folder(store.cache_dir, f"{name}-dask")
        local.mkdir()
        try:
            return await serve(
                arguments.scheduler,
                body,
                name=name,
                slots=arguments.slots,
                host=arguments.host,
                local_directory=str(local),
                connect_timeout_s=arguments.connect_timeout,
                resources=equipment.resources,
                key=read_cluster_key(arguments.key) if arguments.key else None,
                insecure=arguments.insecure,
            )
        finally:
            release(local)
    finally:
        release(folder)


def _begun(loop: PullLoop) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, loop.drain)
    relax_collector()


def main(argv: list[str] | None = None) -> int:
    """Run a worker until its scheduler ends it; return the exit code."""
    arguments = parse_arguments(argv)
    log_to_stderr("worker")
    logging.getLogger("distributed").setLevel(logging.WARNING)
    # Slots' threads make a system call every few microseconds: none may wait five milliseconds for its turn after it.
    sys.setswitchinterval(0.0005)
    zygote = Zygote(clean_environment(os.environ))
    if arguments.cache_size:
        os.environ[CACHE_SIZE_VARIABLE] = arguments.cache_size
    try:
        store = Store.open(arguments.store, cache_dir=arguments.cache_dir, patience_s=PATIENCE_S)
        error = asyncio.run(_serve(arguments, store, zygote))
    except DmlpipeError as err:
        logger.error("%s%s", err, f" ({err.hint})" if err.hint else "")
        return 1
    except OSError as err:
        logger.error("%s", err)
        return 1
    finally:
        zygote.close()
    if error:
        logger.error("%s", error)
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(main())
