"""Stores that cut large files by what they hold."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlpipe.storage.digest import digest
from dmlpipe.storage.errors import ErrorCode, FormatError, InvalidInputError
from dmlpipe.storage.objects import cutting, file_pieces
from dmlpipe.storage.objects.cutting import FEATURE, ContentDefined
from dmlpipe.storage.objects.file_pieces import read_pieces, split
from dmlpipe.storage.objects.local_value import value_of_file
from dmlpipe.storage.objects.pack import PackBuilder
from dmlpipe.storage.objects.value import WHOLE_MAX_BYTES, Pieces, Whole
from dmlpipe.storage.store import Store

MIB = 1 << 20


def drawn(size: int, name: str = "content") -> bytes:
    return blake3(name.encode()).digest(length=size)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(tmp_path / "store", pieces="content-defined", cache_dir=tmp_path / "cache")


def pieces(store: Store, path: str) -> list[tuple[bytes, int]]:
    value = store["r"].value(path)
    assert isinstance(value, Pieces)
    return [(piece.hash, piece.size) for piece in store.objects.manifest(value).pieces]


def stored(store: Store) -> int:
    return sum(size for key, size in store.backend.list() if key.startswith(("objects/", "packs/", "nodes/")))


def test_a_byte_inserted_at_the_start_of_a_large_file_costs_its_first_pieces(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "big"
    file.write_bytes(body := drawn(64 * MIB))
    store.put("r", file)
    before, cost = pieces(store, "/big"), stored(store)
    file.write_bytes(b"!" + body)
    store.put("r", file)
    after = pieces(store, "/big")
    assert store["r"].read_bytes("/big") == b"!" + body
    assert len(set(after) - set(before)) <= 3
    assert stored(store) - cost < 2 * MIB
    assert 200 < len(after) < 300


def test_a_fixed_store_stores_a_shifted_file_anew(tmp_path: Path) -> None:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    assert store.info.read_features == ()
    body = drawn(33 * MIB)
    store.put("r", ("big", body))
    before = pieces(store, "/big")
    store.put("r", ("big", b"!" + body))
    assert [size for _, size in before] == [16 * MIB, 16 * MIB, MIB]
    assert not set(pieces(store, "/big")) & set(before)


def test_equal_content_has_equal_pieces_whatever_way_it_came(store: Store, tmp_path: Path) -> None:
    body = drawn(20 * MIB)
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "file"
    file.write_bytes(body)
    (tmp_path / "single").write_bytes(body)
    store.put("r", tmp_path / "folder", tmp_path / "single", ("bytes", body), ("stream", io.BytesIO(body)))
    store.put("r", ("appended", body[: 17 * MIB]))
    store.put("r", ("appended", body[17 * MIB :]), append=True)
    store.put("r", ("from small", body[:100]))
    store.put("r", ("from small", body[100:]), append=True)
    with store["r"].open("/file") as source:
        store.put("r", ("copied", source))
    builder = PackBuilder()
    segment = store.objects.writer(builder=builder)
    values = {info.path: store["r"].value(info.path) for info in store["r"].ls()}
    values["local"] = value_of_file(file, ContentDefined())
    values["worker"] = segment.put_file(file)
    assert len(set(values.values())) == 1
    assert builder.size == 0
    assert [change.path for change in store["r"].diff(tmp_path / "folder") if change.new is not None] == []
    assert store.fsck().ok


class Trickle(io.RawIOBase):
    """Gives what it holds a few bytes at a time."""

    def __init__(self, body: bytes, steps: Iterator[int]) -> None:
        self._left = memoryview(body)
        self._steps = steps

    def read(self, size: int = -1) -> bytes:
        step = min(size, next(self._steps))
        part, self._left = self._left[:step], self._left[step:]
        return bytes(part)


SMALL = ContentDefined(min=64, avg=256, max=1024)


@settings(deadline=None, max_examples=40)
@given(
    size=st.integers(0, 20_000),
    runs=st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 6000)), max_size=3),
    steps=st.lists(st.integers(1, 4000), min_size=1, max_size=4),
)
def test_pieces_join_to_what_was_cut(size: int, runs: list[tuple[int, int]], steps: list[int]) -> None:
    body = bytearray(drawn(size))
    for start, length in runs:
        body[start : start + length] = bytes(len(body[start : start + length]))

    def endless() -> Iterator[int]:
        while True:
            yield from steps

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_pieces, "WHOLE_MAX_BYTES", 4096)
        patch.setattr(file_pieces, "_BLOCK_BYTES", 2048)
        parts = list(read_pieces(Trickle(bytes(body), endless()), SMALL))  # type: ignore[arg-type]
    assert b"".join(parts) == body
    if size > 4096:
        assert parts == list(split(bytes(body), SMALL))
        assert all(64 <= len(part) <= 1024 for part in parts[:-1])
    else:
        assert len(parts) == (1 if size else 0)


def test_holes_are_not_read_and_cut_as_zeros_are(store: Store, tmp_path: Path) -> None:
    sparse, dense = tmp_path / "sparse", tmp_path / "dense"
    with open(sparse, "wb") as file:
        file.write(drawn(17 * MIB + 4321))
        file.seek(61 * MIB)
        file.write(drawn(3 * MIB, "more"))
        file.truncate(90 * MIB + 7)
    dense.write_bytes(sparse.read_bytes())
    store.put("r", sparse, dense)
    assert store["r"].value("/sparse") == store["r"].value("/dense") == value_of_file(sparse, ContentDefined())
    store["r"].get("/sparse", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == dense.read_bytes()
    assert os.stat(tmp_path / "out").st_blocks * 512 < 30 * MIB
    assert stored(store) < 22 * MIB


def test_a_stream_is_cut_in_bounded_memory(store: Store, tmp_path: Path) -> None:
    block = drawn(MIB)

    class Endless(io.RawIOBase):
        left = 512

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            return b"" if self.left < 0 else (self.left.to_bytes(2) + block[2:])[:size]

    tracemalloc.start()
    store.put("r", ("big", Endless()))  # type: ignore[arg-type]  # no more than `read` is asked of a stream
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert store["r"].size > 510 * MIB
    assert peak < 200 * MIB  # packs of 32 MiB, and blocks that are cut


def test_a_range_fetches_the_pieces_that_it_touches_and_no_more(store: Store) -> None:
    body = drawn(40 * MIB)
    store.put("r", ("big", body))
    fetched = 0
    get_blobs = store.objects.get_blobs

    def counting(sizes: dict[object, int], **more: object) -> object:
        nonlocal fetched
        fetched += sum(sizes.values())
        return get_blobs(sizes, **more)  # type: ignore[arg-type]

    store.objects.get_blobs = counting  # type: ignore[assignment, method-assign]
    with store["r"].open("/big") as file:
        file.seek(30 * MIB)
        assert file.read(1000) == body[30 * MIB : 30 * MIB + 1000]
        assert fetched <= 2 * MIB
        file.seek(0)
        assert file.read() == body
    assert fetched <= 42 * MIB


def test_the_cut_is_the_one_that_the_format_describes(tmp_path: Path) -> None:
    """By the words of docs/format.md, with the table of numbers that they name."""
    from pyfastcdc.py.constants import GEAR

    assert blake3(b"".join(x.to_bytes(8, "little") for x in GEAR)).hexdigest() == (
        "9af822d1e10df25d0157a43ccd0a73b56d1c1d0a5d77acb4e6e979522d0fe149"
    )

    def cut(data: bytes) -> int:
        if len(data) <= 65536:
            return len(data)
        end, h = min(len(data), 1048576), 0
        for at in range(65536, end // 2 * 2):
            h = ((h << 1) + GEAR[data[at]]) % 2**64
            mask = 0x0000D91747537000 if at < 262144 else 0x0000D90303537000
            if not h & mask:
                return at
        return end

    body, found = drawn(3 * MIB + 1, "format") + bytes(1_200_000) + drawn(70_000), []
    while body:
        found.append(cut(body))
        body = body[found[-1] :]
    body = drawn(3 * MIB + 1, "format") + bytes(1_200_000) + drawn(70_000)
    assert found == [len(part) for part in split(body, ContentDefined())]


# --- stores ---


def test_the_choice_stands_in_the_store(store: Store) -> None:
    told = json.loads(store.backend.get("dmlpipe.json"))
    assert told["read_features"] == [FEATURE]
    assert told["pieces"] == {"size": 16 * MIB, "min": 65536, "avg": 262144, "max": MIB, "level": 2, "seed": 0}
    assert Store.open(store.url, cache_dir=store.cache_dir).objects.cutting == ContentDefined()


def test_whoever_does_not_know_such_stores_refuses_them(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmlpipe.storage.info.READ_FEATURES", frozenset())
    with pytest.raises(FormatError, match="needs content-defined-pieces, which this dmlpipe lacks"):
        Store.open(store.url)


def test_a_store_that_does_not_say_how_it_cuts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="does not say how"):
        cutting.read_parameters({"size": 16 * MIB, "min": 1})


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "pyfastcdc", None)
    cutting._library.cache_clear()
    yield
    cutting._library.cache_clear()


def test_without_the_extra_it_says_what_to_install(store: Store, tmp_path: Path, without_library: None) -> None:
    with pytest.raises(InvalidInputError, match="needs pyfastcdc") as caught:
        Store.init(tmp_path / "other", pieces="content-defined")
    assert (caught.value.code, caught.value.hint) == (ErrorCode.UNSUPPORTED, "pip install 'dmlpipe[cdc]'")
    assert not (tmp_path / "other").exists()
    store.put("r", ("small", b"s" * 3000), ("whole", drawn(WHOLE_MAX_BYTES)))
    with pytest.raises(InvalidInputError, match="needs pyfastcdc"):
        store.put("r", ("big", bytes(WHOLE_MAX_BYTES + 1)))
    assert isinstance(store["r"].value("/whole"), Whole)


def test_reading_needs_no_extra(store: Store, tmp_path: Path) -> None:
    store.put("r", ("big", drawn(17 * MIB)))
    code = (
        "import sys; sys.modules['pyfastcdc'] = None\n"
        "from dmlpipe.storage.store import Store\n"
        "from dmlpipe.storage.digest import digest\n"
        "view = Store.open(sys.argv[1], cache_dir=sys.argv[2])['r']\n"
        "print(digest(view.read_bytes('/big')).hex())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, store.url, tmp_path / "c"], capture_output=True, check=True)
    assert done.stdout.decode().strip() == digest(drawn(17 * MIB)).hex()


def test_a_library_that_cuts_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "_KNOWN_CUTS", (1, 2, 3))
    cutting._library.cache_clear()
    try:
        with pytest.raises(InvalidInputError, match="cuts otherwise than the format says"):
            cutting.require_cutter()
    finally:
        cutting._library.cache_clear()


def test_an_unknown_choice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="expected one of fixed, content-defined"):
        Store.init(tmp_path / "x", pieces="rolling")
