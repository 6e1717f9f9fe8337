from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.scheduler.inputs.combine import cross
from dmlpipe.scheduler.inputs.expression import Array
from dmlpipe.scheduler.inputs.leaf import files
from dmlpipe.scheduler.inputs.regions import ArraySource, parse_grid
from dmlpipe.scheduler.planning.plan import plan_job
from dmlpipe.scheduler.planning.plan_items import Run
from dmlpipe.storage.errors import ErrorCode, InvalidInputError
from dmlpipe.storage.records import Context
from dmlpipe.worker.job import Region
from tests.scheduler.shelf import Shelf, binding, pipeline


def metadata(shape: tuple[int, ...], chunks: tuple[int, ...], **changes: Any) -> str:
    meta = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0.0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "attributes": {},
    }
    return json.dumps({**meta, **changes})


def source(shelf: Shelf, listing: dict[str, str], halo: tuple[int, ...] = ()) -> ArraySource:
    return ArraySource.bind("x", "/x", halo, shelf.tree(listing), shelf.read)


@st.composite
def arrays(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], set[tuple[int, ...]]]:
    """Shape, chunks, and which chunks are written."""
    dimensions = draw(st.integers(0, 2))
    shape = tuple(draw(st.integers(0, 25)) for _ in range(dimensions))
    chunks = tuple(draw(st.integers(2, 4)) for _ in range(dimensions))
    counts = [-(-cells // chunk) for cells, chunk in zip(shape, chunks, strict=True)]
    every = sorted(itertools.product(*map(range, counts)))
    written = set(draw(st.lists(st.sampled_from(every), max_size=6))) if every else set()
    return shape, chunks, written


@st.composite
def two_arrays(draw: st.DrawFn) -> tuple[dict[str, str], dict[str, str], tuple[int, ...]]:
    """An array and what became of it: chunks written, the shape moved, metadata changed; and a halo."""
    shape, chunks, written = draw(arrays())
    halo = tuple(draw(st.integers(0, 5)) for _ in shape) if draw(st.booleans()) else ()
    old = {"x/zarr.json": metadata(shape, chunks), "other": "1"}
    old |= {"x/" + "/".join(["c", *map(str, index)]): "1" for index in written}
    moved = tuple(max(cells + draw(st.sampled_from([0, 0, -3, 1, 7])), 0) for cells in shape)
    fill = draw(st.sampled_from([0.0, 0.0, 0.0, 1.0]))
    new = {**old, "x/zarr.json": metadata(moved, chunks, fill_value=fill), "other": "2"}
    counts = [-(-cells // chunk) for cells, chunk in zip(moved, chunks, strict=True)]
    for index in (
        draw(st.lists(st.sampled_from(sorted(itertools.product(*map(range, counts)))), max_size=2))
        if all(counts)
        else []
    ):
        new["x/" + "/".join(["c", *map(str, index)])] = "2"
    return old, new, halo


@given(two_arrays())
def test_the_delta_is_the_difference_of_the_full_listings(
    case: tuple[dict[str, str], dict[str, str], tuple[int, ...]],
) -> None:
    before, after, halo = case
    shelf = Shelf()
    old, new = source(shelf, before, halo), source(shelf, after, halo)
    was, now = {p.key: p for p in old.pieces()}, {p.key: p for p in new.pieces()}
    for side, listed in ((old, was), (new, now)):
        assert list(listed) == sorted(listed)
        assert side.count() == len(listed)
        assert all(side.get(key) == piece for key, piece in listed.items())

    def content(listed: dict[bytes, Any], key: bytes) -> bytes | None:
        return listed[key].content if key in listed else None

    changes = list(old.changes(new))
    expected = sorted(key for key in was.keys() | now.keys() if content(was, key) != content(now, key))
    assert [change.key for change in changes] == expected
    for change in changes:
        assert (change.old, change.new) == (was.get(change.key), now.get(change.key))


def region(piece: Any) -> Region:
    return msgspec.msgpack.decode(piece.item.value, type=Region)


def test_a_region_is_clipped_and_its_halo_too() -> None:
    shelf = Shelf()
    side = source(shelf, {"x/zarr.json": metadata((10, 7), (4, 4))}, halo=(1, 2))
    found = {piece.item.path: region(piece) for piece in side.pieces()}
    assert list(found) == ["c/0/0", "c/0/1", "c/1/0", "c/1/1", "c/2/0", "c/2/1"]
    assert found["c/2/1"].core == ((8, 10), (4, 7))
    assert found["c/2/1"].read == ((7, 10), (2, 7))
    assert found["c/0/0"].read == ((0, 5), (0, 6))
    assert found["c/0/0"].array == "x"


def changed(before: dict[str, str], after: dict[str, str], halo: tuple[int, ...] = ()) -> list[str]:
    shelf = Shelf()
    return [change.key.decode() for change in source(shelf, before, halo).changes(source(shelf, after, halo))]


def test_an_append_changes_the_last_clipped_chunk_and_the_new_ones() -> None:
    before = {"x/zarr.json": metadata((10,), (4,))}
    assert changed(before, {"x/zarr.json": metadata((14,), (4,))}) == ["c/2", "c/3"]
    assert changed({"x/zarr.json": metadata((8,), (4,))}, {"x/zarr.json": metadata((12,), (4,))}) == ["c/2"]


def test_a_written_chunk_changes_those_whose_halo_touches_it() -> None:
    before = {"x/zarr.json": metadata((40,), (4,)), "x/c/5": "1"}
    after = {**before, "x/c/5": "2"}
    assert changed(before, after) == ["c/5"]
    assert changed(before, after, (1,)) == ["c/4", "c/5", "c/6"]
    assert changed(before, after, (5,)) == ["c/3", "c/4", "c/5", "c/6", "c/7"]


def test_an_absent_chunk_counts_as_absent() -> None:
    before = {"x/zarr.json": metadata((8,), (4,)), "x/c/1": "1"}
    assert changed(before, {"x/zarr.json": metadata((8,), (4,))}) == ["c/1"]


@pytest.mark.parametrize(
    "change", [{"data_type": "int8"}, {"fill_value": 1.0}, {"attributes": {"u": "m"}}, {"codecs": []}]
)
def test_other_metadata_changes_every_chunk(change: dict[str, Any]) -> None:
    assert changed({"x/zarr.json": metadata((8,), (4,))}, {"x/zarr.json": metadata((8,), (4,), **change)}) == [
        "c/0",
        "c/1",
    ]


def test_ten_chunks_sort_as_text() -> None:
    shelf = Shelf()
    side = source(shelf, {"x/zarr.json": metadata((48,), (4,))})
    keys = [piece.key for piece in side.pieces()]
    assert keys == sorted(keys)
    assert keys[1:4] == [b"c/1", b"c/10", b"c/11"]


@pytest.mark.parametrize(
    ("encoding", "key"),
    [
        ({"name": "default", "configuration": {"separator": "."}}, "c.1.0"),
        ({"name": "v2"}, "1.0"),
        ({"name": "v2", "configuration": {"separator": "/"}}, "1/0"),
    ],
)
def test_other_chunk_keys(encoding: dict[str, Any], key: str) -> None:
    shelf = Shelf()
    raw = metadata((8, 4), (4, 4), chunk_key_encoding=encoding)
    old, new = source(shelf, {"x/zarr.json": raw}), source(shelf, {"x/zarr.json": raw, f"x/{key}": "1"})
    assert [change.key.decode() for change in old.changes(new)] == [key]


@pytest.mark.parametrize("key", [b"c", b"c/0", b"c/0/0/0", b"c/00/0", b"c/9/0", b"c/-1/0", b"x", b"", "c/²/0".encode()])
def test_what_is_no_chunk_is_not_found(key: bytes) -> None:
    assert source(Shelf(), {"x/zarr.json": metadata((8, 4), (4, 4))}).get(key) is None


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "is no Zarr array but 'list'"),
        ('{"node_type": "group"}', "is no Zarr array but 'group'"),
        (metadata((4,), (2,), chunk_grid={"name": "rectilinear"}), "chunk grid 'rectilinear'"),
        (metadata((4,), (2,), chunk_key_encoding={"name": "odd"}), "with keys 'odd'"),
        ('{"node_type": "array"}', "describes no Zarr v3 array: .*`shape`"),
        (metadata((4,), (2,), chunk_grid={"name": "regular"}), "describes no Zarr v3 array"),
        ('{"node_type": "array", "shape": ["a"], "chunk_grid": {"name": "regular"}}', "describes no Zarr v3 array"),
        (metadata((4,), (2, 2)), r"has shape \(4,\) and chunks \(2, 2\)"),
        (metadata((4,), (0,)), r"chunks \(0,\)"),
    ],
)
def test_what_is_no_array_is_refused(raw: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        parse_grid(raw.encode(), "/x")
    assert caught.value.code is ErrorCode.BAD_INPUT


def test_a_missing_array_and_a_wrong_halo_are_refused() -> None:
    shelf = Shelf()
    with pytest.raises(InvalidInputError, match="no array at /x"):
        source(shelf, {"y/zarr.json": metadata((4,), (2,))})
    with pytest.raises(InvalidInputError, match="halo of 2 widths, /x has 1 dimensions"):
        source(shelf, {"x/zarr.json": metadata((4,), (2,))}, halo=(1, 2))


def test_a_missing_commit_has_no_chunks() -> None:
    side = ArraySource.bind("x", "/x", (), None, Shelf().read)
    assert (side.count(), list(side.pieces()), side.record()) == (0, [], "")
    shelf = Shelf()
    other = source(shelf, {"x/zarr.json": metadata((8,), (4,))})
    assert [change.key for change in side.changes(other)] == [b"c/0", b"c/1"]
    assert [change.key for change in other.changes(side)] == [b"c/0", b"c/1"]


def test_metadata_that_zarr_writes_is_understood(tmp_path: Path) -> None:
    cases: dict[str, dict[str, Any]] = {
        "plain": {},
        "sharded": {"shards": (6, 4)},
        "named": {"dimension_names": ["t", "y"]},
    }
    for name, options in cases.items():
        made = zarr.create_array(
            tmp_path / name, shape=(10, 4), chunks=(3, 2), dtype="f4", fill_value=np.nan, **options
        )
        made.attrs["limit"] = float("nan")
        made[:] = 1.0
        grid = parse_grid((tmp_path / name / "zarr.json").read_bytes(), name)
        written = {str(p.relative_to(tmp_path / name)) for p in (tmp_path / name / "c").rglob("*") if p.is_file()}
        assert {grid.key(index) for index in grid.indices()} == written


def test_a_changed_chunk_runs_one_datum() -> None:
    shelf = Shelf()
    node = cross(Array(repo="x", path="/ndvi", halo=(0,)), files("model"))
    before = {"ndvi/zarr.json": metadata((8,), (4,)), "ndvi/c/0": "1", "ndvi/c/1": "1"}
    model = binding("model", shelf.tree({"m": "1"}))
    first = plan_job(
        pipeline(node), {"x": binding("x", shelf.tree(before)), "model": model}, None, shelf.open, read=shelf.read
    )
    assert first.total == 2
    context = Context(inputs=dict(first.inputs), order=first.order, t=shelf.raw({d.key: b"t" for d in first.datums()}))
    after = binding("x", shelf.tree({**before, "ndvi/c/1": "2"}))
    plan = plan_job(pipeline(node), {"x": after, "model": model}, context, shelf.open, read=shelf.read)
    runs = [item for item in plan.items() if isinstance(item, Run)]
    assert [run.key for run in runs] == [b"c/1"]
    assert runs[0].datum.items[0].kind == "a"
    assert plan.job_inputs()[0].path == "ndvi"
