"""A table of edits: which change the code id of a pipeline, and which must not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scheduler.dag_files import build

DAG = '''\
"""A DAG."""
from __future__ import annotations
import re
from pathlib import Path
import dmlpipe as dml
from features import load, MEAN
from models import Model
from library.parts import scale as rescale

dag = dml.DAG("edits")
CLASSES = {"cat": 0, "dog": 1}
UNUSED = 1

def helper(x: float) -> float:
    """Help."""
    return x * 2  # twice

def unused(x):
    return x

def decorator(f):
    return f

@decorator
def decorated(x):
    return x

@dag.pipeline(dml.files("a", "/*"), timeout="1h")
def model(a: Path, *, C: float = 1.0) -> dml.Files:
    """Train."""
    from late import lately
    total = helper(load(a)) + MEAN + rescale(1) + decorated(1)
    label = f"{total:.2f} of {len(CLASSES)}"
    return {"m": label + str(Model().fit(total)) + lately()}

@dag.pipeline(dml.cross(dml.files("b"), dml.files("model")))
class predict:
    limit = 3

    def __init__(self, model: Path) -> None:
        self.model = model

    def __call__(self, b: Path, *, top: int = 1) -> dml.Files:
        return {"p": str(self.limit)}
'''

FILES = {
    "dag.py": DAG,
    "features.py": """\
MEAN = 0.5
STD = 2.0

def load(path):
    return _read(path) / STD

def _read(path):
    return 1.0

def other():
    return 0
""",
    "models.py": """\
from base import Base

class Model(Base):
    depth: int = 3

    def fit(self, x):
        return self.inner(x)
""",
    "base.py": "class Base:\n    def inner(self, x):\n        return x\n\ndef aside():\n    return 1\n",
    "late.py": "def lately():\n    return 'l'\n\ndef never():\n    return 'n'\n",
    "library/__init__.py": "",
    "library/parts.py": "from .inner import factor\n\ndef scale(x):\n    return x * factor()\n",
    "library/inner.py": "def factor():\n    return 2\n",
    "unread.py": "x = 1\n",
}

# name, file, old text, new text
UNCHANGED = [
    ("a comment", "dag.py", "# twice", "# two times"),
    ("a docstring of the transform", "dag.py", '"""Train."""', '"""Train a model."""'),
    ("a docstring of a helper", "dag.py", '"""Help."""', ""),
    ("the module's docstring", "dag.py", '"""A DAG."""', '"""Another."""\n\n'),
    ("blank lines and layout", "dag.py", "x * 2  # twice", "(\n        x\n        * 2\n    )"),
    ("quotes", "dag.py", '"cat"', "'cat'"),
    ("a number written otherwise", "features.py", "0.5", "5e-1"),
    ("an unused function", "dag.py", "    return x\n\ndef decorator", "    return x + 1\n\ndef decorator"),
    ("an unused constant", "dag.py", "UNUSED = 1", "UNUSED = 2"),
    ("an unused import", "dag.py", "import re\n", "import os, re\n"),
    ("an unused function of a module", "features.py", "return 0", "return 5"),
    ("an unused function beside a base class", "base.py", "return 1", "return 7"),
    ("an unused function beside a late import", "late.py", "'n'", "'m'"),
    ("a module that is not imported", "unread.py", "1", "2"),
    ("how it is run", "dag.py", 'timeout="1h"', "timeout=5, tries=3, cpus=2"),
    ("the pipeline's name", "dag.py", 'timeout="1h"', 'name="renamed"'),
    ("the function's name", "dag.py", "def model(a", "def renamed(a"),
    ("the default of a parameter, which counts as its value", "dag.py", "C: float = 1.0", "C: float = 2.0"),
    ("an f-string cut otherwise", "dag.py", 'f"{total:.2f} of ', 'f"{total:.2f}" f" of '),
    ("the order of definitions", "features.py", "def other():\n    return 0\n", ""),
    ("a semicolon", "features.py", "MEAN = 0.5\nSTD", "MEAN = 0.5; STD"),
]

CHANGED = [
    ("the body", "dag.py", "total = helper", "total = 1 + helper"),
    ("a helper", "dag.py", "x * 2", "x * 3"),
    ("a helper's annotation", "dag.py", "def helper(x: float)", "def helper(x: int)"),
    ("an operator", "dag.py", "+ MEAN", "- MEAN"),
    ("a global's value", "dag.py", '"dog": 1', '"dog": 2'),
    ("the order of a dict", "dag.py", '{"cat": 0, "dog": 1}', '{"dog": 1, "cat": 0}'),
    ("an imported constant", "features.py", "0.5", "0.6"),
    ("a type of constant", "features.py", "STD = 2.0", "STD = 2"),
    ("a constant of a helper's module", "features.py", "STD = 2.0", "STD = 3.0"),
    ("a helper's helper", "features.py", "return 1.0", "return 1.5"),
    ("a method of a class", "models.py", "self.inner(x)", "self.inner(x) + 1"),
    ("the body of a class", "models.py", "depth: int = 3", "depth: int = 4"),
    ("a base class", "base.py", "        return x\n", "        return -x\n"),
    ("a late import", "late.py", "'l'", "'k'"),
    ("a relative import's target", "library/inner.py", "return 2", "return 3"),
    ("which function a name stands for", "dag.py", "import load, MEAN", "import other as load, MEAN"),
    ("a format", "dag.py", ":.2f", ":.3f"),
    (
        "a decorator's body",
        "dag.py",
        "def decorator(f):\n    return f",
        "def decorator(f):\n    return lambda x: f(x) + 1",
    ),
    ("a decorator left out", "dag.py", "@decorator\n", ""),
    ("an input's form", "dag.py", "def model(a: Path,", "def model(a: bytes,"),
    ("whether it is raised", "dag.py", "return x * 2", "raise ValueError(x)"),
]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("before")
    return {name: spec.code_id for name, spec in build(folder, FILES).items()}


def edited(folder: Path, file: str, old: str, new: str) -> dict[str, str]:
    assert FILES[file].count(old) >= 1, f"{old!r} is not in {file}"
    specs = build(folder, {**FILES, file: FILES[file].replace(old, new, 1)})
    return {name: spec.code_id for name, spec in specs.items()}


@pytest.mark.parametrize(("file", "old", "new"), [row[1:] for row in UNCHANGED], ids=[row[0] for row in UNCHANGED])
def test_edits_that_change_no_output_keep_the_code_id(
    tmp_path: Path, before: dict[str, str], file: str, old: str, new: str
) -> None:
    assert set(edited(tmp_path, file, old, new).values()) == set(before.values())


@pytest.mark.parametrize(("file", "old", "new"), [row[1:] for row in CHANGED], ids=[row[0] for row in CHANGED])
def test_edits_that_may_change_an_output_change_the_code_id_of_what_uses_them_alone(
    tmp_path: Path, before: dict[str, str], file: str, old: str, new: str
) -> None:
    after = edited(tmp_path, file, old, new)
    assert after["model"] != before["model"]
    assert after["predict"] == before["predict"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("limit = 3", "limit = 4"),
        ("self.model = model", "self.model = str(model)"),
        ('{"p": str', '{"q": str'),
    ],
)
def test_the_whole_body_of_a_class_counts(tmp_path: Path, before: dict[str, str], old: str, new: str) -> None:
    after = edited(tmp_path, "dag.py", old, new)
    assert after["predict"] != before["predict"]
    assert after["model"] == before["model"]


def test_the_default_of_a_class_parameter_is_its_value(tmp_path: Path, before: dict[str, str]) -> None:
    after = build(tmp_path, {**FILES, "dag.py": DAG.replace("top: int = 1", "top: int = 2")})
    assert after["predict"].code_id == before["predict"]
    assert after["predict"].parameters == {"top": 2}


def test_the_plan_can_say_where_code_changed(tmp_path: Path) -> None:
    old = build(tmp_path / "old", FILES)["model"]
    new = build(tmp_path / "new", {**FILES, "features.py": FILES["features.py"].replace("return 1.0", "return 1.5")})
    before = {item.name: item for item in old.definitions}
    changed = [item for item in new["model"].definitions if before[item.name].hash != item.hash]
    assert [(item.name, item.file, item.line) for item in changed] == [("features._read", "features.py", 7)]


def test_a_copied_file_has_the_same_code_ids(tmp_path: Path, before: dict[str, str]) -> None:
    files = {("copy_of_it.py" if name == "dag.py" else name): text for name, text in FILES.items()}
    from dmlpipe.scheduler.pipelines.load import load_dags
    from tests.scheduler.dag_files import Bundles, write

    write(tmp_path, files)
    (dag,) = load_dags(tmp_path / "copy_of_it.py")
    assert {spec.name: spec.code_id for spec in dag.build(put_bundle=Bundles().put)} == before
