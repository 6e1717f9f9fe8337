"""What both seams rely on of `distributed`, shown by both seams at work; run with the oldest and the newest release.

`make test-oldest` runs this file with the oldest release that pyproject.toml allows, in an environment of its own.
"""

from __future__ import annotations

import asyncio
import inspect
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dask.config
import pytest
from distributed import scheduler as dask_scheduler

from dmlpipe.scheduler.leases import dask_seam
from dmlpipe.scheduler.leases.control import Status, decode_reply, encode_request
from dmlpipe.scheduler.leases.dask_seam import Connection, install
from dmlpipe.scheduler.leases.executor import JobOffer
from dmlpipe.scheduler.leases.service import LeaseService
from dmlpipe.storage.version import __version__
from dmlpipe.worker import dask_seam as worker_seam
from dmlpipe.worker.messages import PROTOCOL, LeaseReply, LeaseRequest, LeaseSource

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
WAIT_S = 30.0


@asynccontextmanager
async def scheduler(service: Any, **options: Any) -> AsyncIterator[Any]:
    """A Dask scheduler with a service installed, as `run_scheduler` makes it."""
    with dask.config.set(dask_seam.CONFIG):
        options = {"host": "127.0.0.1", "port": 0, **options}
        make: Any = dask_scheduler.Scheduler
        started = make(dashboard=False, dashboard_address="127.0.0.1:0", **options)
        install(started, service)
        async with started:
            yield started


async def until(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not happened():
            await asyncio.sleep(0.005)


def ask(name: str, **fields: Any) -> LeaseRequest:
    return LeaseRequest(protocol=PROTOCOL, version=__version__, worker=name, slot=0, **fields)


async def work(
    address: str, tmp_path: Path, body: Callable[[LeaseSource], Any], *, name: str = "w1", **options: Any
) -> str:
    """Be a worker, by the worker's own seam."""
    return await worker_seam.serve(
        address,
        body,
        name=name,
        slots=2,
        host="127.0.0.1",
        local_directory=str(tmp_path / name),
        connect_timeout_s=WAIT_S,
        **options,
    )


async def test_a_worker_joins_with_what_it_has_calls_hears_and_leaves(tmp_path: Path) -> None:
    heard: list[int] = []
    joined: list[tuple[str, int, Mapping[str, float]]] = []
    left: list[str] = []

    class Noting(LeaseService):
        def add_worker(self, name: str, slots: int, resources: Mapping[str, float] | None = None) -> None:
            joined.append((name, slots, dict(resources or {})))
            super().add_worker(name, slots, resources)

        def remove_worker(self, name: str) -> None:
            left.append(name)
            super().remove_worker(name)

    service = Noting()
    async with scheduler(service) as started:

        async def body(source: LeaseSource) -> str:
            source.on_recall(heard.append)
            reply: LeaseReply = await source.lease(ask("w1", want=1))
            assert reply.lease is None
            # A stream message reaches the worker by its name; one that is not there hears nothing.
            service.tell_worker("nobody", {"op": "dml-recall", "lease": 8})
            service.tell_worker("w1", {"op": "dml-recall", "lease": 7})
            await until(lambda: heard)
            return "done"

        assert await work(started.address, tmp_path, body, resources={"memory": 5.0, "gpu": 1.0}) == "done"
        await until(lambda: left)
    assert joined == [("w1", 2, {"memory": 5.0, "gpu": 1.0})]
    assert heard == [7]
    assert left == ["w1"]


async def test_a_recall_that_nobody_waits_for_does_no_harm(tmp_path: Path) -> None:
    service = LeaseService()
    async with scheduler(service) as started:

        async def body(source: LeaseSource) -> str:
            service.tell_worker("w1", {"op": "dml-recall", "lease": 7})
            await asyncio.sleep(0.2)
            return "" if (await source.lease(ask("w1"))).stop else "alive"

        assert await work(started.address, tmp_path, body) == "alive"


async def test_a_scheduler_that_goes_is_an_error_of_the_call_that_waits(tmp_path: Path) -> None:
    service = LeaseService()
    async with scheduler(service) as started:

        async def body(source: LeaseSource) -> str:
            waiting = asyncio.create_task(source.lease(ask("w1", want=1, wait_s=9.0)))
            await asyncio.sleep(0.1)
            await started.close()
            with pytest.raises(OSError):
                await waiting
            return "told"

        async with asyncio.timeout(WAIT_S):
            assert await work(started.address, tmp_path, body) == "told"


async def test_a_connection_is_not_used_again_after_a_call_was_cut(tmp_path: Path) -> None:
    service = LeaseService()
    async with scheduler(service) as started:
        connection = Connection(started.address)
        call = asyncio.create_task(connection.call("dml_control", encode_request(Status())))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert decode_reply(await connection.call("dml_control", encode_request(Status()))).workers == 0
        with pytest.raises(OSError, match="answered dml_nothing"):
            await connection.call("dml_nothing", b"")
        connection.abort()


async def test_adaptive_scaling_sees_the_backlog_and_spares_those_that_hold_leases(tmp_path: Path) -> None:
    service = LeaseService()
    async with scheduler(service) as started:
        target = started.handlers["adaptive_target"]
        assert target(target_duration="5s") == 0
        service.pool.offer(JobOffer(job="j", spec="s", pipeline="p"))
        service.pool.add_block("j", "block", 100)
        service.pool.end_blocks("j")
        assert target() == 100  # nobody is there, nothing is known: a worker each

        async def body(source: LeaseSource) -> str:
            assert target(target_duration=5.0) == 50  # of two slots
            assert len(started.workers_to_close(n=1)) == 1
            lease = (await source.lease(ask("w1", want=1))).lease
            assert lease is not None
            assert started.workers_to_close(n=1) == []
            return "done"

        assert await work(started.address, tmp_path, body) == "done"


def certificate(folder: Path) -> tuple[str, str]:
    """A key and a certificate for it, as a cluster of its own makes them."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=dmlpipe"]
    subprocess.run([*words, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return str(key), str(cert)


async def test_with_tls_only_those_who_hold_the_key_are_let_in(tmp_path: Path) -> None:
    from distributed import security as dask_security
    from distributed.comm import core as comms

    make_security: Any = dask_security.Security
    connect: Any = comms.connect

    def security(name: str) -> Any:
        (tmp_path / name).mkdir()
        key, cert = certificate(tmp_path / name)
        roles = {
            f"tls_{role}_{what}": path
            for role in ("scheduler", "worker", "client")
            for what, path in (("key", key), ("cert", cert))
        }
        return make_security(tls_ca_file=cert, require_encryption=True, **roles)

    ours, other = security("ours"), security("other")
    service = LeaseService()
    async with scheduler(service, protocol="tls", security=ours) as started:
        assert started.address.startswith("tls://")
        from distributed import Worker

        async with Worker(
            started.address,
            name="w1",
            nthreads=1,
            security=ours,
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
            local_directory=str(tmp_path / "w1"),
        ) as worker:
            reply: Any = worker.scheduler
            data = await reply.dml_control(request=encode_request(Status()))
            assert decode_reply(data).workers == 1
        for wrong in ({}, {"ssl_context": other.get_connection_args("client")["ssl_context"]}):
            with pytest.raises((OSError, TypeError, RuntimeError)):
                await connect(started.address, timeout=3, **wrong)
        with pytest.raises(OSError):
            await connect(started.address.replace("tls://", "tcp://"), timeout=2)


def test_the_seams_are_all_that_touches_it() -> None:
    """Nothing else in the package imports distributed or dask."""
    import dmlpipe

    package = Path(inspect.getfile(dmlpipe)).parent
    found = {
        str(path.relative_to(package))
        for layer in ("storage", "worker", "scheduler", "cli")
        for path in (package / layer).rglob("*.py")
        for line in path.read_text().splitlines()
        if line.strip().startswith(("import dask", "from dask", "import distributed", "from distributed"))
    }
    # Beside the seams: the two sides of a cluster that somebody else started, which are Dask's own objects.
    guests = {"worker/guest.py", "scheduler/cluster/given.py"}
    assert found == {"worker/dask_seam.py", "scheduler/leases/dask_seam.py"} | guests
