"""The lease service: long polls, sessions, and workers that come and go; without Dask."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

import pytest

from dmlpipe.scheduler.leases import control
from dmlpipe.scheduler.leases.control import (
    CONTROL_PROTOCOL,
    AddBlock,
    Bye,
    Cancel,
    ControlReply,
    ControlRequest,
    EndBlocks,
    Hello,
    Offer,
    Poll,
    Status,
)
from dmlpipe.scheduler.leases.executor import JobFinished, JobOffer, Progressed, SegmentStored, WorkersChanged
from dmlpipe.scheduler.leases.service import LeaseService
from dmlpipe.storage.version import __version__
from dmlpipe.worker import messages
from dmlpipe.worker.job import Lease
from dmlpipe.worker.messages import PROTOCOL, Computed, GivenBack, LeaseReply, LeaseRequest, Stored, StoredLease

SOON_S = 5.0


async def lease(service: LeaseService, worker: str = "w", **fields: object) -> LeaseReply:
    values = {"protocol": PROTOCOL, "version": __version__, "slot": 0, "want": 1} | fields
    request = LeaseRequest(worker=worker, **values)  # type: ignore[arg-type]  # the tests' own keywords
    async with asyncio.timeout(SOON_S):
        return messages.decode_reply(await service.lease(messages.encode_request(request)))


async def tell(service: LeaseService, request: ControlRequest) -> ControlReply:
    async with asyncio.timeout(SOON_S):
        return control.decode_reply(await service.control(control.encode_request(request)))


async def begin(service: LeaseService, session: str = "s", *, drain_s: float = SOON_S) -> ControlReply:
    return await tell(service, Hello(session=session, protocol=CONTROL_PROTOCOL, version="0", drain_s=drain_s))


async def offer(service: LeaseService, count: int, *, session: str = "s", job: str = "j") -> None:
    await tell(service, Offer(session=session, offer=JobOffer(job=job, spec="", pipeline="p")))
    await tell(service, AddBlock(session=session, job=job, block="b", count=count))
    await tell(service, EndBlocks(session=session, job=job))


def stored(given: Lease) -> Stored:
    part = StoredLease(given.id, tuple(range(given.start, given.stop)))
    return Stored(given.job, f"seg-{given.id}", given.fold, (part,), given.stop - given.start, 0)


def held(reply: LeaseReply) -> Lease:
    assert reply.lease is not None
    return reply.lease


@pytest.fixture
async def service() -> LeaseService:
    service = LeaseService()
    service.add_worker("w", 2)
    await begin(service)
    return service


async def test_a_waiting_slot_gets_a_lease_as_soon_as_there_is_one(service: LeaseService) -> None:
    waiting = asyncio.create_task(lease(service, wait_s=60))
    await asyncio.sleep(0)
    await offer(service, 1)
    assert held(await waiting).job == "j"


async def test_a_slot_that_wants_nothing_is_not_given_a_lease(service: LeaseService) -> None:
    await offer(service, 1)
    assert await lease(service, want=0) == LeaseReply()


async def test_a_slot_is_told_once_to_flush_when_there_is_nothing_left(service: LeaseService) -> None:
    await offer(service, 1)
    given = held(await lease(service))
    report = (Computed(given.id, 1, 0, 0.1),)
    assert await lease(service, returned=report, wait_s=60) == LeaseReply(flush=True)
    assert await lease(service) == LeaseReply()


async def test_a_waiting_slot_is_told_to_flush_what_another_request_reports(service: LeaseService) -> None:
    await offer(service, 1)
    given = held(await lease(service))
    waiting = asyncio.create_task(lease(service, wait_s=60))
    await asyncio.sleep(0)
    await lease(service, slot=-1, want=0, returned=(Computed(given.id, 1, 0, 0.1),))
    assert await waiting == LeaseReply(flush=True)


async def test_a_report_wakes_the_slots_of_its_worker_only_unless_datums_are_queued(
    service: LeaseService, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        service.add_worker(f"w{number}", 1)
    await offer(service, 1)
    given = held(await lease(service))
    asked: list[str] = []
    take = service.pool.take

    def counted(worker: str, *rest: Any) -> Lease | None:
        asked.append(worker)
        return take(worker, *rest)

    monkeypatch.setattr(service.pool, "take", counted)
    others = [asyncio.create_task(lease(service, f"w{number}", wait_s=SOON_S)) for number in range(50)]
    mine = asyncio.create_task(lease(service, slot=1, wait_s=SOON_S))
    while len(asked) < 51:
        await asyncio.sleep(0)
    asked.clear()
    await lease(service, returned=(Computed(given.id, 1, 0, 0.1),), want=0)
    # Its own other slot is told to store it; nobody else has anything from this.
    assert (await mine).flush
    assert asked == ["w"]
    # New datums are for everybody.
    await offer(service, 50, job="k")
    assert {held(reply).job for reply in await asyncio.gather(*others)} == {"k"}


async def test_a_cancellation_wakes_the_worker_channel_once(service: LeaseService) -> None:
    await offer(service, 5)
    given = held(await lease(service))
    waiting = asyncio.create_task(lease(service, slot=-1, want=0, wait_s=60))
    await asyncio.sleep(0)
    await tell(service, Cancel(session="s", job="j"))
    assert await waiting == LeaseReply(cancelled=("j",))
    # Told: the next poll waits (here: not at all) instead of spinning, and still names the job.
    assert await lease(service, slot=-1, want=0) == LeaseReply(cancelled=("j",))
    back = (GivenBack(given.id, given.start, given.stop),)
    assert await lease(service, giving_back=back) == LeaseReply()
    events = (await tell(service, Poll(session="s", ack=0, wait_s=0))).events
    assert JobFinished(job="j") in [event.event for event in events]


async def test_a_worker_of_another_protocol_is_refused_with_the_reason(service: LeaseService) -> None:
    reply = await lease(service, protocol=PROTOCOL + 1)
    assert reply.stop
    assert f"speaks lease protocol {PROTOCOL + 1}" in reply.error
    assert (await tell(service, Status())).refused == (reply.error,)


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"version": "0.0.1"}, "dmlpipe 0.0.1"), ({"packages": {"distributed": "2019.1"}}, "distributed 2019.1 (here 20")],
)
async def test_a_worker_of_another_version_is_refused_by_its_name_and_version(
    service: LeaseService, fields: dict[str, Any], named: str
) -> None:
    await offer(service, 4)
    poll = asyncio.create_task(tell(service, Poll(session="s", ack=0, wait_s=0.1)))
    reply = await lease(service, **fields)
    assert reply.stop
    assert reply.lease is None
    assert "worker w has" in reply.error
    assert named in reply.error
    await poll
    assert (await tell(service, Status())).refused == (reply.error,)


async def test_a_lease_reads_no_file(service: LeaseService, monkeypatch: pytest.MonkeyPatch) -> None:
    await offer(service, 4)
    packages = {"distributed": version("distributed")}
    held(await lease(service, packages=packages))
    monkeypatch.setattr("importlib.metadata.Distribution.from_name", lambda name: pytest.fail(f"read about {name}"))
    held(await lease(service, packages=packages))


async def test_a_straggler_is_told_by_a_stream_message_when_a_slot_waits() -> None:
    clock = [0.0]
    service = LeaseService(clock=lambda: clock[0])
    told: list[tuple[str, dict[str, object]]] = []
    heard = asyncio.Event()

    def tell_worker(name: str, message: dict[str, object]) -> None:
        told.append((name, message))
        heard.set()

    service.tell_worker = tell_worker
    service.add_worker("w", 1)
    await begin(service)
    await offer(service, 40)
    first = held(await lease(service))
    clock[0] = 0.001
    done = Computed(first.id, 1, 0, 0.001)
    straggler = held(await lease(service, returned=(done,), stored=(stored(first),)))
    assert straggler.stop - straggler.start > 2
    service.add_worker("idle", 1)
    while (taken := (await lease(service, "idle", wait_s=0.0)).lease) is not None:
        await lease(service, "idle", want=0, returned=(Computed(taken.id, taken.stop - taken.start, 0, 0.0),))
    clock[0] = 2.0
    waiting = asyncio.create_task(lease(service, "idle", wait_s=5.0))
    async with asyncio.timeout(SOON_S):
        await heard.wait()
    assert told[0] == ("w", {"op": "dml-recall", "lease": straggler.id})
    back = GivenBack(straggler.id, straggler.stop - 2, straggler.stop)
    await lease(service, want=0, giving_back=(back,))
    assert held(await waiting).stop <= straggler.stop


async def test_a_worker_that_dask_lost_is_told_to_stop(service: LeaseService) -> None:
    await offer(service, 1)
    waiting = asyncio.create_task(lease(service, slot=-1, want=0, wait_s=60))
    await asyncio.sleep(0)
    service.remove_worker("w")
    assert await waiting == LeaseReply(stop=True)
    assert await lease(service) == LeaseReply(stop=True)


async def test_a_worker_may_ask_before_dask_knows_it(service: LeaseService) -> None:
    await offer(service, 1)
    waiting = asyncio.create_task(lease(service, worker="early"))
    await asyncio.sleep(0)
    service.add_worker("early", 1)
    assert held(await waiting).job == "j"


async def test_events_are_repeated_until_they_are_acknowledged(service: LeaseService) -> None:
    await offer(service, 1)
    given = held(await lease(service))
    await lease(service, want=0, returned=(Computed(given.id, 1, 0, 0.1),), stored=(stored(given),))
    first = (await tell(service, Poll(session="s", ack=0, wait_s=0))).events
    assert [type(event.event) for event in first] == [SegmentStored, Progressed, JobFinished]
    assert (await tell(service, Poll(session="s", ack=first[0].number, wait_s=0))).events == first[1:]
    assert (await tell(service, Poll(session="s", ack=first[-1].number, wait_s=0))).events == ()


async def test_a_poll_waits_for_news(service: LeaseService) -> None:
    waiting = asyncio.create_task(tell(service, Poll(session="s", ack=0, wait_s=60)))
    await asyncio.sleep(0)
    service.add_worker("x", 3)
    assert [event.event for event in (await waiting).events] == [WorkersChanged(workers=2, slots=5)]


async def test_a_poll_comes_back_when_the_backlog_runs_low(service: LeaseService) -> None:
    await tell(service, Offer(session="s", offer=JobOffer(job="j", spec="", pipeline="p")))
    for number in range(8):
        await tell(service, AddBlock(session="s", job="j", block=f"b{number}", count=1))
    waiting = asyncio.create_task(tell(service, Poll(session="s", ack=0, wait_s=60)))
    await asyncio.sleep(0)
    await lease(service)
    reply = await waiting
    assert reply.jobs[0].backlog == 7


async def test_a_new_session_waits_until_the_jobs_of_the_old_one_have_ended(service: LeaseService) -> None:
    await offer(service, 5)
    given = held(await lease(service))
    hello = asyncio.create_task(begin(service, "new"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not hello.done()
    reply = await lease(service, want=0, stored=(stored(given),))
    assert reply == LeaseReply()
    assert (await hello).error == ""
    assert (await tell(service, Poll(session="s", ack=0, wait_s=0))).superseded
    assert (await tell(service, Poll(session="new", ack=0, wait_s=0))).events == ()


async def test_a_new_session_takes_leases_from_workers_that_do_not_answer(service: LeaseService) -> None:
    await offer(service, 5)
    await lease(service)
    assert (await begin(service, "new", drain_s=0.05)).error == ""
    assert service.pool.holds("w") == 0


async def test_the_end_of_a_session_cancels_its_jobs(service: LeaseService) -> None:
    await offer(service, 5)
    await tell(service, Bye(session="s"))
    assert (await tell(service, Status())).jobs == ()


async def test_a_controller_of_another_protocol_is_refused(service: LeaseService) -> None:
    reply = await tell(service, Hello(session="x", protocol=99, version="9"))
    assert "protocol 99 (dmlpipe 9)" in reply.error


async def test_a_block_of_an_unknown_job_is_an_answer_not_a_crash(service: LeaseService) -> None:
    reply = await tell(service, AddBlock(session="s", job="nope", block="b", count=1))
    assert "never offered" in reply.error


async def test_the_owner_of_a_cluster_ends_its_workers_with_its_session(service: LeaseService) -> None:
    waiting = asyncio.create_task(lease(service, wait_s=60))
    await asyncio.sleep(0)
    await tell(service, Bye(session="s", stop_workers=True))
    assert await waiting == LeaseReply(stop=True)
    await begin(service, "next")
    assert await lease(service) == LeaseReply()


async def test_a_draining_worker_is_not_kept_waiting(service: LeaseService) -> None:
    waiting = asyncio.create_task(lease(service, wait_s=60))
    await asyncio.sleep(0)
    assert await lease(service, slot=-1, want=0, draining=True, wait_s=60) == LeaseReply()
    assert await waiting == LeaseReply()


async def test_a_worker_is_near_the_jobs_whose_inputs_its_cache_holds(service: LeaseService) -> None:
    for job in ("a", "b"):
        offered = JobOffer(job=job, spec="", pipeline=job, near=(job.encode() * 32,))
        await tell(service, Offer(session="s", offer=offered))
        await tell(service, AddBlock(session="s", job=job, block="b", count=10))
    service.sharing.tracker.join("w", "tcp://w", "host", [b"b" * 32])
    assert [held(await lease(service, slot=slot)).job for slot in (0, 1)] == ["b", "b"]


async def test_the_status_says_where_bytes_came_from(service: LeaseService) -> None:
    from dmlpipe.worker.peers.messages import PEER_PROTOCOL, Fill, encode_peer_request

    for store, peers in ((100, 0), (7, 300)):
        said = Fill(
            protocol=PEER_PROTOCOL,
            worker="w",
            address="tcp://w",
            cache="host",
            file=b"f" * 32,
            parts=3,
            part_bytes=200,
            have=b"",
            from_store=store,
            from_peers=peers,
        )
        await service.peers(encode_peer_request(said))
    reply = await tell(service, Status())
    assert (reply.from_store, reply.from_peers) == (107, 300)
