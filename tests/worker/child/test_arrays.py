from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zarr
import zarr.storage

from dmlpipe.storage.errors import InvalidInputError, UserCodeError
from dmlpipe.storage.trees.prolly import Tree
from dmlpipe.worker.child.arrays import encode_chunk, output_metadata, parse_grid, read_box
from dmlpipe.worker.child.wire import Box
from dmlpipe.worker.job import ArrayWrites, Datum, Item, JobInput, Region
from tests.worker.bench import Bench, parameter, put, python, spec


def make(
    folder: Path, cells: np.ndarray[tuple[int, ...], np.dtype[np.float32]], chunks: tuple[int, int]
) -> dict[str, bytes]:
    """A Zarr array as files."""
    array = zarr.create_array(
        zarr.storage.LocalStore(folder), shape=cells.shape, chunks=chunks, dtype=cells.dtype, fill_value=0
    )
    array[:] = cells
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_grid_is_what_zarr_says(tmp_path: Path) -> None:
    files = make(tmp_path, np.ones((5, 7), np.float32), (2, 3))
    grid = parse_grid(files["zarr.json"], "a")
    assert (grid.shape, grid.chunk) == ((5, 7), (2, 3))
    every = set(grid.covering(((0, 5), (0, 7))))
    assert {grid.key(index) for index in every} == set(files) - {"zarr.json"}
    assert set(grid.covering(((1, 3), (3, 6)))) == {(0, 1), (1, 1)}


@pytest.mark.parametrize("text", [b"{", b"{}", b'{"zarr_format": 3, "node_type": "group"}', b"[]"])
def test_what_is_no_array_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidInputError, match="images/a: not a readable array"):
        parse_grid(text, "images/a")


def test_an_encoded_chunk_is_read_by_zarr(tmp_path: Path) -> None:
    files = make(tmp_path / "like", np.ones((5, 7), np.float32), (2, 3))
    metadata = output_metadata(files["zarr.json"], ArrayWrites(like="x", dtype="int16", fill_value=-1))
    assert output_metadata(files["zarr.json"], ArrayWrites(like="x", dtype="int16", fill_value=-1)) == metadata
    box = Box(((4, 5), (3, 6)), ((3, 5), (2, 7)))
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "zarr.json").write_bytes(metadata)
    for result in (np.array([[1, 2, 3]]), np.pad(np.array([[1, 2, 3]]), ((1, 0), (1, 1)))):
        key, data = encode_chunk(result, box, metadata)
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)
        cells = read_box(str(folder), None)
        assert cells.dtype == np.int16
        assert cells[4].tolist() == [-1, -1, -1, 1, 2, 3, -1]
        assert read_box(str(folder), box).tolist() == [[-1] * 5, [-1, 1, 2, 3, -1]]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([1], "it returned a list; expected an array"),
        (np.zeros((2, 2)), r"it returned an array of shape \(2, 2\); expected \(1, 3\) or \(2, 5\)"),
        (np.array([[0.5, 1, 2]]), "it returned float64; writes= declares uint8"),
        (np.array([[300, 1, 2]]), None),
        (np.array([[-1, 1, 2]]), "it returned int64; writes= declares uint8"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, result: object, message: str | None) -> None:
    files = make(tmp_path, np.ones((5, 7), np.float32), (2, 3))
    metadata = output_metadata(files["zarr.json"], ArrayWrites(like="x", dtype="uint8"))
    box = Box(((4, 5), (3, 6)), ((3, 5), (2, 7)))
    with pytest.raises(UserCodeError, match=message or "loses values"):
        encode_chunk(result, box, metadata)


def region(tree: Tree, path: str, index: tuple[int, int], halo: int) -> Datum:
    raw = tree.get(f"{path}/zarr.json".encode())
    assert raw is not None
    core = ((index[0] * 2, min(index[0] * 2 + 2, 5)), (index[1] * 3, min(index[1] * 3 + 3, 7)))
    read = tuple((max(a - halo, 0), min(b + halo, n)) for (a, b), n in zip(core, (5, 7), strict=True))
    key = f"c/{index[0]}/{index[1]}"
    item = Item(key, "a", msgspec.msgpack.encode(Region(path, bytes(tree.root), core, read)))
    return Datum(key.encode(), key.encode().ljust(32, b"."), (item,))


@pytest.mark.parametrize("missing", [False, True])
def test_a_job_over_chunks_writes_an_array(bench: Bench, tmp_path: Path, missing: bool) -> None:
    cells = np.arange(35, dtype=np.float32).reshape(5, 7)
    files = {f"ndvi/{k}": v for k, v in make(tmp_path / "like", cells, (2, 3)).items()}
    if missing:
        del files["ndvi/c/0/1"]
        cells[0:2, 3:6] = 0
    tree = put(bench.store, "scenes", files)
    source = """
    import numpy as np
    def f(ndvi):
        padded = np.pad(ndvi, 0)
        return (padded > 10).astype("uint8") + 1
    """
    transform = python(bench.store, source, "f", parameter("ndvi", "array"), result="array")
    job = spec(
        transform,
        JobInput(name="ndvi", kind="array", constant=False, tree=tree.root.hex(), path="ndvi"),
        writes=ArrayWrites(like="ndvi", dtype="uint8", path="mask"),
    )
    rows = bench.run(job, [region(tree, "ndvi", (i, j), 1) for i in range(3) for j in range(3)])
    assert [row.failure for row in rows.values()] == [None] * 9
    folder = tmp_path / "out"
    meta = output_metadata(files["ndvi/zarr.json"], ArrayWrites(like="ndvi", dtype="uint8", path="mask"))
    for name, data in {**bench.content(job.job), "mask/zarr.json": meta}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    assert json.loads(meta)["shape"] == [5, 7]
    assert read_box(str(folder / "mask"), None).tolist() == ((cells > 10) + 1).tolist()
