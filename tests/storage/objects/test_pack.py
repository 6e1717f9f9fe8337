from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.digest import Digest, digest
from dmlpipe.storage.errors import CorruptError, DmlpipeError, NotFoundError
from dmlpipe.storage.objects.compression import Compressor
from dmlpipe.storage.objects.pack import (
    MAGIC,
    PackBuilder,
    check_blob,
    pack_key,
    parse_footer,
    read_footer,
    read_rows,
    unpack,
    verify_pack,
)
from dmlpipe.storage.testing import CountingBackend

_numbers = itertools.count()
blobs = st.lists(st.tuples(st.binary(max_size=300), st.booleans()), max_size=20)


def build_pack(items: list[tuple[bytes, bool]], rows: object = None, meta: object = None) -> bytes:
    builder = PackBuilder()
    for data, compressed in items:
        builder.add(digest(data), data, Compressor().frame(data) if compressed else None)
    return builder.finish(rows=msgspec.Raw(msgspec.msgpack.encode(rows)), meta=meta)


@given(blobs)
def test_every_blob_reads_back_from_where_the_footer_says(items: list[tuple[bytes, bool]]) -> None:
    body = build_pack(items)
    backend = MemoryBackend(f"pack-{next(_numbers)}")
    key = pack_key(body)
    backend.put_if_absent(key, body)
    found = dict(read_footer(backend, key).locations(key))
    assert set(found) == {digest(data) for data, _ in items}
    for data, _ in items:
        at = found[digest(data)]
        stored = backend.get(at.key, at.offset, at.offset + at.stored)
        assert unpack(stored, at.codec, digest(data)) == data
        assert at.size == len(data)
    assert list(found) == sorted(found)
    verify_pack(body, key)


def test_blobs_stand_in_the_order_in_which_they_were_added() -> None:
    items = [(b"%03d" % number * 50, False) for number in range(50)]
    footer = parse_footer(build_pack(items), "pack")
    offsets = {blob.hash: blob.offset for blob in footer.blobs}
    assert [offsets[digest(data)] for data, _ in items] == [number * 150 for number in range(50)]


def test_a_blob_is_packed_once() -> None:
    builder = PackBuilder()
    assert builder.add(digest(b"x"), b"x") is True
    assert builder.add(digest(b"x"), b"x") is False
    assert (len(builder), builder.size, digest(b"x") in builder) == (1, 1, True)
    assert builder.get(digest(b"x")) == b"x"
    assert builder.get(digest(b"y")) is None


def test_equal_packs_never_have_equal_names() -> None:
    assert pack_key(build_pack([(b"x", False)])) != pack_key(build_pack([(b"x", False)]))


def test_rows_and_meta_of_a_segment_read_back_with_one_request() -> None:
    backend = CountingBackend(MemoryBackend(f"pack-{next(_numbers)}"))
    rows = [[b"key", b"f" * 32, 0, [["a.json", b"\x00"]], 1, 0.5]]
    backend.put_if_absent("results/j/0/w-1.seg", build_pack([(b"blob" * 100, False)], rows, {"job": "j"}))
    raw, meta = read_rows(backend, "results/j/0/w-1.seg")
    assert (msgspec.msgpack.decode(raw), meta) == (rows, {"job": "j"})
    assert backend.counts["get"] == 1


def test_a_footer_larger_than_the_first_read_is_fetched_with_a_second() -> None:
    backend = CountingBackend(MemoryBackend(f"pack-{next(_numbers)}"))
    items = [(b"%d" % number, False) for number in range(3000)]
    body = build_pack(items)
    backend.put_if_absent(pack_key(body), body)
    assert len(read_footer(backend, pack_key(body)).blobs) == 3000
    assert backend.counts["get"] == 2


def test_an_empty_pack_is_a_pack() -> None:
    assert verify_pack(build_pack([]), "segment").blobs == ()


@given(blobs, st.data())
def test_any_flipped_bit_of_a_pack_is_noticed(items: list[tuple[bytes, bool]], data: st.DataObject) -> None:
    body = bytearray(build_pack(items))
    key = pack_key(body)
    position = data.draw(st.integers(0, len(body) * 8 - 1))
    body[position // 8] ^= 1 << (position % 8)
    with pytest.raises(CorruptError):
        verify_pack(body, key)


@given(blobs, st.data())
def test_a_cut_pack_is_noticed(items: list[tuple[bytes, bool]], data: st.DataObject) -> None:
    body = build_pack(items)
    with pytest.raises(CorruptError):
        parse_footer(body[: data.draw(st.integers(0, len(body) - 1))], "pack")


def test_a_pack_under_the_name_of_another_is_noticed() -> None:
    backend = MemoryBackend(f"pack-{next(_numbers)}")
    key = pack_key(build_pack([(b"one", False)]))
    backend.put_if_absent(key, build_pack([(b"two", False)]))
    with pytest.raises(CorruptError, match="its footer belongs to"):
        read_footer(backend, key)


def test_what_is_no_pack_is_refused_with_its_key() -> None:
    backend = MemoryBackend(f"pack-{next(_numbers)}")
    backend.put_if_absent("packs/00/no.pack", b"short")
    with pytest.raises(CorruptError, match=rf"packs/00/no.pack is corrupt: it does not end in {MAGIC.decode()}"):
        read_footer(backend, "packs/00/no.pack")
    with pytest.raises(NotFoundError):
        read_footer(backend, "packs/00/none.pack")


def test_unknown_codecs_are_of_a_newer_format() -> None:
    with pytest.raises(DmlpipeError, match="newer dmlpipe"):
        unpack(b"", 9, Digest(b"\0" * 32))


def test_a_wrong_blob_names_itself_and_its_place() -> None:
    with pytest.raises(CorruptError, match=rf"blob {digest(b'a').hex()[:12]} .*\(here\)"):
        check_blob(digest(b"a"), b"b", "here")
