from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.objects.compression import Compressor, compress, decompress
from dmlpipe.storage.objects.index import BlobIndex
from dmlpipe.storage.objects.node import NodeStore
from dmlpipe.storage.objects.object_store import Objects
from dmlpipe.storage.testing import CountingBackend

_numbers = itertools.count()


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@given(st.binary(max_size=4000))
def test_a_frame_holds_its_content(data: bytes) -> None:
    assert decompress(compress(data), "it") == data
    frame = Compressor().frame(data)
    assert frame is None or (decompress(frame, "it") == data and len(frame) <= len(data) * 7 / 8)


@pytest.mark.parametrize("size", [200, 4000, 200_000, 5 << 20])
def test_what_does_not_pay_is_left_as_it_is(size: int) -> None:
    assert Compressor().frame(noise(size)) is None
    assert len(Compressor().frame(b"text " * (size // 5)) or b"") * 4 < size


def test_a_kind_that_does_not_pay_is_tried_once_in_many() -> None:
    compressor = Compressor()
    text = b"text " * 100
    assert compressor.frame(text, ".csv") is not None
    for seed in range(3):
        assert compressor.frame(noise(500, seed), ".png") is None
    # Not tried: it would have paid.
    assert [compressor.frame(text, ".png") for _ in range(64)] == [None] * 64
    assert compressor.frame(text, ".png") is not None
    assert compressor.frame(text, ".csv") is not None
    assert compressor.frame(text) is not None


def test_large_content_that_compresses_is_packed_and_read_from_there() -> None:
    backend = CountingBackend(MemoryBackend(f"compression-{next(_numbers)}"))
    objects = Objects(backend, NodeStore(backend))
    writer = objects.writer()
    text, random_ = b"a line of text, and the next\n" * 100_000, noise(3 << 20)
    huge = b"so many lines of text to say the same\n" * 1_000_000
    values = [writer.put(data) for data in (text, random_, huge)]
    written = writer.flush()
    stored = {key.partition("/")[0]: size for key, size in backend.list()}
    assert sum(size for key, size in backend.list("packs/")) < 1 << 20
    assert stored["objects"] == 3 << 20
    index = BlobIndex(backend.get(written.index))
    reader = Objects(backend, NodeStore(backend), locate=index.find, known=index.find)
    assert [reader.read(value) for value in values] == [text, random_, huge]
    assert reader.read(values[2], 17_000_000, 17_000_100) == huge[17_000_000:17_000_100]
    with reader.open(values[2]) as file:
        file.seek(33_000_000)
        assert file.read(10) == huge[33_000_000:33_000_010]
