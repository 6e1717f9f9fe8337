"""DAG files for tests: written, loaded, built."""

from __future__ import annotations

import textwrap
from pathlib import Path

from dmlpipe.scheduler.pipelines.load import load_dags
from dmlpipe.scheduler.pipelines.spec import PipelineSpec
from dmlpipe.storage.digest import digest

HEAD = "from pathlib import Path\nimport dmlpipe as dml\ndag = dml.DAG('d')\n"


class Bundles:
    """Keeps what `put_bundle` is given."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, tuple[bytes, int]]] = {}

    def put(self, files: dict[str, tuple[bytes, int]]) -> str:
        """Name the files by their content."""
        name = digest(repr(sorted(files.items())).encode()).hex()
        self.kept[name] = files
        return name


def write(folder: Path, files: dict[str, str]) -> Path:
    """Write files (dedented) and return the path of `dag.py`."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder / "dag.py"


def build(folder: Path, files: dict[str, str], bundles: Bundles | None = None) -> dict[str, PipelineSpec]:
    """Write, load and build; the specs by name."""
    (dag,) = load_dags(write(folder, files))
    return {spec.name: spec for spec in dag.build(put_bundle=(bundles or Bundles()).put)}


def build_one(folder: Path, files: dict[str, str], bundles: Bundles | None = None) -> PipelineSpec:
    """The only spec of `build`."""
    (spec,) = build(folder, files, bundles).values()
    return spec
