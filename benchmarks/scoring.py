"""The work that every contender does: one file of scans through a resident classifier.

All contenders call these two functions, so that what differs is who calls them.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import joblib
import numpy as np


def load_model(path: Path) -> Any:
    """Load the classifier, once per process."""
    return joblib.load(path)


def score(model: Any, scans: bytes) -> str:
    """Label every scan of one file.

    Parameters
    ----------
    scans
        An .npy file of shape (items, 64), uint8.

    Returns
    -------
    str
        A line `label,probability` for each scan, in order.
    """
    found = model.predict_proba(np.load(io.BytesIO(scans)))
    best = found.argmax(axis=1)
    return "".join(f"{label},{row[label]:.4f}\n" for label, row in zip(best, found, strict=True))
