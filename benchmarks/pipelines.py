"""The workload as pipelines: training data make the model, the model labels files, one datum a file."""

from __future__ import annotations

import io
from pathlib import Path

import joblib
import numpy as np
from sklearn.ensemble import RandomForestClassifier

import dmlpipe as dml

from .scoring import load_model, score

dag = dml.DAG("inference")


@dag.pipeline(dml.files("training"))
def model(training: Path, *, trees: int = 130, seed: int = 0) -> dml.Files:
    """Train the forest: one datum. One thread for each prediction: slots are what runs in parallel."""
    data = np.load(training / "digits.npz")
    forest = RandomForestClassifier(n_estimators=trees, random_state=seed, n_jobs=1)
    forest.fit(data["scans"], data["labels"])
    persisted = io.BytesIO()
    joblib.dump(forest, persisted)
    return {"model.joblib": persisted.getvalue()}


@dag.pipeline(dml.cross(scans=dml.files("scans", "/{stem}.npy"), model=dml.files("model")))
class predictions:  # noqa: N801  # the name is the repo's
    """One datum a file, the model resident. Not `batch=`: no contender puts two files through the forest at once."""

    def __init__(self, model: Path) -> None:
        self.model = load_model(model / "model.joblib")

    def __call__(self, scans: bytes, stem: str) -> dml.Files:
        """Label one file."""
        return {f"{stem}.csv": score(self.model, scans)}
