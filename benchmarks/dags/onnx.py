"""The random forest of `forest.py` as an ONNX graph, run by onnxruntime; one datum a file, the model resident."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime

import dmlpipe as dml

ITEMS = "items"

dag = dml.DAG("inference")


def load_model(folder: Path) -> Any:
    """Open a session with one thread, once per process: slots are what runs in parallel."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])


def score(model: Any, item: bytes) -> str:
    """Label every scan of an .npy file of shape (scans, 64), uint8: a line `label,probability` each, in order."""
    scans = np.load(io.BytesIO(item)).astype(np.float32)
    labels, found = model.run(None, {"X": scans})
    return "".join(f"{label},{row.max():.4f}\n" for label, row in zip(labels, found, strict=True))


@dag.pipeline(dml.files("training"))
def model(training: Path, *, trees: int = 130, seed: int = 0) -> dml.Files:
    """Train the forest, write it as a graph: one datum."""
    # Here: who predicts needs neither.
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier

    data = np.load(training / "digits.npz")
    forest = RandomForestClassifier(n_estimators=trees, random_state=seed, n_jobs=1)
    forest.fit(data["scans"], data["labels"])
    options = {id(forest): {"zipmap": False}}
    graph = cast("Any", to_onnx(forest, data["scans"][:1].astype(np.float32), options=options))
    return {"model.onnx": graph.SerializeToString()}


@dag.pipeline(dml.cross(item=dml.files(ITEMS, "/{stem}"), model=dml.files("model")))
class predictions:  # noqa: N801  # the name is the repo's
    """Resident."""

    def __init__(self, model: Path, *, point: str = "") -> None:
        self.model = load_model(model)

    def __call__(self, item: bytes, stem: str) -> dml.Files:
        """Label one file."""
        return {f"{stem}.txt": score(self.model, item)}
