"""A real Dask scheduler in this process, real workers beside it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dask.config
import pytest

from dmlpipe.worker.dask_seam import CONFIG, serve
from dmlpipe.worker.messages import LeaseSource, decode_request, encode_reply
from tests.worker.bench import WAIT_S, Bench, ListSource, file_datums, parameter, put, python, spec, varying
from tests.worker.test_pull import GATED, gated, until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@asynccontextmanager
async def scheduler(source: ListSource) -> AsyncIterator[Any]:
    """A Dask scheduler whose leases come from `source`."""
    from distributed.scheduler import Scheduler

    async def dml_lease(request: bytes) -> bytes:
        return encode_reply(await source.lease(decode_request(request)))

    with dask.config.set({"distributed.scheduler.http.routes": ["distributed.http.health"]}):
        started = Scheduler(host="127.0.0.1", port=0, dashboard=False, dashboard_address="127.0.0.1:0")
        started.handlers["dml_lease"] = dml_lease
        async with started:
            yield started


def test_the_settings_exist_in_the_installed_release() -> None:
    import distributed  # noqa: F401 - brings its defaults

    missing = object()
    assert [name for name in CONFIG if dask.config.get(name, missing) is missing] == []


async def test_leases_come_by_the_scheduler(bench: Bench, tmp_path: Path) -> None:
    tree = put(bench.store, "in", {str(i): b"" for i in range(30)})
    job = spec(python(bench.store, "def f(x): return {x.name: b''}", "f", parameter("x")), varying("x", tree))
    source = ListSource(bench.leases(job, file_datums(tree), 10))

    async def body(leases: LeaseSource) -> str:
        loop = bench.loop(source, 2)
        loop._source = leases
        return await loop.run()

    async with asyncio.timeout(WAIT_S), scheduler(source) as dask_scheduler:
        error = await serve(
            dask_scheduler.address,
            body,
            name="w1",
            slots=2,
            host="127.0.0.1",
            local_directory=str(tmp_path / "dask"),
            connect_timeout_s=20,
        )
    assert error == ""
    assert len(bench.rows(job.job)) == 30


async def test_no_scheduler_is_said_so(tmp_path: Path) -> None:
    async def body(leases: LeaseSource) -> str:
        raise AssertionError("never joined")

    with pytest.raises(OSError, match=r"no scheduler answers at tcp://127\.0\.0\.1:1 within"):
        await serve(
            "tcp://127.0.0.1:1",
            body,
            name="w",
            slots=1,
            host="127.0.0.1",
            local_directory=str(tmp_path / "dask"),
            connect_timeout_s=0.5,
        )


@asynccontextmanager
async def worker_process(bench: Bench, address: str, slots: int = 1) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m dmlpipe.worker` as it is started in production."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dmlpipe.worker", address, "--store", bench.store.backend.url),
        *("--slots", str(slots), "--cache-dir", str(bench.store.cache_dir)),
        env=bench.environ | {"DMLPIPE_FLUSH_S": "0.05"},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def waiting_children(gates: Path) -> list[int]:
    """Pids that gated datums wrote."""
    return [int(path.name.removeprefix("pid-")) for path in gates.glob("pid-*")]


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pids: list[int]) -> None:
    async with asyncio.timeout(WAIT_S):
        while any(map(is_alive, pids)):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
async def test_a_worker_that_is_ended_leaves_nothing_running(bench: Bench, tmp_path: Path, how: str) -> None:
    source, _ = gated(bench, tmp_path)
    gates = tmp_path / "gates"
    body = GATED.replace("    open(f", "    open(f\"{folder}/pid-{os.getpid()}\", 'w').close()\n    open(f", 1)
    tree = put(bench.store, "in2", {str(i): b"" for i in range(4)})
    replaced = spec(python(bench.store, body, "f", parameter("x")), varying("x", tree))
    source.leases = bench.leases(replaced, file_datums(tree))
    async with asyncio.timeout(WAIT_S), scheduler(source) as dask_scheduler:
        async with worker_process(bench, dask_scheduler.address) as process:
            (gates / "open-0").touch()
            await until(gates / "began-1")
            while not any(request.stored for request in source.requests):
                await asyncio.sleep(0.01)
            process.send_signal(getattr(signal, how))
            if how == "SIGTERM":
                (gates / "open-all").touch()
            code = await process.wait()
        await gone(waiting_children(gates))
    done = {row.key for row in bench.rows(replaced.job)}
    if how == "SIGTERM":
        assert code == 0
        assert {b"0", b"1"} <= done
        assert not any(source.open.values())
        assert list((bench.store.cache_dir / "work").iterdir()) == []
    else:
        assert code == -signal.SIGKILL
        assert done == {b"0"}


async def test_a_worker_whose_scheduler_dies_ends_with_an_error(bench: Bench) -> None:
    source = ListSource([], stop_when_stored=False)
    async with asyncio.timeout(WAIT_S):
        async with scheduler(source) as dask_scheduler:
            async with worker_process(bench, dask_scheduler.address) as process:
                while not source.requests:
                    await asyncio.sleep(0.01)
                await dask_scheduler.close()
                assert await process.wait() == 1


async def test_a_killed_workers_folder_is_cleared_by_the_next(bench: Bench, tmp_path: Path) -> None:
    source = ListSource([], stop_when_stored=False)
    work = bench.store.cache_dir / "work"
    async with asyncio.timeout(WAIT_S), scheduler(source) as dask_scheduler:
        async with worker_process(bench, dask_scheduler.address) as process:
            while not source.requests:
                await asyncio.sleep(0.01)
            process.kill()
            await process.wait()
        left = {path.name for path in work.iterdir()}
        assert left
        async with worker_process(bench, dask_scheduler.address) as process:
            source.requests.clear()
            while not source.requests:
                await asyncio.sleep(0.01)
            assert not left & {path.name for path in work.iterdir()}
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
