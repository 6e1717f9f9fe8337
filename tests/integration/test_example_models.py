"""The examples with models and arrays do what they say: each command is typed here, in a copy of their folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dmlpipe.storage.store import Store
from tests.integration.pages import blocks, copy_example, jobs, type_line

pytestmark = pytest.mark.timeout(150)


def test_one_changed_chunk_of_an_array_reruns_one_datum(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy_example("array", here)
    first, second = blocks(here / "README.md")
    for line in first:
        assert type_line(line) == 0, line
    assert jobs(last=2) == [("model", 1, 0), ("segments", 6, 0)]
    why = " ".join(capfd.readouterr().out.split())
    store = Store.open(read_only=True)
    for repo in ("scenes", "model", "training"):
        assert f"{repo}@{store[repo].id[:6]}" in why
    check_segments(store, here)
    for line in second:
        assert type_line(line) == 0, line
    assert jobs(last=1) == [("segments", 1, 5)]
    check_segments(Store.open(read_only=True), here)


def check_segments(store: Store, here: Path) -> None:
    """The output is the array that one expects."""
    import numpy as np
    import zarr

    scene = zarr.open_array(str(here / "scene" / "ndvi"), mode="r")
    threshold = json.loads(store["model"].read_bytes("/model.json"))["threshold"]
    made = store["segments"].array()
    assert made.dtype == np.uint8
    assert made.chunks == scene.chunks
    np.testing.assert_array_equal(made[...], (np.asarray(scene[...]) > threshold).astype(np.uint8))


def test_a_grid_computes_each_pair_once(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy_example("grid", here)
    first, longer = blocks(here / "README.md")
    for line in first:
        assert type_line(line) == 0, line
    assert jobs(last=2) == [("scores", 8, 0), ("best", 1, 0)]
    told = capfd.readouterr().out
    best = json.loads(next(line for line in told.splitlines() if line.startswith("{")))
    assert best["accuracy"] > 0.9
    for line in longer:
        assert type_line(line) == 0, line
    assert "2 of 10" in capfd.readouterr().out
    assert jobs(last=2) == [("scores", 2, 8), ("best", 1, 0)]


def test_the_tests_of_the_digits_example_pass(here: Path) -> None:
    copy_example("digits", here)
    # As its user's own pytest: without the plugins of this one, and not as a part of this run.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        capture_output=True,
        text=True,
        timeout=140,
        env={**environment, "PYTHONPATH": str(here), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_a_carried_model_labels_files_of_any_folder(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("magika")
    copy_example("filetypes", here)
    (lines,) = blocks(here / "README.md")
    for line in lines:
        assert type_line(line) == 0, line
    assert jobs(last=2) == [("kinds", 1, 2), ("table", 1, 0)]
    told = capfd.readouterr().out
    assert "code/area.txt,python," in told
    assert "letters/page,html," in told
    assert "magika@" in told
    store = Store.open(read_only=True)
    assert b"code/build,shell," in store["table"].read_bytes("/kinds.csv")
