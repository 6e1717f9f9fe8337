"""How to test a DAG: call a transform, or run the whole DAG in memory without a cluster."""

import json
from pathlib import Path

import dag
from PIL import Image

import dmlpipe as dml


def write_scans(folder: Path) -> None:
    for label, grey in ((0, 20), (1, 220)):
        for n in range(3):
            path = folder / str(label) / f"{label}{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), grey + n).save(path)


def test_model_is_a_plain_function(tmp_path: Path) -> None:
    write_scans(tmp_path)
    assert set(dag.model(tmp_path, C=2.0)) == {"model.joblib"}


def test_whole_dag(tmp_path: Path) -> None:
    write_scans(tmp_path / "training")
    (tmp_path / "images").mkdir()
    Image.new("L", (8, 8), 215).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "labels.json").write_text('{"a": 1}')
    commits = dml.testing.run(dag.dag, {repo: tmp_path / repo for repo in ("training", "images", "labels")})
    assert json.loads(commits["predictions"].read_bytes("/a.json")) == {"label": 1}
    assert json.loads(commits["report"].read_bytes("/accuracy.json"))["accuracy"] == 1.0
