"""The golden corpus: equal ids on Python 3.11, 3.12 and 3.13, and under 20 hash seeds.

Other Pythons need nothing installed: what makes the bytes is the standard library alone, and a stand-in hashes them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dmlpipe.scheduler.identity.code import python_identity
from dmlpipe.scheduler.identity.source import Project
from dmlpipe.scheduler.pipelines.fresh import FreshModules

ROOT = Path(__file__).resolve().parents[3]
CORPUS = ROOT / "tests" / "data" / "identity"
VERSIONS = ("3.11", "3.12", "3.13")
SEEDS = 20

_SCRIPT = """
import hashlib, json, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from dmlpipe.scheduler.identity.encode import frame
from dmlpipe.scheduler.identity.reach import reach
from dmlpipe.scheduler.identity.source import Project
folder = Path(sys.argv[2]).resolve()
import corpus
ids = {}
for transform in corpus.TRANSFORMS:
    found = reach(transform, Project(folder, (folder,)))
    body = frame("", *[frame(entry.key, entry.body) for entry in found.entries])
    key = f"{transform.__qualname__} {len(ids)}"
    ids[key] = [hashlib.sha256(body).hexdigest(), [entry.name for entry in found.entries], list(found.whole_modules)]
foreign = {"blake3", "msgspec", "numpy", "zstandard"} & set(sys.modules)
assert not foreign, foreign
print(json.dumps(ids))
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def write_corpus(folder: Path) -> Path:
    for file in CORPUS.glob("*.py.txt"):
        (folder / file.name.removesuffix(".txt")).write_bytes(file.read_bytes())
    return folder


def interpreter(version: str) -> str | None:
    """A Python of that minor version on this machine."""
    if sys.version_info[:2] == tuple(int(part) for part in version.split(".")):
        return sys.executable
    kept = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    return str(kept[-1]) if kept else shutil.which(f"python{version}")


def ids_by(python: str, corpus: Path, *, seed: int = 0) -> dict[str, object]:
    done = subprocess.run(
        [python, "-B", "-W", "ignore", "-c", _SCRIPT, str(ROOT / "src"), str(corpus)],
        env={"PYTHONHASHSEED": str(seed), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def code_ids(folder: Path) -> dict[str, str]:
    modules = FreshModules(folder, folder)
    with modules.active():
        import corpus as loaded  # type: ignore[import-not-found]

        project = Project(folder, (folder,), modules.texts)
        return {
            f"{transform.__qualname__} {position}": python_identity(transform, project).code_id
            for position, transform in enumerate(loaded.TRANSFORMS)
        }


def test_the_corpus_has_the_ids_that_were_written_down(corpus: Path) -> None:
    expected = json.loads((CORPUS / "ids.json").read_text())
    assert len(expected) >= 15
    assert code_ids(corpus) == expected


def test_transforms_that_differ_have_different_ids(corpus: Path) -> None:
    found = code_ids(corpus)
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_python_yields_the_same_bytes(corpus: Path, version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    assert ids_by(python, corpus) == ids_by(sys.executable, corpus)


def test_hash_seeds_change_nothing(corpus: Path) -> None:
    first = ids_by(sys.executable, corpus, seed=0)
    assert all(ids_by(sys.executable, corpus, seed=seed) == first for seed in range(1, SEEDS))


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        ids = code_ids(write_corpus(Path(name).resolve()))
    (CORPUS / "ids.json").write_text(json.dumps(ids, indent=1) + "\n")
