"""What counts as a whole, what is refused, what is left out."""

from __future__ import annotations

import linecache
import textwrap
from pathlib import Path

import pytest

from dmlpipe.scheduler.inputs.leaf import files
from dmlpipe.scheduler.pipelines.dag import DAG
from dmlpipe.storage.errors import ErrorCode, InvalidInputError
from tests.scheduler.dag_files import HEAD, Bundles, build, build_one

TAIL = "@dag.pipeline(dml.files('a'))\ndef model(a: Path) -> dml.Files:\n    return {'x': str(%s)}\n"


def one(folder: Path, before: str, used: str, **others: str) -> tuple[str, tuple[str, ...]]:
    """Code id and whole modules of a pipeline that uses an expression."""
    modules = {f"{name}.py": text for name, text in others.items()}
    spec = build_one(folder, {"dag.py": HEAD + textwrap.dedent(before) + "\n" + TAIL % used, **modules})
    return spec.code_id, spec.whole_modules


# --- whole modules ----------------------------------------------------------------------------------------------

WHOLE = [
    ("attribute of a module", "import features", "features.load()", "features: attribute 'load' is taken from it"),
    ("a module as a value", "import features\ndef f(m): return m", "f(features)", "features: used as a value"),
    ("a star", "from features import *", "load()", "features: import *"),
    ("getattr", "", "getattr(a, 'name')", "dag: getattr() in model"),
    ("exec", "", "exec('1')", "dag: exec() in model"),
    ("importlib", "import importlib", "importlib.import_module('features')", "dag: importlib in model"),
    ("an unknown name", "", "nobody", "dag: 'nobody' cannot be resolved in model"),
    ("a name deleted later", "x = 1\ndel x", "x", "dag: 'x' cannot be resolved in model"),
]


@pytest.mark.parametrize(("before", "used", "expected"), [row[1:] for row in WHOLE], ids=[row[0] for row in WHOLE])
def test_what_names_cannot_show_makes_the_whole_module_count(
    tmp_path: Path, before: str, used: str, expected: str
) -> None:
    features = "def load(): return 1\ndef aside(): return {}\n"
    first = one(tmp_path / "1", before, used, features=features.format(1))
    other_module = one(tmp_path / "2", before, used, features=features.format(2))
    other_dag = one(tmp_path / "3", before + "\nunused = 1", used, features=features.format(1))
    assert expected in first[1]
    counts = expected.partition(":")[0]
    assert (first[0] == other_module[0]) == (counts == "dag")
    assert (first[0] == other_dag[0]) == (counts != "dag")


def test_a_docstring_of_a_whole_module_does_not_count(tmp_path: Path) -> None:
    first = one(tmp_path / "1", "import features", "features.load()", features='"""A."""\ndef load(): return 1\n')
    second = one(tmp_path / "2", "import features", "features.load()", features="def load():\n    return 1  # b\n")
    assert first == second


def test_what_a_whole_module_imports_counts(tmp_path: Path) -> None:
    features = "from steps import go\ndef load(): return go()\n"
    first = one(tmp_path / "1", "import features", "features.load()", features=features, steps="def go(): return 1")
    second = one(tmp_path / "2", "import features", "features.load()", features=features, steps="def go(): return 2")
    assert first[0] != second[0]


def test_a_submodule_counts_as_a_whole_and_third_party_code_does_not(tmp_path: Path) -> None:
    files = {"package/__init__.py": "", "package/inner.py": "def go(): return 1\n"}
    text = HEAD + "import package.inner, json\n" + TAIL % "package.inner.go(), json.dumps(1)"
    spec = build_one(tmp_path, {"dag.py": text, **files})
    assert [line.partition(":")[0] for line in spec.whole_modules] == ["package", "package.inner"]


# --- refusals ---------------------------------------------------------------------------------------------------

REFUSED = [
    ("open('/dev/null')", "global 'x' (TextIOWrapper)"),
    ("iter([1])", "global 'x' (list_iterator)"),
    ("[1, object()]", "global 'x' (list, which holds an object)"),
    ("(i for i in [1])", "global 'x' (generator)"),
    ("__import__('random').Random(1)", "global 'x' (Random)"),
]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(("value", "expected"), REFUSED)
def test_a_global_that_cannot_be_encoded_is_refused_by_name(tmp_path: Path, value: str, expected: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        one(tmp_path, f"x = {value}", "x")
    assert caught.value.code is ErrorCode.BAD_CODE
    assert str(caught.value) == f"model() uses {expected}: pass it as a parameter or an input"


def test_a_refusal_says_which_helper_and_where(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"load\(\) \(features.py:2\) uses global 'x' \(object\)"):
        one(tmp_path, "from features import load", "load()", features="x = object()\ndef load(): return x\n")


def test_a_closure_that_cannot_be_encoded_is_refused_by_name(tmp_path: Path) -> None:
    text = """
        def make(x):
            def load(): return x
            return load
        load = make(object())
        """
    with pytest.raises(InvalidInputError, match="variable 'x' of the function around it"):
        one(tmp_path, text, "load()")


def test_a_default_that_cannot_be_encoded_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="the default of 'x'"):
        one(tmp_path, "def load(x=object()): return x", "load()")


@pytest.mark.parametrize(
    "value",
    [
        "__import__('logging').getLogger('a')",
        "__import__('threading').Lock()",
        "[1, (2.0, {'a': {3}})]",
        "__import__('functools').partial(int, base=2)",
        "int | None",
        "list[int]",
        "Path('a')",
        "len",
        "'abc'.upper",
        "dml",
        "dag",
    ],
)
def test_values_that_are_plain_or_named_are_taken(tmp_path: Path, value: str) -> None:
    first = one(tmp_path / "1", f"x = {value}", "x")
    assert first == one(tmp_path / "2", f"x = {value}", "x")
    assert first[1] == ()


def test_numpy_constants_count_by_value(tmp_path: Path) -> None:
    first, second, third = (
        one(tmp_path / str(number), f"import numpy as np\nMEAN = np.array({value})", "MEAN + np.pi")
        for number, value in enumerate(["[0.5, 1.0]", "[0.5, 1]", "[0.5, 1.5]"])
    )
    assert first == second != third


def test_instances_of_the_users_classes_count_by_attributes(tmp_path: Path) -> None:
    text = """
        import dataclasses
        @dataclasses.dataclass
        class Config:
            rate: float
        class Slotted:
            __slots__ = ("a",)
            def __init__(self, a): self.a = a
        CONFIG, SLOTTED = Config({}), Slotted({})
        """
    ids = {
        one(tmp_path / str(number), text.format(*values), "CONFIG, SLOTTED")[0]
        for number, values in enumerate([(1.0, 1), (2.0, 1), (1.0, 2), (1.0, 1)])
    }
    assert len(ids) == 3


# --- options ----------------------------------------------------------------------------------------------------


def test_included_files_count_by_content_and_go_along(tmp_path: Path) -> None:
    text = HEAD + (TAIL % "1").replace("dml.files('a')", "dml.files('a'), include=['labels', '*.csv']")
    bundles = Bundles()
    before = build_one(tmp_path, {"dag.py": text, "labels/a.txt": "a", "b.csv": "b"}, bundles)
    assert set(bundles.kept[before.bundle]) == {"dag.py", "labels/a.txt", "b.csv"}
    after = build_one(tmp_path, {"labels/a.txt": "c"})
    assert after.code_id != before.code_id
    assert [new.name for new, old in zip(after.definitions, before.definitions, strict=True) if new != old] == [
        "labels/a.txt"
    ]


def test_a_version_stands_for_the_code(tmp_path: Path) -> None:
    text = HEAD + "x = object()\n" + (TAIL % "x").replace("dml.files('a')", "dml.files('a'), version='3'")
    before = build_one(tmp_path / "1", {"dag.py": text})
    assert before.code_id == build_one(tmp_path / "2", {"dag.py": text.replace("str(x)", "str(x) * 2")}).code_id
    assert before.code_id != build_one(tmp_path / "3", {"dag.py": text.replace("'3'", "'4'")}).code_id


def test_two_declared_versions_of_different_functions_differ(tmp_path: Path) -> None:
    text = HEAD + (TAIL % "1").replace("dml.files('a')", "dml.files('a'), version='1'")
    specs = build(tmp_path, {"dag.py": text + (text.removeprefix(HEAD)).replace("def model", "def other")})
    assert specs["model"].code_id != specs["other"].code_id


# --- code without a file ----------------------------------------------------------------------------------------


def run_cell(number: int, text: str, namespace: dict[str, object]) -> None:
    """What a notebook does with a cell."""
    name = f"<ipython-input-{number}-{id(namespace)}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(textwrap.dedent(text), name, "exec"), namespace)


def notebook(second: str) -> DAG:
    namespace: dict[str, object] = {"__name__": "__main__", "dag": DAG("n"), "files": files}
    run_cell(1, "from pathlib import Path\nSCALE = 2\ndef helper(x):\n    return x * SCALE\n", namespace)
    run_cell(2, second, namespace)
    dag = namespace["dag"]
    assert isinstance(dag, DAG)
    return dag


CELL = "@dag.pipeline(files('a'))\ndef model(a: Path) -> dict[str, str]:\n    return {'x': str(helper(1))}\n"


def test_a_notebook_cell_is_identified_by_its_source_and_sent_as_a_pickle() -> None:
    bundles = Bundles()
    (spec,) = notebook(CELL).build(put_bundle=bundles.put)
    (again,) = notebook("# a comment\n" + CELL).build(put_bundle=bundles.put)
    (other,) = notebook(CELL.replace("helper(1)", "helper(2)")).build(put_bundle=bundles.put)
    assert spec.code_id == again.code_id != other.code_id
    assert [item.name for item in spec.definitions] == ["model", "SCALE", "helper"]
    python = spec.transform
    assert python.pickled  # type: ignore[union-attr]
    assert python.pickled_python.startswith("3.")  # type: ignore[union-attr]
    assert list(bundles.kept[spec.bundle]) == [f".dmlpipe/{python.pickled}.pkl"]  # type: ignore[union-attr]


def test_code_without_source_is_refused_unless_it_has_a_version() -> None:
    namespace: dict[str, object] = {"__name__": "__main__", "Path": Path}
    exec("def model(a: Path) -> dict[str, str]: ...", namespace)
    dag = DAG("d")
    dag.pipeline(files("a"))(namespace["model"])  # type: ignore[type-var]
    with pytest.raises(InvalidInputError, match="has no source code") as caught:
        dag.build(put_bundle=Bundles().put)
    assert caught.value.code is ErrorCode.BAD_CODE
    versioned = DAG("d")
    versioned.pipeline(files("a"), version="1")(namespace["model"])  # type: ignore[type-var]
    (spec,) = versioned.build(put_bundle=Bundles().put)
    assert spec.transform.pickled  # type: ignore[union-attr]


def test_closures_differ_by_what_they_close_over_and_are_pickled(tmp_path: Path) -> None:
    text = (
        HEAD
        + """
def make(factor, name):
    @dag.pipeline(dml.files("a"), name=name)
    def scaled(a: Path) -> dml.Files:
        return {"x": str(factor)}
make(1, "one"); make(2, "two"); make(1, "uno")
dag.pipeline(dml.files("a"), name="nameless", version="1")
"""
    )
    specs = build(tmp_path, {"dag.py": text})
    assert specs["one"].code_id == specs["uno"].code_id != specs["two"].code_id
    assert all(spec.transform.pickled for spec in specs.values())  # type: ignore[union-attr]


def test_a_file_that_changed_after_its_import_still_counts_as_it_was_imported(tmp_path: Path) -> None:
    from dmlpipe.scheduler.pipelines.load import load_dags
    from tests.scheduler.dag_files import write

    path = write(tmp_path, {"dag.py": HEAD + TAIL % "1"})
    (dag,) = load_dags(path)
    (before,) = dag.build(put_bundle=Bundles().put)
    path.write_text("\n\n\n" + path.read_text().replace("str(1)", "str(2)"))
    bundles = Bundles()
    (after,) = dag.build(put_bundle=bundles.put)
    assert after.code_id == before.code_id
    assert b"str(1)" in bundles.kept[after.bundle]["dag.py"][0]
