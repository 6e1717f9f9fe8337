"""Zarr arrays through pipelines on a real cluster: a chunk is a datum, with its halo; the output is an array again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr

import dmlpipe as dml
from dmlpipe.scheduler.leases.inline import InlineExecutor
from dmlpipe.scheduler.report import RunSummary

pytestmark = pytest.mark.timeout(120)

DAG = """
import json
from pathlib import Path

import numpy as np

import dmlpipe as dml

dag = dml.DAG("scenes")


@dag.pipeline(dml.files("training"))
def model(training: Path) -> dml.Files:
    return {"model.json": json.dumps({"threshold": float(np.loadtxt(training / "samples.txt").mean())})}


@dag.pipeline(
    dml.cross(x=dml.array("scenes", "/ndvi"), model=dml.files("model")), writes=dml.like("x", dtype="uint8")
)
def segments(x: np.ndarray, model: Path) -> np.ndarray:
    return (x > json.loads((model / "model.json").read_text())["threshold"]).astype("uint8")


@dag.pipeline(
    dml.cross(x=dml.array("scenes", "/ndvi", halo=1), model=dml.files("model")), writes=dml.like("x", dtype="float32")
)
class smooth:
    def __init__(self, model: Path) -> None:
        self.threshold = json.loads((model / "model.json").read_text())["threshold"]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        around = np.pad(x, 1, mode="edge")
        rows, columns = x.shape
        windows = [around[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
        return (np.mean(windows, axis=0) - self.threshold).astype("float32")
"""

Cells = npt.NDArray[np.float32]
CHUNK = 5
ROWS, COLUMNS = 4, 3
"""Of chunks."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dml.Store:
    """A store with training data, an array and the pipelines over them."""
    monkeypatch.setenv("DMLPIPE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DMLPIPE_FLUSH_S", "0.2")
    (tmp_path / "dag.py").write_text(DAG)
    store = dml.init(tmp_path / "store")
    store.put("training", ("samples.txt", b"0.2 0.4"), message="field samples")
    with store.commit("scenes", message="first scene") as session:
        made = zarr.create_array(
            session.zarr(), name="ndvi", shape=(ROWS * CHUNK, COLUMNS * CHUNK), chunks=(CHUNK, CHUNK), dtype="float32"
        )
        made[:] = scene(ROWS * CHUNK)
    store.submit(tmp_path / "dag.py")
    return store


def scene(rows: int, seed: int = 0) -> Cells:
    return np.random.default_rng(seed).uniform(-0.2, 0.9, (rows, COLUMNS * CHUNK)).astype(np.float32)


def edit(store: dml.Store, change: Callable[[zarr.Array[Any]], object], message: str) -> None:
    with store.commit("scenes", message=message) as session:
        change(zarr.open_array(session.zarr("/ndvi"), mode="r+"))


def run(store: dml.Store) -> dict[str, tuple[int, int]]:
    """Bring up to date in this process: pipeline to datums run, datums skipped."""
    return counts(store.run(executor=InlineExecutor(store)))


def counts(summary: RunSummary) -> dict[str, tuple[int, int]]:
    assert summary.ok
    return {job.pipeline: (job.counters.run, job.counters.skipped) for job in summary.jobs}


def threshold(store: dml.Store) -> float:
    return float(json.loads(store["model"].read_bytes("/model.json"))["threshold"])


def assert_outputs_follow_the_scene(store: dml.Store) -> None:
    """The same, computed by numpy over the whole array at once."""
    x = np.asarray(store["scenes"].array("/ndvi")[...])
    limit = threshold(store)
    segments, smooth = store["segments"].array(), store["smooth"].array()
    assert (segments.dtype, smooth.dtype) == (np.dtype("uint8"), np.dtype("float32"))
    assert segments.chunks == smooth.chunks == (CHUNK, CHUNK)
    np.testing.assert_array_equal(segments[...], (x > limit).astype(np.uint8))
    around = np.pad(x, 1, mode="edge")
    windows = [around[i : i + x.shape[0], j : j + x.shape[1]] for i in range(3) for j in range(3)]
    np.testing.assert_allclose(np.asarray(smooth[...]), np.mean(windows, axis=0) - limit, rtol=0, atol=1e-6)


def put_into_chunk(row: int, column: int, value: float) -> Callable[[zarr.Array[Any]], None]:
    def change(array: zarr.Array[Any]) -> None:
        array[row * CHUNK + 2, column * CHUNK + 2] = value

    return change


def test_one_chunk_is_one_datum_and_only_changed_ones_run_again(store: dml.Store) -> None:
    chunks = ROWS * COLUMNS
    assert counts(store.run(slots=2)) == {"model": (1, 0), "segments": (chunks, 0), "smooth": (chunks, 0)}
    assert_outputs_follow_the_scene(store)
    # One chunk of 4 x 3: without a halo itself, with a halo the eight around it too.
    edit(store, put_into_chunk(1, 1, 0.77), "a pixel")
    assert counts(store.run(slots=2)) == {"segments": (1, chunks - 1), "smooth": (9, chunks - 9)}
    assert_outputs_follow_the_scene(store)


def test_a_chunk_in_a_corner_has_three_neighbours(store: dml.Store) -> None:
    run(store)
    edit(store, put_into_chunk(ROWS - 1, 0, 0.5), "a pixel")
    assert run(store) == {"segments": (1, 11), "smooth": (4, 8)}
    assert_outputs_follow_the_scene(store)


def test_a_chunk_put_back_as_it_was_is_remembered(store: dml.Store) -> None:
    run(store)
    before = {name: store[name].tree.root for name in ("segments", "smooth")}
    edit(store, put_into_chunk(0, 0, 0.5), "a pixel")
    run(store)
    edit(store, lambda array: array.__setitem__((slice(CHUNK),), scene(ROWS * CHUNK)[:CHUNK]), "put back")
    assert run(store) == {"segments": (0, 12), "smooth": (0, 12)}
    assert {name: store[name].tree.root for name in before} == before


def test_an_append_runs_only_the_new_part(store: dml.Store) -> None:
    run(store)
    kept = {key: store["segments"].value(f"/{key}") for key in ("c/0/0", "c/3/2")}
    edit(store, lambda array: array.append(scene(2 * CHUNK, seed=1), axis=0), "a later strip")
    # With a halo the last old row of chunks has new neighbours.
    assert run(store) == {"segments": (2 * COLUMNS, 12), "smooth": (3 * COLUMNS, 9)}
    assert_outputs_follow_the_scene(store)
    assert {key: store["segments"].value(f"/{key}") for key in kept} == kept


def test_an_append_that_fills_a_partial_chunk_runs_that_chunk_too(store: dml.Store) -> None:
    edit(store, lambda array: array.append(scene(2, seed=1), axis=0), "a sliver")
    assert run(store)["segments"] == (15, 0)
    edit(store, lambda array: array.append(scene(CHUNK, seed=2), axis=0), "the rest and more")
    assert run(store) == {"segments": (2 * COLUMNS, 12), "smooth": (3 * COLUMNS, 9)}
    assert_outputs_follow_the_scene(store)


def test_a_shrunk_array_drops_the_chunks_it_lost(store: dml.Store) -> None:
    run(store)
    edit(store, lambda array: array.resize((2 * CHUNK, COLUMNS * CHUNK)), "half of it")
    summary = store.run(executor=InlineExecutor(store))
    assert counts(summary) == {"segments": (0, 6), "smooth": (COLUMNS, 3)}
    assert {job.pipeline: job.counters.removed for job in summary.jobs} == {"segments": 6, "smooth": 6}
    assert_outputs_follow_the_scene(store)
    assert not store["segments"].exists("/c/2/0")


def test_a_chunk_that_was_never_written_is_a_datum_too(store: dml.Store) -> None:
    edit(store, lambda array: array.resize(((ROWS + 1) * CHUNK, COLUMNS * CHUNK)), "room for more")
    assert run(store)["segments"] == (15, 0)
    assert_outputs_follow_the_scene(store)
    edit(store, put_into_chunk(ROWS, 1, 0.5), "the first pixel there")
    assert run(store) == {"segments": (1, 14), "smooth": (6, 9)}
    assert_outputs_follow_the_scene(store)


def test_an_array_put_as_a_folder_is_the_same_array(store: dml.Store, tmp_path: Path) -> None:
    run(store)
    store["scenes"].get("/", tmp_path / "scene")
    local = zarr.open_array(tmp_path / "scene" / "ndvi", mode="r+")
    local[0, 0] = 0.5
    store.put("scenes", tmp_path / "scene", message="by folder")
    assert run(store) == {"segments": (1, 11), "smooth": (4, 8)}
    assert_outputs_follow_the_scene(store)


def test_a_new_model_runs_every_chunk_and_its_revert_none(store: dml.Store) -> None:
    run(store)
    before = store["segments"].tree.root
    store.put("training", ("samples.txt", b"0.5 0.7"), message="more samples")
    assert run(store) == {"model": (1, 0), "segments": (12, 0), "smooth": (12, 0)}
    assert_outputs_follow_the_scene(store)
    store.revert("model", "model@master^")
    assert run(store) == {"segments": (0, 12), "smooth": (0, 12)}
    assert store["segments"].tree.root == before


def test_why_of_an_output_chunk_leads_to_its_chunk_the_model_and_the_training(store: dml.Store) -> None:
    run(store)
    first, trained = store["scenes"].id, store["training"].id
    edit(store, put_into_chunk(1, 1, 0.77), "a pixel")
    run(store)
    why = store.why("segments:/c/1/1")
    assert why.datum is not None
    assert why.datum.key == ("c/1/1",)
    x, model = why.use("x"), why.use("model")
    assert (x.repo, x.path, x.commit) == ("scenes", "/ndvi/c/1/1", store["scenes"].id)
    assert x.put is not None
    assert x.put.message == "a pixel"
    assert (model.commit, model.role) == (store["model"].id, "model")
    assert model.made_by is not None
    training = model.made_by.use("training")
    assert (training.commit, training.put and training.put.message) == (trained, "field samples")
    # A chunk that was reused: computed from the first commit, valid for the present one.
    reused = store.why("segments:/c/0/0").use("x")
    assert (reused.commit, reused.valid_for, reused.path) == (first, store["scenes"].id, "/ndvi/c/0/0")
    assert reused.put is not None
    assert reused.put.message == "first scene"


def test_the_metadata_of_an_output_array_is_the_jobs_and_no_datums(store: dml.Store) -> None:
    run(store)
    why = store.why("segments:/zarr.json")
    assert why.datum is None
    assert why.job is not None
    assert why.use("x").commit == store["scenes"].id


def test_an_output_array_is_the_input_of_the_next_pipeline(store: dml.Store, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "dag.py").write_text(
        "import numpy as np\n"
        "import dmlpipe as dml\n"
        "dag = dml.DAG('more')\n"
        "@dag.pipeline(dml.array('segments', name='mask'), writes=dml.like('mask', dtype='int16'))\n"
        "def doubled(mask: np.ndarray) -> np.ndarray:\n"
        "    return mask.astype('int16') * 2\n"
    )
    store.submit(tmp_path / "more" / "dag.py")
    assert run(store)["doubled"] == (12, 0)
    np.testing.assert_array_equal(store["doubled"].array()[...], np.asarray(store["segments"].array()[...]) * 2)
    edit(store, put_into_chunk(2, 2, 0.9 if store["segments"].array()[12, 12] == 0 else -0.1), "across the threshold")
    assert run(store)["doubled"] == (1, 11)
    chunk = store.why("doubled:/c/2/2").use("mask")
    assert (chunk.repo, chunk.path) == ("segments", "/c/2/2")
    assert chunk.made_by is not None
    assert chunk.made_by.use("x").path == "/ndvi/c/2/2"


@pytest.mark.parametrize("shape", [(7,), (3, 4, 5), ()])
def test_arrays_have_any_number_of_dimensions(store: dml.Store, tmp_path: Path, shape: tuple[int, ...]) -> None:
    cells = np.arange(int(np.prod(shape)), dtype=np.int32).reshape(shape) + 1
    with store.commit("cubes") as session:
        zarr.create_array(session.zarr(), name="x", data=cells, chunks=tuple(2 for _ in shape))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "dag.py").write_text(
        "import numpy as np\n"
        "import dmlpipe as dml\n"
        "dag = dml.DAG('more')\n"
        "@dag.pipeline(dml.array('cubes', '/x', name='x'), writes=dml.like('x', dtype='int64'))\n"
        "def squared(x: np.ndarray) -> np.ndarray:\n"
        "    return x.astype('int64') ** 2\n"
    )
    store.submit(tmp_path / "more" / "dag.py")
    counted = int(np.prod([-(-length // 2) for length in shape]))
    assert run(store)["squared"] == (counted, 0)
    np.testing.assert_array_equal(store["squared"].array()[...], cells.astype(np.int64) ** 2)
