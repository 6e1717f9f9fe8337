from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from dmlpipe.storage.backend import Backend
from dmlpipe.storage.errors import BackendError
from dmlpipe.storage.objects.content import OBJECT_PREFIX
from dmlpipe.storage.objects.segment import Outcome
from dmlpipe.worker.messages import LeaseReply, LeaseRequest
from dmlpipe.worker.pull import new_worker_name
from dmlpipe.worker.segments import FlushLimits
from tests.worker.bench import WAIT_S, Bench, ListSource, file_datums, parameter, put, python, spec, varying

GATED = """
import os, time
def f(x):
    folder = os.environ["GATES"]
    open(f"{folder}/began-{x.name}", "w").close()
    while not os.path.exists(f"{folder}/open-{x.name}") and not os.path.exists(f"{folder}/open-all"):
        time.sleep(0.005)
    return {x.name: b"done"}
"""


def gated(bench: Bench, tmp_path: Path, count: int = 4) -> tuple[ListSource, str]:
    """A job whose datums wait for a file; its source and its id."""
    (tmp_path / "gates").mkdir()
    bench.environ["GATES"] = str(tmp_path / "gates")
    tree = put(bench.store, "in", {str(i): b"" for i in range(count)})
    job = spec(python(bench.store, GATED, "f", parameter("x")), varying("x", tree))
    return ListSource(bench.leases(job, file_datums(tree))), job.job


async def until(path: Path) -> None:
    async with asyncio.timeout(WAIT_S):
        while not path.exists():
            await asyncio.sleep(0.005)


async def test_a_lease_is_reported_as_computed_and_only_then_as_stored(bench: Bench) -> None:
    tree = put(bench.store, "in", {f"{i:02}": b"" for i in range(20)})
    job = spec(
        python(bench.store, "def f(x):\n if x.name == '03': raise ValueError('no')\n return {}", "f", parameter("x")),
        varying("x", tree),
    )
    source = ListSource(bench.leases(job, file_datums(tree), 7))
    loop = bench.loop(source, 2)
    async with asyncio.timeout(WAIT_S):
        assert await loop.run() == ""
    loop.drain()  # a signal that comes late finds nothing to wake, and says nothing
    returned = [c for r in source.requests for c in r.returned]
    assert (sum(c.done for c in returned), sum(c.failed for c in returned)) == (20, 1)
    stored = [s for r in source.requests for s in r.stored]
    assert (sum(s.rows for s in stored), sum(s.failed for s in stored)) == (20, 1)
    assert source.failures() == {b"03": "no"}
    computed_at: dict[int, int] = {}
    for number, request in enumerate(source.requests):
        for computed in request.returned:
            computed_at.setdefault(computed.lease, number)
        for report in request.stored:
            assert bench.store.backend.size(report.key) is not None
            assert all(computed_at[part.lease] <= number for part in report.leases)


async def test_progress_is_reported_while_a_lease_runs(bench: Bench, tmp_path: Path) -> None:
    source, _ = gated(bench, tmp_path, 3)
    run = asyncio.create_task(bench.loop(source).run())
    (tmp_path / "gates" / "open-0").touch()
    async with asyncio.timeout(WAIT_S):
        while not any(s.rows for r in source.requests for s in r.stored):
            await asyncio.sleep(0.005)
    assert sum(c.done for r in source.requests for c in r.returned) == 1
    (tmp_path / "gates" / "open-all").touch()
    async with asyncio.timeout(WAIT_S):
        assert await run == ""


async def test_a_cancelled_job_ends_at_once_and_gives_back_the_rest(bench: Bench, tmp_path: Path) -> None:
    source, job = gated(bench, tmp_path)
    run = asyncio.create_task(bench.loop(source).run())
    (tmp_path / "gates" / "open-0").touch()
    await until(tmp_path / "gates" / "began-1")
    # The first one's result has come back, too: a cancellation may overtake it.
    async with asyncio.timeout(WAIT_S):
        while not any(c.done for r in source.requests for c in r.returned):
            await source.changed.wait()
    source.cancelled = (job,)
    async with asyncio.timeout(WAIT_S):
        assert await run == ""
    assert [row.key for row in bench.rows(job)] == [b"0"]
    given = [g for r in source.requests for g in r.giving_back]
    assert [(g.start, g.stop) for g in given] == [(1, 4)]


async def test_a_draining_worker_ends_its_datum_stores_it_and_gives_back_the_rest(bench: Bench, tmp_path: Path) -> None:
    source, job = gated(bench, tmp_path)
    loop = bench.loop(source)
    run = asyncio.create_task(loop.run())
    (tmp_path / "gates" / "open-0").touch()
    await until(tmp_path / "gates" / "began-1")
    loop.drain()
    (tmp_path / "gates" / "open-all").touch()
    async with asyncio.timeout(WAIT_S):
        assert await run == ""
    done = {row.key for row in bench.rows(job)}
    assert {b"0", b"1"} <= done
    assert source.requests[-1].draining
    assert not any(source.open.values())
    assert sum(g.stop - g.start for r in source.requests for g in r.giving_back) == 4 - len(done)


async def test_a_retiring_worker_gives_back_at_once_and_ends_when_what_runs_has(bench: Bench, tmp_path: Path) -> None:
    source, job = gated(bench, tmp_path)
    loop = bench.loop(source)
    run = asyncio.create_task(loop.run())
    await until(tmp_path / "gates" / "began-0")
    await loop.retire()
    assert source.requests[-1].draining
    async with asyncio.timeout(WAIT_S):
        while not any(request.giving_back for request in source.requests):
            await asyncio.sleep(0.005)
    assert [(g.start, g.stop) for r in source.requests for g in r.giving_back] == [(1, 4)]
    assert not loop.has_ended(0)
    (tmp_path / "gates" / "open-0").touch()
    async with asyncio.timeout(WAIT_S):
        await loop.slot_ended(0)
        assert await run == ""
    assert [row.key for row in bench.rows(job)] == [b"0"]
    assert not any(source.open.values())


async def test_a_retiring_worker_hears_that_a_job_was_cancelled(bench: Bench, tmp_path: Path) -> None:
    source, job = gated(bench, tmp_path)
    loop = bench.loop(source)
    run = asyncio.create_task(loop.run())
    await until(tmp_path / "gates" / "began-0")
    await loop.retire()
    source.cancelled = (job,)
    async with asyncio.timeout(WAIT_S):
        assert await run == ""
    assert bench.rows(job) == []


async def test_a_recalled_lease_keeps_what_runs_and_gives_back_half_of_the_rest(bench: Bench, tmp_path: Path) -> None:
    source, job = gated(bench, tmp_path, 9)
    lease = source.leases[0].id
    loop = bench.loop(source)
    run = asyncio.create_task(loop.run())
    await until(tmp_path / "gates" / "began-0")
    # The child has the next units in its hands already: they are taken out again.
    source.recall(lease)
    async with asyncio.timeout(WAIT_S):
        while not any(r.giving_back for r in source.requests):
            await asyncio.sleep(0.005)
    given = [g for r in source.requests for g in r.giving_back]
    assert [(g.start, g.stop) for g in given] == [(5, 9)]
    source.recall(lease + 100)
    (tmp_path / "gates" / "open-all").touch()
    async with asyncio.timeout(WAIT_S):
        assert await run == ""
    assert sorted(row.key for row in bench.rows(job)) == [b"0", b"1", b"2", b"3", b"4"]
    assert sorted(path.name for path in (tmp_path / "gates").glob("began-*")) == [f"began-{i}" for i in range(5)]


async def test_a_worker_that_lost_its_scheduler_stores_what_it_has(bench: Bench, tmp_path: Path) -> None:
    source, job = gated(bench, tmp_path)

    class Gone(ListSource):
        async def lease(self, request: LeaseRequest) -> LeaseReply:
            if (tmp_path / "gates" / "open-0").exists():
                raise ConnectionError("closed")
            return await super().lease(request)

    loop = bench.loop(Gone(source.leases), limits=FlushLimits(1000.0))
    run = asyncio.create_task(loop.run())
    await until(tmp_path / "gates" / "began-0")
    (tmp_path / "gates" / "open-0").touch()
    (tmp_path / "gates" / "open-all").touch()
    async with asyncio.timeout(WAIT_S):
        assert "the scheduler is gone" in await run
    assert b"0" in {row.key for row in bench.rows(job)}


async def test_a_refused_worker_ends_with_the_reason(bench: Bench) -> None:
    class Refusing(ListSource):
        async def lease(self, request: LeaseRequest) -> LeaseReply:
            return LeaseReply(error="other protocol", stop=True)

    async with asyncio.timeout(WAIT_S):
        assert await bench.loop(Refusing([])).run() == "the scheduler refuses this worker: other protocol"


async def test_results_that_cannot_be_stored_are_never_reported(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = put(bench.store, "in", {"a": b""})
    job = spec(python(bench.store, "def f(x): return {}", "f", parameter("x")), varying("x", tree))
    source = ListSource(bench.leases(job, file_datums(tree)))
    real = type(bench.store.backend).put_if_absent

    def full(self: Backend, key: str, data: bytes, **options: object) -> bool:
        if key.startswith("results/"):
            raise BackendError("the disk is full")
        return bool(real(self, key, data, **options))  # type: ignore[arg-type]

    monkeypatch.setattr(type(bench.store.backend), "put_if_absent", full)
    async with asyncio.timeout(WAIT_S):
        assert await bench.loop(source).run() == "the disk is full"
    assert not any(request.stored for request in source.requests)


async def test_a_store_that_takes_nothing_keeps_slots_from_computing_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = """
    import os, time
    def f(x):
        open(os.environ["BEGUN"] + "/" + x.name, "w").close()
        time.sleep(0.005)  # a frame of these is ten
        return {x.name: os.urandom(2000)}
    """
    (tmp_path / "begun").mkdir()
    bench.environ["BEGUN"] = str(tmp_path / "begun")
    tree = put(bench.store, "in", {f"{number:04}": b"" for number in range(600)})
    job = spec(python(bench.store, source, "f", parameter("x")), varying("x", tree))
    leases = ListSource(bench.leases(job, file_datums(tree), 300))
    real = type(bench.store.backend).put_if_absent
    opened = threading.Event()

    def gated_put(self: Backend, key: str, data: bytes, **options: object) -> bool:
        if key.startswith("results/"):
            assert opened.wait(WAIT_S)
        return bool(real(self, key, data, **options))  # type: ignore[arg-type]

    monkeypatch.setattr(type(bench.store.backend), "put_if_absent", gated_put)
    run = asyncio.create_task(bench.loop(leases, 2, limits=FlushLimits(0.05, 10_000)).run())
    begun = 0
    async with asyncio.timeout(WAIT_S):
        while True:
            await asyncio.sleep(0.5)
            now = len(list((tmp_path / "begun").iterdir()))
            if now and now == begun:
                break
            begun = now
    # 80 kB are 40 results; beside them what was in the hands of two slots by then, far from the 600 there are.
    assert 40 <= begun < 200
    opened.set()
    async with asyncio.timeout(WAIT_S):
        assert await run == ""
    assert len(bench.rows(job.job)) == 600


async def test_the_next_datum_is_computed_while_an_output_is_uploaded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = """
    import os
    def f(x):
        open(os.environ["BEGUN"] + "/" + x.name, "w").close()
        return {x.name: os.urandom(2_000_000)}
    """
    (tmp_path / "begun").mkdir()
    bench.environ["BEGUN"] = str(tmp_path / "begun")
    tree = put(bench.store, "in", {f"{number}": b"" for number in range(3)})
    job = spec(python(bench.store, source, "f", parameter("x")), varying("x", tree))
    leases = ListSource(bench.leases(job, file_datums(tree)))
    real = type(bench.store.backend).put_if_absent
    opened, held = threading.Event(), threading.Event()

    def gated_put(self: Backend, key: str, data: bytes, **options: object) -> bool:
        if key.startswith(OBJECT_PREFIX):
            held.set()
            assert opened.wait(WAIT_S)
        return bool(real(self, key, data, **options))  # type: ignore[arg-type]

    monkeypatch.setattr(type(bench.store.backend), "put_if_absent", gated_put)
    run = asyncio.create_task(bench.loop(leases, 1).run())
    # The first output is at the gate; one slot begins the second datum all the same.
    await asyncio.to_thread(held.wait, WAIT_S)
    await until(tmp_path / "begun" / "1")
    assert not run.done()
    opened.set()
    async with asyncio.timeout(WAIT_S):
        assert await run == ""
    assert len(bench.rows(job.job)) == 3


async def test_jobs_of_one_bundle_share_a_child_and_others_do_not(bench: Bench) -> None:
    tree = put(bench.store, "in", {"a": b""})
    source = "import os\nCOUNT = []\ndef f(x):\n COUNT.append(1)\n return {'n': f'{os.getpid()} {len(COUNT)}'}"
    transform = python(bench.store, source, "f", parameter("x"))
    other = python(bench.store, source + "\n", "f", parameter("x"))
    jobs = [spec(t, varying("x", tree)) for t in (transform, transform, other)]
    leases = [lease for job in jobs for lease in bench.leases(job, file_datums(tree))]
    async with asyncio.timeout(WAIT_S):
        assert await bench.loop(ListSource(leases)).run() == ""
    (a, first), (b, second), (c, third) = (bench.content(job.job)["n"].split() for job in jobs)
    assert (first, second, third) == (b"1", b"2", b"1")
    assert a == b != c


async def test_nothing_is_left_behind(bench: Bench) -> None:
    tree = put(bench.store, "in", {str(i): b"x" * 100_000 for i in range(5)})
    job = spec(python(bench.store, "def f(x): return {x.name: b''}", "f", parameter("x")), varying("x", tree))
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        source = ListSource(bench.leases(job, file_datums(tree), 2))
        async with asyncio.timeout(WAIT_S):
            assert await bench.loop(source, 2).run() == ""
    assert list(bench.folder.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1


async def test_folds_get_segments_of_their_own(bench: Bench) -> None:
    tree = put(bench.store, "in", {"a": b"", "b": b""})
    job = spec(python(bench.store, "def f(x): return {x.name: b'y' * 500}", "f", parameter("x")), varying("x", tree))
    datums = file_datums(tree)
    leases = [*bench.leases(job, datums[:1], fold=0), *bench.leases(job, datums[1:], fold=1)]
    async with asyncio.timeout(WAIT_S):
        assert await bench.loop(ListSource(leases), limits=FlushLimits(1000.0)).run() == ""
    keys = [key for key, _ in bench.store.backend.list(f"results/{job.job}/")]
    assert [key.split("/")[2] for key in keys] == ["000000", "000001"]
    assert {row.key: row.outcome for row in bench.rows(job.job)} == {b"a": Outcome.OK, b"b": Outcome.OK}
    assert bench.content(job.job) == {"a": b"y" * 500, "b": b"y" * 500}


def test_worker_names_are_unique() -> None:
    assert len({new_worker_name() for _ in range(50)}) == 50
