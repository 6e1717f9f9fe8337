"""Magika says what kind each of a folder's files is; one datum a file, the model resident.

The model is the one that the package carries, put into the repo `model`: `why` leads from a label to its bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dmlpipe as dml

ITEMS = "items"

dag = dml.DAG("inference")


def load_model(folder: Path) -> Any:
    """Load the model, once per process, with one thread: slots are what runs in parallel."""
    import onnxruntime
    from magika import Magika

    class OneThread(Magika):
        def _init_onnx_session(self) -> Any:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            return onnxruntime.InferenceSession(self._model_path, options, providers=["CPUExecutionProvider"])

    return OneThread(model_dir=folder)


def score(model: Any, item: bytes) -> str:
    """Say what a file is: a line `label,mime type,score`."""
    found = model.identify_bytes(item)
    return f"{found.output.label},{found.output.mime_type},{found.score:.3f}\n"


@dag.pipeline(dml.cross(item=dml.files(ITEMS, "/{stem}"), model=dml.files("model")))
class predictions:  # noqa: N801  # the name is the repo's
    """Resident."""

    def __init__(self, model: Path, *, point: str = "") -> None:
        self.model = load_model(model)

    def __call__(self, item: bytes, stem: str) -> dml.Files:
        """Label one file."""
        return {f"{stem}.txt": score(self.model, item)}
