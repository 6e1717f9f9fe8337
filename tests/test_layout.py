"""The layers are links to the folders at the root, and nothing imports them by another name (docs/adr/0001)."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dmlpipe
from dmlpipe.storage.backend.remote import _EXTRAS

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("benchmarks", "cli", "scheduler", "storage", "worker")


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_is_the_folder_at_the_root(layer: str) -> None:
    package = Path(dmlpipe.__path__[0]) / layer
    assert package.is_symlink(), f"{package} is no link: this checkout lost its links (git config core.symlinks true)"
    assert package.resolve() == ROOT / layer


def test_no_layer_is_imported_by_its_bare_name() -> None:
    code = f"""
import importlib, pkgutil, sys
import dmlpipe
for found in pkgutil.walk_packages(dmlpipe.__path__, "dmlpipe."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
bare = [name for name in sys.modules if name.split(".")[0] in {LAYERS!r}]
assert not bare, bare
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_module_refuses_its_bare_name() -> None:
    code = "import scheduler.errors"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "beyond top-level package" in done.stderr


def test_the_example_is_what_the_demo_runs() -> None:
    from dmlpipe.cli.demo.story import dag_text

    assert dag_text() == (ROOT / "examples" / "digits" / "dag.py").read_text()


def test_every_extra_that_is_spoken_of_can_be_installed() -> None:
    """In messages, in documents and in the Makefile: `dmlpipe[name]` and `.[name]`."""
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    spoken: dict[str, set[str]] = {}
    files = [ROOT / "Makefile", ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    files += [path for layer in LAYERS for path in (ROOT / layer).rglob("*.py")]
    for path in files:
        for names in re.findall(r"(?:dmlpipe|'\.)\[([a-z][a-z, -]*)\]", path.read_text()):
            for name in names.split(","):
                spoken.setdefault(name.strip(), set()).add(path.name)
    assert {*_EXTRAS.values()} <= declared
    assert {name: places for name, places in spoken.items() if name not in declared} == {}
