"""One zygote for all tests of workers; a fresh store for each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dmlpipe.storage.store import Store
from dmlpipe.worker.child.zygote import Zygote
from tests.worker.bench import Bench, start_zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    started = start_zygote()
    yield started
    started.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(str(tmp_path / "store"), cache_dir=tmp_path / "cache")


@pytest.fixture
def bench(store: Store, zygote: Zygote, tmp_path: Path) -> Bench:
    return Bench(store, zygote, tmp_path / "cache" / "work")


@pytest.fixture
def restart(bench: Bench) -> Iterator[Callable[[], None]]:
    """Starts the worker anew, with the environment as it is now."""
    started: list[Zygote] = []

    def again() -> None:
        started.append(start_zygote())
        bench.zygote = started[-1]
        bench.environ = dict(os.environ)

    yield again
    for zygote in started:
        zygote.close()
