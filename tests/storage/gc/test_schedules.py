from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dmlpipe.storage.gc.mark import Marked, Marker
from dmlpipe.storage.gc.sweep import Collector
from dmlpipe.storage.ledger import ledger
from dmlpipe.storage.objects.node import NodeStore
from dmlpipe.storage.state import State
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


def believe_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that was stored once is not looked for again."""
    monkeypatch.setattr(NodeStore, "_is_stored", lambda self, name: name in self._stored)


def mark_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that come between plan and sweep are not marked."""
    whole = Marker.mark

    def mark(self: Marker, state: State) -> Marked:
        return whole(self, state) if not self.marked.nodes else self.marked

    monkeypatch.setattr(Marker, "mark", mark)


def delete_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects go before the entry that names them."""
    whole = Collector._records

    def records(self: Collector, prepared: Any, state: State) -> Any:
        made = whole(self, prepared, state)
        self._delete(prepared.deleted)
        return made

    monkeypatch.setattr(Collector, "_records", records)


@pytest.mark.parametrize("break_rule", [believe_nodes, mark_once, delete_first])
def test_without_one_of_the_rules_something_is_lost(
    break_rule: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_rule(monkeypatch)
    with pytest.raises((AssertionError, KeyError)):
        play_all(range(100), tmp_path)
