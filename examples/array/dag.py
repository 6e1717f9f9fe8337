"""A Zarr array in, one datum per chunk, a Zarr array out, through a model trained in the same DAG."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

import dmlpipe as dml

dag = dml.DAG("array")


@dag.pipeline(dml.files("training"))
def model(training: Path, *, quantile: float = 0.5) -> dml.Files:
    """Learn where vegetation begins: between the bare and the green samples."""
    samples = {path.stem: np.loadtxt(path) for path in training.glob("*.txt")}
    bare, green = np.quantile(samples["bare"], 1 - quantile / 2), np.quantile(samples["green"], quantile / 2)
    return {"model.json": json.dumps({"threshold": round(float(bare + green) / 2, 6)})}


@dag.pipeline(
    dml.cross(ndvi=dml.array("scenes", "/ndvi"), model=dml.files("model")), writes=dml.like("ndvi", dtype="uint8")
)
def segments(ndvi: npt.NDArray[np.float32], model: Path) -> npt.NDArray[np.uint8]:
    """Mark vegetation, chunk by chunk."""
    threshold: float = json.loads((model / "model.json").read_text())["threshold"]
    return (ndvi > threshold).astype(np.uint8)
