"""The exchange without a network: a tracker in the same process, peers that are other exchanges."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from dmlpipe.scheduler.peers.service import PeerService
from dmlpipe.scheduler.peers.tracker import Tracker
from dmlpipe.storage.digest import Data
from dmlpipe.storage.errors import BackendError, ErrorCode
from dmlpipe.storage.objects.cache import FileCache, content_name
from dmlpipe.storage.objects.filling import Filling, Part
from dmlpipe.storage.objects.value import Pieces
from dmlpipe.worker.peers.exchange import PeerExchange, cache_id
from dmlpipe.worker.peers.fill import Pace, PeerSettings
from dmlpipe.worker.peers.messages import Announce, PeerReply, Reason, encode_peer_reply, encode_peer_request
from dmlpipe.worker.peers.transport import ReadRange, RefusedError
from tests.storage.objects.cache_process import PART, Folder

WAIT_S = 30
SETTINGS = PeerSettings(min_bytes=1, tracker_s=0.2, wait_s=0.1, patience_s=0.3, poll_s=0.01)


class Network:
    """Exchanges by address, and their tracker."""

    def __init__(self) -> None:
        self.service = PeerService(Tracker(random.Random(1)))
        self.serving: dict[str, ReadRange] = {}
        self.dead = False


class Transport:
    """One exchange's end of the network."""

    def __init__(self, network: Network, address: str) -> None:
        self.network, self.address = network, address

    async def ask(self, request: bytes) -> bytes:
        if self.network.dead:
            raise ConnectionError("nobody there")
        return await self.network.service.peers(request)

    async def read(self, address: str, file: bytes, start: int, stop: int) -> Sequence[Data]:
        read = self.network.serving.get(address)
        if read is None:
            raise ConnectionRefusedError(address)
        await asyncio.sleep(0)
        data = read(file, start, stop)
        if data is None:
            raise RefusedError(Reason.ABSENT)
        return [data[:3], data[3:]]

    def serve(self, read: ReadRange) -> None:
        self.network.serving[self.address] = read


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "source").mkdir()
    (tmp_path / "gates").mkdir()
    return Folder(tmp_path / "source", tmp_path / "log", tmp_path / "gates")


def host(
    network: Network, tmp_path: Path, name: str, settings: PeerSettings = SETTINGS
) -> tuple[FileCache, PeerExchange]:
    cache = FileCache(tmp_path / name)
    exchange = PeerExchange(cache, Transport(network, f"at {name}"), worker=name, settings=settings)
    cache.source = exchange
    return cache, exchange


async def get(cache: FileCache, value: Pieces, folder: Folder) -> bytes:
    async with asyncio.timeout(WAIT_S):
        return await asyncio.get_running_loop().run_in_executor(None, lambda: cache.get(value, folder).read_bytes())


async def test_a_file_comes_from_a_peer_that_has_it(folder: Folder, tmp_path: Path) -> None:
    network, data = Network(), os.urandom(9 * PART + 1)
    value = folder.add(data)
    (one, first), (two, second) = host(network, tmp_path, "one"), host(network, tmp_path, "two")
    assert await get(one, value, folder) == data
    assert await get(two, value, folder) == data
    assert len(folder.reads()) == 10
    assert (first.traffic.from_store, second.traffic.from_peers) == (len(data), len(data))
    assert network.service.traffic.from_store == network.service.traffic.from_peers == len(data)


async def test_what_is_on_its_way_into_the_file_when_it_is_whole_is_counted(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, data = Network(), os.urandom(2 * PART)
    value = folder.add(data)
    (one, _), (two, second) = host(network, tmp_path, "one"), host(network, tmp_path, "two")
    assert await get(one, value, folder) == data
    both, seen = threading.Barrier(2), threading.Event()
    put = Filling.put

    def slow_to_return(self: Filling, part: Part, content: Data) -> bool:
        done = put(self, part, content)
        both.wait(WAIT_S)
        # Both parts are in the file. The first one is heard of, and all is there: does anybody wait for the second?
        if part.number == 1:
            seen.wait(0.3)
        return done

    monkeypatch.setattr(Filling, "put", slow_to_return)
    assert await get(two, value, folder) == data
    seen.set()
    assert second.traffic.from_peers == len(data)
    assert network.service.traffic.from_peers == len(data)


async def test_hosts_that_begin_together_read_the_store_once(folder: Folder, tmp_path: Path) -> None:
    network, data = Network(), os.urandom(30 * PART)
    value = folder.add(data)
    caches = [host(network, tmp_path, f"host {number}")[0] for number in range(6)]
    got = await asyncio.gather(*(get(cache, value, folder) for cache in caches))
    assert got == [data] * 6
    assert len(folder.reads()) == 30


async def test_small_files_are_read_from_the_store(folder: Folder, tmp_path: Path) -> None:
    network, data = Network(), os.urandom(PART)
    value = folder.add(data)
    for name in ("one", "two"):
        cache, _ = host(network, tmp_path, name, PeerSettings())
        assert await get(cache, value, folder) == data
    assert len(folder.reads()) == 2


@pytest.mark.parametrize("how", ["dead", "refuses", "silent", "names nobody"])
async def test_without_a_tracker_the_store_is_read(
    folder: Folder, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, data = Network(), os.urandom(5 * PART)
    value = folder.add(data)
    cache, exchange = host(network, tmp_path, "one")
    network.dead = how == "dead"

    async def other(request: bytes) -> bytes:
        if how == "silent":
            await asyncio.sleep(WAIT_S)
        return encode_peer_reply(PeerReply(error="not you" if how == "refuses" else ""))

    if how != "dead":
        monkeypatch.setattr(network.service, "peers", other)
    assert await exchange.join() == (how == "names nobody")
    assert await get(cache, value, folder) == data
    assert len(folder.reads()) == 5


async def test_what_the_store_says_ends_a_fill_and_the_next_goes_on_from_there(folder: Folder, tmp_path: Path) -> None:
    network, data = Network(), os.urandom(8 * PART)
    value = folder.add(data)
    cache, _ = host(network, tmp_path, "one")

    class Failing(Folder):
        def read_part(self, part: Part) -> bytes:
            if part.number == 7:
                raise BackendError("the store is away", retryable=True)
            return super().read_part(part)

    failing = Failing(folder.source, folder.log, folder.gates)
    failing.files = folder.files
    with pytest.raises(BackendError, match="the store is away"):
        await get(cache, value, failing)
    before = len(folder.reads())
    assert await get(cache, value, folder) == data
    # Read again is at most what was on its way, beside the lost part, when the fill ended.
    assert 8 <= len(folder.reads()) < 8 + SETTINGS.parts_at_once
    assert before < 8


async def test_a_worker_that_ends_keeps_what_came(folder: Folder, tmp_path: Path) -> None:
    network, data = Network(), os.urandom(6 * PART)
    value = folder.add(data)
    cache, exchange = host(network, tmp_path, "one")
    gate = folder.gates / folder.parts(value)[0].hash.hex()
    gate.touch()
    getting = asyncio.create_task(get(cache, value, folder))
    async with asyncio.timeout(WAIT_S):
        while exchange.traffic.from_store < 5 * PART:
            await asyncio.sleep(0.005)
        closing = asyncio.create_task(exchange.close())
        with pytest.raises(BackendError, match="the worker ended"):
            await getting
        gate.unlink()
        await closing
    assert FileCache(tmp_path / "one").get(value, folder).read_bytes() == data
    assert sorted(map(folder.reads().count, folder.reads())) == [1] * 5 + [2] * 2


async def test_a_full_disk_is_said_as_such(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network()
    value = folder.add(os.urandom(3 * PART))
    cache, _ = host(network, tmp_path, "one")

    def full(self: Filling, part: Part, data: Data) -> bool:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Filling, "put", full)
    with pytest.raises(BackendError, match="No space left") as caught:
        await get(cache, value, folder)
    assert caught.value.code is ErrorCode.DISK_FULL


async def test_only_what_is_verified_here_is_served(folder: Folder, tmp_path: Path) -> None:
    network, data = Network(), os.urandom(4 * PART)
    value = folder.add(data)
    cache, exchange = host(network, tmp_path, "one")
    name = content_name(value)
    assert exchange.read(name, 0, 10) is None
    gate = folder.gates / folder.parts(value)[3].hash.hex()
    gate.touch()
    getting = asyncio.create_task(get(cache, value, folder))
    async with asyncio.timeout(WAIT_S):
        while exchange.read(name, 0, PART) is None:
            await asyncio.sleep(0.005)
        assert exchange.read(name, 3 * PART, 3 * PART + 1) is None
        gate.unlink()
        await getting
    assert exchange.read(name, 5, 4 * PART) == data[5:]
    for odd in ((b"short", 0, 1), (name, 4 * PART, 4 * PART + 1), (name, 3, 3), (name, -1, 2), (name, 0, 1 << 40)):
        assert exchange.read(*odd) is None
    path = cache.path_of(value)
    path.chmod(0o644)
    path.write_bytes(b"x" * len(data))
    assert exchange.read(name, 0, 10) is None


async def test_a_worker_that_left_is_heard_no_more(tmp_path: Path) -> None:
    network = Network()
    _, exchange = host(network, tmp_path, "one")
    assert await exchange.join()
    network.service.remove_worker("one")
    assert not await exchange.join()
    old = Announce(protocol=0, worker="old", address="", cache="")
    assert b"speaks peer protocol 0" in await network.service.peers(encode_peer_request(old))
    assert b"error" in await network.service.peers(b"\xc1")


def test_caches_are_told_apart_by_folder(tmp_path: Path) -> None:
    assert cache_id(tmp_path / "a") == cache_id(tmp_path / "a")
    assert cache_id(tmp_path / "a") != cache_id(tmp_path / "b")


def test_the_deadline_of_a_chunk_follows_how_long_chunks_take() -> None:
    settings = PeerSettings()
    pace = Pace(settings)
    before = pace.deadline_s(4 << 20)
    for _ in range(40):
        pace.note(4 << 20, 0.01)
    assert settings.stall_min_s < pace.deadline_s(4 << 20) < before
    for _ in range(40):
        pace.note(4 << 20, 30.0)
    assert pace.deadline_s(4 << 20) > 100
