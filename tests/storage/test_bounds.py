"""What reading and writing large content costs, counted: bytes in memory, bytes fetched, bytes stored."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from blake3 import blake3

from dmlpipe.storage.backend import Backend, Request
from dmlpipe.storage.store import Store
from dmlpipe.storage.testing import WrappedBackend

MIB = 1 << 20


def drawn(size: int, name: str = "content") -> bytes:
    return blake3(name.encode()).digest(length=size)


class Metered(WrappedBackend):
    """Counts the bytes that come."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.fetched = 0

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        data = super().get(key, start, end)
        self.fetched += len(data)
        return data

    def get_many(self, requests: Sequence[Request]) -> Sequence[bytes]:
        return [self.get(*request) for request in requests]


class Stream(io.RawIOBase):
    """A stream of so many mebibytes that knows neither its size nor how to seek."""

    def __init__(self, mebibytes: int) -> None:
        self._left = mebibytes
        self._block = drawn(MIB)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._rest and self._left:
            self._left -= 1
            self._rest = self._left.to_bytes(4, "big") + self._block[4:]
        part, self._rest = self._rest[:size], self._rest[size:]
        return part


@pytest.fixture(params=["fixed", "content-defined"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store.init(tmp_path / "store", pieces=request.param, cache_dir=tmp_path / "cache")


def test_a_stream_of_unknown_size_is_put_and_got_in_bounded_memory(store: Store, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        store.put("r", ("big", Stream(224)))  # type: ignore[arg-type]  # a stream need give no more than `read`
        store["r"].get("/big", tmp_path / "big")
        with store["r"].open("/big") as file:
            while file.read(3 * MIB):
                pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert store["r"].size == 224 * MIB == (tmp_path / "big").stat().st_size
    assert peak < 170 * MIB  # a pack of 32 MiB while it is joined, and pieces of 16 MiB


def test_a_range_fetches_what_it_touches(store: Store, tmp_path: Path) -> None:
    body = drawn(48 * MIB)
    store.put("r", ("big", body), ("whole", body[: 5 * MIB]), ("small", body[:5000]))
    metered = Metered(store.backend)
    reader = Store(metered, store.info, cache_dir=tmp_path / "other")
    view = reader["r"]
    piece = MIB if store.objects.cutting is not None else 16 * MIB
    for path, start, most in (("/big", 20 * MIB, 2 * piece), ("/whole", 2 * MIB, 5 * MIB), ("/small", 100, 8000)):
        size = view.info(path).size or 0
        before = metered.fetched
        with view.open(path) as file:
            file.seek(start)
            assert file.read(1000) == body[start : start + 1000][: size - start]
        assert metered.fetched - before <= most + (64 << 10), path  # and the list of the pieces
    before = metered.fetched
    assert reader.objects.read(view.value("/big"), 17 * MIB, 17 * MIB + 10) == body[17 * MIB : 17 * MIB + 10]
    assert metered.fetched - before <= piece + (64 << 10)


def test_what_one_repo_has_another_one_takes_no_space_for(store: Store) -> None:
    def stored() -> int:
        return sum(size for key, size in store.backend.list() if key.startswith(("objects/", "packs/")))

    body = drawn(20 * MIB)
    files = [("pieces", body), ("whole", body[: 3 * MIB]), ("small", body[:5000]), ("tiny", body[:100])]
    store.put("one", *files)
    before = stored()
    assert before >= 20 * MIB
    with store.commit("two") as session:
        session.put([(f"elsewhere/{name}", data) for name, data in files])
    assert session.stored_bytes == 0
    assert stored() == before
    assert store["two"].read_bytes("/elsewhere/pieces") == body
