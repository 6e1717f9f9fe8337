from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import pytest

from dmlpipe.scheduler.pipelines.load import load_dags
from dmlpipe.storage.errors import ErrorCode, InvalidInputError, NotFoundError, UserCodeError
from dmlpipe.worker.job import PythonTransform
from tests.scheduler.dag_files import HEAD, Bundles, build_one, write

MODEL = "@dag.pipeline(dml.files('a'))\ndef model(a: Path) -> dml.Files:\n    return {'x': str(go())}\n"
USES = HEAD + "from features import go\n" + MODEL


def test_every_top_level_dag_is_found_in_order(tmp_path: Path) -> None:
    text = "import dmlpipe as dml\nb = dml.DAG('second')\na = dml.DAG('first')\nsame = b\ndef f(): dml.DAG('inner')\n"
    assert [dag.name for dag in load_dags(write(tmp_path, {"dag.py": text}))] == ["second", "first"]


def test_edits_are_seen_even_within_one_tick_of_the_clock(tmp_path: Path) -> None:
    features = tmp_path / "features.py"
    before = build_one(tmp_path, {"dag.py": USES, "features.py": "def go(): return 1\n"})
    times = features.stat()
    features.write_text("def go(): return 2\n")
    os.utime(features, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert build_one(tmp_path, {}).code_id != before.code_id


def test_nothing_is_written_beside_the_file(tmp_path: Path) -> None:
    build_one(tmp_path, {"dag.py": USES, "features.py": "def go(): return 1\n"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dag.py", "features.py"]


def test_two_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / side, {"dag.py": USES, "features.py": f"def go(): return {side!r}\n"}) for side in ("a", "b")
    ]
    dags = [load_dags(path)[0] for path in paths]
    bundles = Bundles()
    for dag, side in zip(dags, ("a", "b"), strict=True):
        (spec,) = dag.build(put_bundle=bundles.put)
        assert bundles.kept[spec.bundle]["features.py"][0] == f"def go(): return {side!r}\n".encode()
        assert isinstance(spec.transform, PythonTransform)
        assert not spec.transform.pickled


def test_modules_of_the_process_are_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = types.ModuleType("of_the_process")
    monkeypatch.setitem(sys.modules, "of_the_process", mine)
    text = USES.replace("features", "of_the_process")
    spec = build_one(tmp_path, {"dag.py": text, "of_the_process.py": "def go(): return 1\n"})
    assert sys.modules["of_the_process"] is mine
    assert [item.name for item in spec.definitions] == ["dag.model", "of_the_process.go"]


def test_a_module_that_imports_others_when_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(types.ModuleType):
        @property
        def __file__(self) -> str:  # type: ignore[override]
            monkeypatch.setitem(sys.modules, f"imported_{len(sys.modules)}", types.ModuleType("imported"))
            return "/no/such/lazy.py"

    monkeypatch.setitem(sys.modules, "lazy_module", Lazy("lazy_module"))
    (found,) = load_dags(write(tmp_path, {"dag.py": HEAD}))
    assert found.name


def test_functions_can_import_when_they_are_called(tmp_path: Path) -> None:
    text = HEAD + MODEL.replace("    return", "    from features import go\n    return")
    (dag,) = load_dags(write(tmp_path, {"dag.py": text, "features.py": "def go(): return 5\n"}))
    model = dag.pipelines["model"].transform
    assert not isinstance(model, tuple)
    assert model(a=tmp_path) == {"x": "5"}  # type: ignore[operator]


# --- errors -----------------------------------------------------------------------------------------------------


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"dag.py: no such file"):
        load_dags(tmp_path / "dag.py")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dag.txt", "", "dag.txt is no Python file"),
        ("dag.v2.py", "", "a module's name has no dot"),
        ("dag.py", "x = 1\n", "dag.py defines no DAG"),
    ],
)
def test_a_file_that_is_no_dag_file(tmp_path: Path, name: str, text: str, message: str) -> None:
    write(tmp_path, {name: text})
    with pytest.raises(InvalidInputError, match=message) as caught:
        load_dags(tmp_path / name)
    assert caught.value.code is ErrorCode.BAD_SPEC


def test_an_error_is_cut_to_the_users_frames(tmp_path: Path) -> None:
    text = "from features import go\n\ngo()\n"
    path = write(tmp_path, {"dag.py": text, "features.py": "import json\ndef go():\n    return json.loads('{')\n"})
    with pytest.raises(UserCodeError) as caught:
        load_dags(path)
    assert str(caught.value).startswith("features.py:3: json.decoder.JSONDecodeError: Expecting property name")
    assert caught.value.hint == ("dag.py:3 in <module>    go()\nfeatures.py:3 in go    return json.loads('{')")
    assert caught.value.code is ErrorCode.BAD_CODE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import dmlpipe\nx = (1,\n", r"^dag.py:2: SyntaxError: '\(' was never closed"),
        ("import nobody_has_this\n", r"^dag.py:1: ModuleNotFoundError: No module named 'nobody_has_this'"),
        ("raise SystemExit(3)\n", r"^dag.py:1: SystemExit: 3"),
        ("\n\n1 / 0\n", r"^dag.py:3: ZeroDivisionError: division by zero"),
    ],
)
def test_a_file_that_does_not_run_says_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserCodeError, match=message):
        load_dags(write(tmp_path, {"dag.py": text}))


def test_a_wrong_declaration_keeps_its_code_and_gets_the_place(tmp_path: Path) -> None:
    text = HEAD + "\n@dag.pipeline(dml.files('a'))\ndef model(b: Path) -> dml.Files: ...\n"
    with pytest.raises(InvalidInputError, match=r"^dag.py:5: model\(\): nothing comes in for parameter 'b'") as caught:
        load_dags(write(tmp_path, {"dag.py": text}))
    assert caught.value.code is ErrorCode.BAD_SPEC


def test_a_failed_load_leaves_nothing_behind(tmp_path: Path) -> None:
    path = write(tmp_path, {"dag.py": "import features\n1 / 0\n", "features.py": "x = 1\n"})
    with pytest.raises(UserCodeError):
        load_dags(path)
    path.write_text(USES)
    (tmp_path / "features.py").write_text("def go(): return 1\n")
    assert [dag.name for dag in load_dags(path)] == ["d"]
