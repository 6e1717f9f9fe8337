"""Inputs are fetched ahead of their datums, as far as bytes allow."""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from dmlpipe.storage.objects.value import Value
from dmlpipe.storage.store import Store
from dmlpipe.worker.job import Datum
from dmlpipe.worker.slots.ahead import Ahead, large_inputs
from tests.worker.bench import (
    WAIT_S,
    Bench,
    ListSource,
    datum,
    file_datums,
    file_item,
    parameter,
    put,
    python,
    spec,
    varying,
)
from tests.worker.test_pull import GATED, until

SIZE = 100_000


class Fetches:
    """Counts what is fetched; each fetch waits for its turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
        self.changed = threading.Condition()
        self.fetched: list[int] = []
        self.numbers: dict[Value, int] = {}
        monkeypatch.setattr(store.cache, "get", self.get)

    def get(self, value: Value, objects: object, *, ahead: bool = False) -> Path:
        with self.changed:
            self.fetched.append(self.numbers[value])
            self.changed.notify_all()
        return Path()

    def wait(self, met: Callable[[list[int]], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: met(self.fetched), WAIT_S)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(f"memory://{uuid.uuid4().hex}", cache_dir=tmp_path / "cache")


def made(store: Store, fetches: Fetches, count: int) -> list[Datum]:
    tree = put(store, "in", {f"{number:02}": os.urandom(SIZE) for number in range(count)})
    datums = [datum(file_item(tree, f"{number:02}")) for number in range(count)]
    for number, each in enumerate(datums):
        (value,) = large_inputs(store, each)
        fetches.numbers[value] = number
    return datums


def test_no_more_is_fetched_than_the_limit_allows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fetches = Fetches(monkeypatch, store)
    ahead = Ahead(store, made(store, fetches, 10), max_bytes=3 * SIZE)
    fetches.wait(lambda got: len(got) == 3)
    assert sorted(fetches.fetched) == [1, 2, 3]
    ahead.reached(2)
    fetches.wait(lambda got: len(got) == 5)
    assert sorted(fetches.fetched) == [1, 2, 3, 4, 5]
    # What was reached without it is not fetched any more.
    ahead.reached(8)
    fetches.wait(lambda got: len(got) == 6)
    ahead.close()
    assert sorted(fetches.fetched) == [1, 2, 3, 4, 5, 9]


def test_one_file_may_be_larger_than_the_limit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fetches = Fetches(monkeypatch, store)
    ahead = Ahead(store, made(store, fetches, 4), max_bytes=1)
    fetches.wait(lambda got: len(got) == 1)
    ahead.reached(1)
    fetches.wait(lambda got: len(got) == 2)
    ahead.close()
    assert fetches.fetched == [1, 2]


def test_small_inputs_start_no_thread(store: Store) -> None:
    tree = put(store, "in", {str(number): b"small" for number in range(5)})
    before = threading.active_count()
    ahead = Ahead(store, [datum(file_item(tree, str(number))) for number in range(5)])
    assert threading.active_count() == before
    ahead.reached(3)
    ahead.close()


async def test_a_slot_that_computes_finds_the_next_inputs_in_the_cache(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "gates").mkdir()
    bench.environ["GATES"] = str(tmp_path / "gates")
    tree = put(bench.store, "in", {str(number): os.urandom(SIZE) for number in range(6)})
    job = spec(python(bench.store, GATED, "f", parameter("x")), varying("x", tree))
    loop = asyncio.create_task(bench.loop(ListSource(bench.leases(job, file_datums(tree), 6)), 1).run())
    await until(tmp_path / "gates" / "began-0")
    async with asyncio.timeout(WAIT_S):
        # The first is being computed, the second is laid out: the other four are fetched all the same.
        while len(bench.store.cache.entries()) < 6:
            await asyncio.sleep(0.01)
        (tmp_path / "gates" / "open-all").touch()
        assert await loop == ""
    assert len(bench.rows(job.job)) == 6
