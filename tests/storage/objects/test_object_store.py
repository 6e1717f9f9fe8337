from __future__ import annotations

import io
import itertools
import os
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlpipe.storage.backend import Backend
from dmlpipe.storage.backend.local import LocalBackend
from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.digest import Digest, digest
from dmlpipe.storage.errors import ConflictError, CorruptError, NotFoundError
from dmlpipe.storage.objects import content, file_pieces, writer
from dmlpipe.storage.objects.external import describe_external
from dmlpipe.storage.objects.index import BlobIndex
from dmlpipe.storage.objects.node import NodeStore
from dmlpipe.storage.objects.object_store import Objects, Written, object_key, plan_coalesced
from dmlpipe.storage.objects.pack import Location, PackBuilder, read_footer
from dmlpipe.storage.objects.value import Inline, Pieces, Value, Whole, decode_value, encode_value
from dmlpipe.storage.testing import CountingBackend

_numbers = itertools.count()

PIECE = 4096
LOOSE = 1024


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same decisions at sizes that tests can afford."""
    monkeypatch.setattr(writer, "WHOLE_MAX_BYTES", PIECE)
    monkeypatch.setattr(writer, "PACK_BELOW_BYTES", LOOSE)
    monkeypatch.setattr(content, "WHOLE_MAX_BYTES", PIECE)
    monkeypatch.setattr(file_pieces, "WHOLE_MAX_BYTES", PIECE)
    monkeypatch.setattr(content, "_PIECE_BYTES_AHEAD", PIECE)
    monkeypatch.setattr(content, "PACK_BELOW_BYTES", LOOSE)
    monkeypatch.setattr(writer, "PACK_TARGET_BYTES", 8 * LOOSE)


def new_objects(backend: Backend | None = None) -> Objects:
    backend = backend or MemoryBackend(f"objects-{next(_numbers)}")
    return Objects(backend, NodeStore(backend))


def reopened(objects: Objects, *written: Written) -> Objects:
    """The same content as another process sees it, given what was published."""
    indexes = [BlobIndex(objects.backend.get(each.index)) for each in written if each.index]

    def locate(name: Digest) -> Location | None:
        return next((at for index in indexes if (at := index.find(name)) is not None), None)

    return Objects(objects.backend, NodeStore(objects.backend), locate=locate, known=locate)


def body_of(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


SIZES = [0, 1, 128, 129, LOOSE - 1, LOOSE, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 5]
sizes = st.sampled_from(SIZES) | st.integers(0, 3 * PIECE)


# --- sizes decide ---


@pytest.mark.parametrize(
    ("size", "kind", "stored"),
    [
        (0, Inline, set()),
        (128, Inline, set()),
        (129, Whole, {"packs", "index"}),
        (LOOSE - 1, Whole, {"packs", "index"}),
        (LOOSE, Whole, {"objects"}),
        (PIECE, Whole, {"objects"}),
        (PIECE + 1, Pieces, {"objects", "packs", "index", "nodes"}),
        (2 * PIECE, Pieces, {"objects", "nodes"}),
    ],
)
def test_size_decides_where_content_goes(size: int, kind: type, stored: set[str]) -> None:
    objects = new_objects()
    writer_ = objects.writer()
    value = writer_.put(body_of(size))
    writer_.flush()
    assert isinstance(value, kind)
    assert value.size == size
    assert {key.partition("/")[0] for key, _ in objects.backend.list()} == stored


@given(st.lists(st.tuples(sizes, st.integers(0, 3)), max_size=12))
def test_what_was_put_reads_back_from_another_process(items: list[tuple[int, int]]) -> None:
    objects = new_objects()
    put = objects.writer()
    bodies = [body_of(size, seed) for size, seed in items]
    values = [put.put(body) for body in bodies]
    assert [objects.read(value) for value in values] == bodies  # before the flush
    written = put.flush()
    assert [objects.read(value) for value in values] == bodies  # before it is published
    other = reopened(objects, written)
    assert [other.read(value) for value in values] == bodies
    assert other.read_many(values) == bodies
    assert [decode_value(encode_value(value)) for value in values] == values


@given(sizes)
def test_equal_content_has_an_equal_value_however_it_was_put(size: int) -> None:
    body = body_of(size)
    one, two, three = (new_objects().writer() for _ in range(3))
    value = one.put(body)
    assert two.put_file(io.BytesIO(body)) == value
    assert three.put(memoryview(bytearray(body))) == value


@pytest.mark.parametrize("size", SIZES)
def test_files_are_put_by_path_and_by_descriptor(tmp_path: Path, size: int) -> None:
    objects = new_objects()
    put = objects.writer()
    path = tmp_path / "file"
    path.write_bytes(body_of(size))
    value = put.put_file(path)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert put.put_file(fd) == put.put_file(str(path)) == value
    finally:
        os.close(fd)
    assert objects.read(value) == body_of(size)


def test_a_pipe_is_put_to_its_end() -> None:
    objects = new_objects()
    read_end, write_end = os.pipe()
    with ThreadPoolExecutor(1) as pool:

        def feed() -> None:
            with open(write_end, "wb") as file:
                file.write(body_of(3 * PIECE))

        done = pool.submit(feed)
        value = objects.writer().put_file(read_end)
        done.result(timeout=30)
    os.close(read_end)
    assert objects.read(value) == body_of(3 * PIECE)


# --- ranges and files ---


@given(sizes, st.none() | st.integers(-9000, 15_000), st.none() | st.integers(-9000, 15_000))
def test_ranges_are_slices(size: int, start: int | None, end: int | None) -> None:
    objects = new_objects()
    body = body_of(size)
    value = objects.writer().put(body)
    assert objects.read(value, start, end) == body[start:end]


@given(sizes, st.lists(st.tuples(st.integers(0, 13_000), st.integers(-1, 5000)), max_size=6))
def test_an_open_file_behaves_like_one_in_memory(size: int, steps: list[tuple[int, int]]) -> None:
    objects = new_objects()
    body = body_of(size)
    expected = io.BytesIO(body)
    with objects.open(objects.writer().put(body)) as file:
        for position, count in steps:
            assert file.seek(position) == expected.seek(position)
            assert file.read(count) == expected.read(count)
            assert file.tell() == expected.tell()
        assert file.seek(0, os.SEEK_END) == size


@pytest.mark.parametrize("size", SIZES)
def test_copy_to_writes_the_content(tmp_path: Path, size: int) -> None:
    objects = new_objects()
    value = objects.writer().put(body_of(size))
    objects.copy_to(value, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == body_of(size)
    with pytest.raises(FileExistsError):
        objects.copy_to(value, tmp_path / "copy")


def test_a_failed_copy_leaves_no_file(tmp_path: Path) -> None:
    objects = new_objects()
    value = objects.writer().put(body_of(3 * PIECE))
    last = objects.manifest(value).pieces[-1]  # type: ignore[arg-type]  # so large a value has pieces
    objects.backend.delete_many([object_key(Digest(last.hash))])
    with pytest.raises(NotFoundError):
        objects.copy_to(value, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_a_range_of_a_large_file_reads_only_its_pieces() -> None:
    objects = new_objects(CountingBackend(MemoryBackend(f"objects-{next(_numbers)}")))
    body = b"".join(body_of(PIECE, seed) for seed in range(6))
    value = objects.writer().put(body)
    counts = objects.backend.counts  # type: ignore[attr-defined]
    before = counts["get"]
    assert objects.read(value, 2 * PIECE + 10, 3 * PIECE + 10) == body[2 * PIECE + 10 : 3 * PIECE + 10]
    assert counts["get"] - before == 2


# --- many ---


def test_neighbours_in_a_pack_are_fetched_as_one_range() -> None:
    objects = new_objects()
    put = objects.writer()
    bodies = [body_of(200, seed) for seed in range(20)]
    values = [put.put(body) for body in bodies]
    other = reopened(objects, put.flush())
    counting = CountingBackend(other.backend)
    other.backend = counting
    assert other.read_many(values) == bodies
    assert counting.counts["get"] == counting.counts["get_many"] == 1


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 50), st.integers(0, 40)), max_size=20),
    st.integers(0, 60),
    st.integers(50, 300),
)
def test_coalescing_keeps_every_blob_within_its_limits(
    sizes_and_gaps: list[tuple[str, int, int]], gap: int, most: int
) -> None:
    ends = {"a": 0, "b": 0}
    blobs = []
    for number, (key, size, hole) in enumerate(sizes_and_gaps):
        offset = ends[key] + hole
        blobs.append((digest(b"%d" % number), Location(key, offset, size, size, 0)))
        ends[key] = offset + size
    groups = plan_coalesced(blobs, gap_bytes=gap, max_bytes=most)
    assert sorted(itertools.chain.from_iterable(groups)) == sorted(blobs)
    for group in groups:
        places = [at for _, at in group]
        assert len({at.key for at in places}) == 1
        assert places[-1].offset + places[-1].stored - places[0].offset <= most
        for before, after in itertools.pairwise(places):
            assert 0 <= after.offset - (before.offset + before.stored) <= gap
    for one, two in itertools.pairwise(groups):
        first, last, following = one[0][1], one[-1][1], two[0][1]
        if first.key == following.key and following.offset - (last.offset + last.stored) <= gap:
            assert following.offset + following.stored - first.offset > most


def test_many_loose_and_packed_blobs_are_read_in_order() -> None:
    objects = new_objects()
    put = objects.writer()
    bodies = [body_of(size, seed) for seed in range(3) for size in (10, 300, LOOSE, 2000, PIECE + 9)]
    values = [put.put(body) for body in bodies]
    other = reopened(objects, put.flush())
    assert other.read_many(list(reversed(values))) == list(reversed(bodies))
    assert other.read_many([]) == []


# --- deduplication, durability ---


def test_equal_content_is_stored_once() -> None:
    objects = new_objects()
    put = objects.writer()
    for _ in range(3):
        put.put(body_of(500))
        put.put(body_of(2000))
    written = put.flush()
    assert len(read_footer(objects.backend, written.packs[0]).blobs) == 1
    stored = sorted(key for key, _ in objects.backend.list())
    again = reopened(objects, written).writer()
    again.put(body_of(500))
    again.put(body_of(2000))
    assert again.flush() == Written()
    assert sorted(key for key, _ in objects.backend.list()) == stored
    # What was found and not written has to be on disk all the same.
    assert set(again.take_keys()) == {written.packs[0], object_key(digest(body_of(2000)))}


def test_take_keys_names_all_that_an_entry_will_need() -> None:
    objects = new_objects()
    put = objects.writer()
    for seed, size in itertools.product(range(30), (10, 900, 2000, PIECE + 1)):
        put.put(body_of(size, seed))
    written = put.flush()
    assert len(written.packs) > 1
    keys = {*put.take_keys(), *objects.nodes.take_written()}
    assert keys == {key for key, _ in objects.backend.list()}
    assert put.take_keys() == []
    assert put.flush() == Written()


def test_full_packs_are_stored_on_the_way_and_read_back() -> None:
    objects = new_objects()
    put = objects.writer()
    bodies = [body_of(1000, seed) for seed in range(50)]
    values = [put.put(body) for body in bodies]
    assert any(key.startswith("packs/") for key, _ in objects.backend.list())
    assert put.size < 9 * LOOSE
    assert objects.read_many(values) == bodies
    assert reopened(objects, put.flush()).read_many(values) == bodies


@pytest.mark.parametrize("left", [b"", b"torn"])
def test_a_loose_object_that_a_power_cut_left_torn_is_written_anew(left: bytes) -> None:
    objects = new_objects()
    body = body_of(2000)
    objects.backend.put(object_key(digest(body)), left)
    assert objects.read(objects.writer().put(body)) == body


def test_many_threads_may_put(tmp_path: Path) -> None:
    objects = new_objects(LocalBackend(tmp_path))
    put = objects.writer()
    bodies = [body_of(200 + 97 * (seed % 40), seed % 60) for seed in range(300)]
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(put.put, bodies))
    assert reopened(objects, put.flush()).read_many(values) == bodies


# --- segments ---


def test_a_caller_may_own_the_pack() -> None:
    objects = new_objects()
    first, second = PackBuilder(), PackBuilder()
    put = objects.writer(builder=first)
    small, large = put.put(body_of(500)), put.put(body_of(2000))
    log = put.add_blob(b"printed")
    assert put.swap(second) is first
    other = put.put(body_of(600))
    assert put.flush() == Written()
    locations: dict[Digest, Location] = {}
    for number, builder in enumerate([first, second]):
        key = f"results/j/000000/w-{number}.seg"
        objects.backend.put_if_absent(key, builder.finish(meta={}))
        locations |= dict(read_footer(objects.backend, key).locations(key))
    reader = Objects(objects.backend, NodeStore(objects.backend), locate=locations.get)
    assert [reader.read(value) for value in (small, large, other)] == [body_of(500), body_of(2000), body_of(600)]
    assert reader.get_blob(log) == b"printed"
    assert put.take_keys() == [object_key(digest(body_of(2000)))]


def test_a_writer_with_packs_of_its_own_does_not_swap() -> None:
    with pytest.raises(ConflictError):
        new_objects().writer().swap(PackBuilder())


def test_a_closed_writer_is_forgotten() -> None:
    objects = new_objects()
    put = objects.writer()
    value = put.put(body_of(500))
    put.close()
    with pytest.raises(NotFoundError):
        objects.read(value)


# --- damage ---


@settings(max_examples=20)
@given(st.sampled_from([300, 2000, 2 * PIECE]), st.integers(0, 10_000))
def test_a_changed_byte_is_noticed_on_read(size: int, where: int) -> None:
    objects = new_objects()
    put = objects.writer()
    value = put.put(body_of(size))
    other = reopened(objects, put.flush())
    for key, stored_size in list(objects.backend.list()):
        if key.startswith(("objects/", "packs/")):
            body = bytearray(objects.backend.get(key))
            body[where % (size if key.startswith("packs/") else stored_size)] ^= 1
            objects.backend.put(key, body)
    for read in (other.read, lambda value: other.read(value, 0, 1), lambda value: other.read_many([value])):
        with pytest.raises(CorruptError, match="is corrupt"):
            read(value)


@pytest.mark.parametrize("size", [300, 2000, 2 * PIECE])
def test_missing_content_is_not_found(size: int) -> None:
    objects = new_objects()
    put = objects.writer()
    value = put.put(body_of(size))
    other = reopened(objects, put.flush())
    objects.backend.delete_many([key for key, _ in objects.backend.list() if not key.startswith("nodes/")])
    with pytest.raises(NotFoundError):
        other.read(value)
    with pytest.raises(NotFoundError):
        other.read_many([value])


def test_a_blob_is_found_wherever_it_is() -> None:
    objects = new_objects()
    small = body_of(500)
    objects.put_loose(digest(small), small)  # where another version of the program might put it
    assert objects.read(Whole(500, digest(small))) == small
    assert objects.read_many([Whole(500, digest(small))]) == [small]


# --- external ---


def test_external_content_is_read_where_it_is_and_refused_once_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "big.bin"
    path.write_bytes(body_of(5000))
    value: Value = describe_external(f"file://{path}")
    objects = new_objects()
    assert objects.read(value) == body_of(5000)
    assert objects.read(value, -3) == body_of(5000)[-3:]
    assert pickle.loads(pickle.dumps(value)) == value
    path.write_bytes(b"changed")
    with pytest.raises(ConflictError, match="changed since it was put"):
        objects.read(value)
    path.unlink()
    with pytest.raises(NotFoundError):
        objects.read(value)
