"""Handwritten digits: train a classifier, label every scan that arrives, score the labels.

Three pipelines; each writes the repo of its own name. `dmlpipe run dag.py` brings them up to date.
"""

import io
import json
from pathlib import Path

import joblib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix
from sklearn.svm import SVC

import dmlpipe as dml

dag = dml.DAG("digits")


def load(scan: Path) -> npt.NDArray[np.float64]:
    """One scan of 8 x 8 grey values, as a vector."""
    with Image.open(scan) as image:
        return np.asarray(image, dtype=np.float64).ravel() / 255


@dag.pipeline(dml.files("training"), timeout="10m")
def model(training: Path, *, C: float = 1.0) -> dml.Files:
    """Trained on all scans at once: one datum. The folder of a scan is its label."""
    scans = sorted(training.glob("*/*.png"))
    classifier = SVC(C=C).fit([load(scan) for scan in scans], [int(scan.parent.name) for scan in scans])
    persisted = io.BytesIO()
    joblib.dump(classifier, persisted)
    return {"model.joblib": persisted.getvalue()}


@dag.pipeline(dml.cross(image=dml.files("images", "/{stem}.png"), model=dml.files("model")), batch=256)
class predictions:
    """One datum per scan. The model is loaded once per slot; 256 scans at a time go through it."""

    def __init__(self, model: Path) -> None:
        self.classifier = joblib.load(model / "model.joblib")

    def __call__(self, image: list[Path], stem: list[str]) -> list[dml.Files]:
        labels = self.classifier.predict([load(scan) for scan in image])
        return [{f"{name}.json": json.dumps({"label": int(label)})} for name, label in zip(stem, labels, strict=True)]


@dag.pipeline(dml.cross(dml.files("predictions"), dml.files("labels")))
def report(predictions: Path, labels: Path, out: Path) -> None:
    """Accuracy over all predictions, and a picture of what was taken for what."""
    truth = json.loads((labels / "labels.json").read_text())
    found = {path.stem: json.loads(path.read_text())["label"] for path in predictions.glob("*.json")}
    names = sorted(found)
    right = sum(truth[name] == found[name] for name in names)
    score = {"accuracy": round(right / len(names), 4), "right": right, "scans": len(names)}
    (out / "accuracy.json").write_text(json.dumps(score) + "\n")
    counts = confusion_matrix([truth[name] for name in names], [found[name] for name in names], labels=range(10))
    figure = Figure(figsize=(5, 5), layout="tight")
    ConfusionMatrixDisplay(counts).plot(ax=figure.subplots(), colorbar=False, cmap="Blues")
    figure.savefig(out / "confusion.png", dpi=120)
