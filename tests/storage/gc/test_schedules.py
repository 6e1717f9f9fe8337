from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from dmlpipe.storage import ledger
from tests.storage.gc.model import World


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_LOSSES_BEFORE_PAUSE", 10**9)


def play(seed: int, cache: Path) -> World:
    world = World(seed, cache)
    world.prepare()
    world.schedule.run(
        {
            "one": world.writer("shared", 3),
            "two": world.writer("own", 3),
            "gc-1": world.collect(2),
            "gc-2": world.collect(1),
        }
    )
    world.check()
    return world


def play_all(seeds: range, cache: Path) -> None:
    collected = retried = 0
    for seed in seeds:
        try:
            world = play(seed, cache)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        collected += world.collected
        retried += world.retried
    # The schedules are worth something: things were collected, and under the hands of writers.
    assert collected > len(seeds)
    assert retried or len(seeds) < 100


def test_no_interleaving_of_two_writers_and_two_collectors_loses_anything(tmp_path: Path) -> None:
    play_all(range(200), tmp_path)


@pytest.mark.slow
def test_thousands_of_interleavings_lose_nothing(tmp_path: Path) -> None:
    for start in itertools.islice(itertools.count(1000, 500), 10):
        play_all(range(start, start + 500), tmp_path)
