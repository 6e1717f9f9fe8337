"""A random forest labels files of handwritten digits; one datum a file, the model resident."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.ensemble import RandomForestClassifier

import dmlpipe as dml

ITEMS = "items"

dag = dml.DAG("inference")


def load_model(folder: Path) -> Any:
    """Load the classifier, once per process."""
    return joblib.load(folder / "model.joblib")


def score(model: Any, item: bytes) -> str:
    """Label every scan of an .npy file of shape (scans, 64), uint8: a line `label,probability` each, in order."""
    found = model.predict_proba(np.load(io.BytesIO(item)))
    best = found.argmax(axis=1)
    return "".join(f"{label},{row[label]:.4f}\n" for label, row in zip(best, found, strict=True))


@dag.pipeline(dml.files("training"))
def model(training: Path, *, trees: int = 130, seed: int = 0) -> dml.Files:
    """Train the forest: one datum. One thread for each prediction: slots are what runs in parallel."""
    data = np.load(training / "digits.npz")
    forest = RandomForestClassifier(n_estimators=trees, random_state=seed, n_jobs=1)
    forest.fit(data["scans"], data["labels"])
    persisted = io.BytesIO()
    joblib.dump(forest, persisted)
    return {"model.joblib": persisted.getvalue()}


@dag.pipeline(dml.cross(item=dml.files(ITEMS, "/{stem}"), model=dml.files("model")))
class predictions:  # noqa: N801  # the name is the repo's
    """Not `batch=`: no contender puts two files through the forest at once."""

    def __init__(self, model: Path, *, point: str = "") -> None:
        self.model = load_model(model)

    def __call__(self, item: bytes, stem: str) -> dml.Files:
        """Label one file."""
        return {f"{stem}.txt": score(self.model, item)}
