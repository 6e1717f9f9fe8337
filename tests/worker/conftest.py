"""One zygote for all tests of workers; a fresh store for each."""

from __future__ import annotations

from collections.abc import Iterator
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
