"""What `RemoteBackend` does about faults of servers and networks, and that the suite notices one that does it wrong."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import pytest

from dmlpipe.storage.backend import remote
from dmlpipe.storage.backend.remote import RemoteBackend
from dmlpipe.storage.digest import Data
from dmlpipe.storage.errors import CorruptError, NotFoundError
from dmlpipe.storage.objects.node import NodeStore
from dmlpipe.storage.objects.object_store import Objects
from dmlpipe.storage.testing import Fault, FaultyFiles, TransientTests
from tests.storage.backend.test_backend import cases

T = TypeVar("T")
U = TypeVar("U")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_BACKOFF_S", 0.001)


class OnFaulty(RemoteBackend):
    """Reaches a server that misbehaves."""

    def __init__(self, server: FaultyFiles) -> None:
        super().__init__("s3://bucket/prefix")
        self.server = server
        self._root = "bucket/prefix"

    def _connect(self) -> Any:
        return self.server


class TestRemote(TransientTests):
    @pytest.fixture
    def connect(self) -> Callable[[FaultyFiles], OnFaulty]:
        return OnFaulty


class NeverAgain(OnFaulty):
    """Gives up at the first fault."""

    def _run(self, what: str, call: Callable[[Any, T], Awaitable[U]], items: Sequence[T]) -> Sequence[U]:
        before, remote._TRIES = remote._TRIES, 1
        try:
            return super()._run(what, call, items)
        finally:
            remote._TRIES = before


class ForEver(OnFaulty):
    """Takes every error for one that passes."""

    def _run(self, what: str, call: Callable[[Any, T], Awaitable[U]], items: Sequence[T]) -> Sequence[U]:
        before, remote._is_passing = remote._is_passing, lambda err: True
        try:
            return super()._run(what, call, items)
        finally:
            remote._is_passing = before


class NeverReadsBack(OnFaulty):
    """Takes "exists" for a lost race, though its own request may have won."""

    async def _stat(self, fs: Any, key: str) -> int | None:
        return -1 if fs.requests["create"] else await super()._stat(fs, key)


class BelievesSizes(OnFaulty):
    """Takes what is there for its own if it is as long."""

    async def _create(self, fs: Any, item: tuple[str, Data]) -> bool:
        try:
            await fs._pipe_file(self._path(item[0]), bytes(item[1]), mode="create")
        except OSError as err:
            if remote._status(err) != 412:
                raise
            return await self._stat(fs, item[0]) == len(item[1])
        return True


class ServesParts(OnFaulty):
    """Passes on what came before an answer broke off."""

    async def _read(self, fs: Any, request: tuple[str, int | None, int | None]) -> bytes:
        try:
            return await super()._read(fs, request)
        except OSError as err:
            if type(err).__name__ != "IncompleteReadError":
                raise
            return fs.objects[self._path(request[0])][:3]  # type: ignore[no-any-return]


class BelievesShortAnswers(OnFaulty):
    """Takes what came for all that is there."""

    async def _check_short(self, fs: Any, key: str, end: int) -> None:
        del fs, key, end


class TakesWhatCame(OnFaulty):
    """Does not wait for an answer that comes slowly."""

    async def _read(self, fs: Any, request: tuple[str, int | None, int | None]) -> bytes:
        reading = asyncio.ensure_future(super()._read(fs, request))
        for _ in range(9):  # rounds of the loop, less than a trickle takes
            await asyncio.sleep(0)
        return await reading if reading.done() else fs.arrived[self._path(request[0])]


class Overwrites(OnFaulty):
    """Sends an unconditional request the second time."""

    async def _create(self, fs: Any, item: tuple[str, Data]) -> bool:
        try:
            return await super()._create(fs, item)
        except OSError:
            await self._overwrite(fs, item)
            return True


class AsksTwice(OnFaulty):
    """Takes absence for a fault that passes."""

    async def _read(self, fs: Any, request: tuple[str, int | None, int | None]) -> bytes:
        try:
            return await super()._read(fs, request)
        except NotFoundError:
            return await super()._read(fs, request)


BROKEN: Sequence[tuple[type[OnFaulty], str]] = [
    (NeverAgain, "test_a_create_is_made_once_and_known_to_be_ours"),
    (NeverAgain, "test_what_breaks_off_is_read_again"),
    (NeverAgain, "test_sizes_listings_overwrites_and_deletes_are_tried_again"),
    (NeverAgain, "test_a_server_that_stays_busy_is_one_error_that_may_pass"),
    (NeverReadsBack, "test_a_create_is_made_once_and_known_to_be_ours"),
    (BelievesSizes, "test_a_lost_race_is_a_lost_race_whatever_happens"),
    (BelievesSizes, "test_a_race_that_is_lost_while_the_answer_was_is_told_by_reading_back"),
    (ServesParts, "test_what_breaks_off_is_read_again"),
    (BelievesShortAnswers, "test_a_range_of_which_less_comes_than_is_there_is_read_again"),
    (TakesWhatCame, "test_what_trickles_in_is_waited_for_and_whole"),
    (Overwrites, "test_a_lost_race_is_a_lost_race_whatever_happens"),
    (ForEver, "test_what_is_forbidden_is_told_at_once"),
    (AsksTwice, "test_absence_is_no_fault"),
    (ForEver, "test_one_of_many_that_fails_for_good_fails_all"),
]


@pytest.mark.parametrize(("kind", "test"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_the_suite_notices_a_backend_that_does_it_wrong(kind: type[OnFaulty], test: str) -> None:
    def run_all() -> None:
        for case in cases(TransientTests, test):
            getattr(TransientTests(), test)(kind, **case)

    with pytest.raises((AssertionError, OSError, pytest.fail.Exception)):
        run_all()


def test_what_comes_in_part_is_never_served_for_the_whole() -> None:
    """Also where nobody knows how long it should be: hashes tell."""
    server = FaultyFiles()
    backend = OnFaulty(server)
    objects = Objects(backend, NodeStore(backend))
    value = objects.writer().put(body := os.urandom(1 << 20))
    node = objects.nodes.put(b"a node that is somewhat longer")
    server.faults = [("get", Fault.SHORT)]
    with pytest.raises(CorruptError):
        objects.read(value)
    server.faults = [("get", Fault.SHORT)]
    with pytest.raises(CorruptError):
        NodeStore(backend).get(node)
    assert not server.faults
    assert objects.read(value) == body


def test_every_rule_of_the_suite_is_broken_once() -> None:
    rules = {name for name, _ in inspect.getmembers(TransientTests, inspect.isfunction) if name.startswith("test_")}
    assert rules == {test for _, test in BROKEN}
