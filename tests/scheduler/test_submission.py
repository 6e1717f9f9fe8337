"""What a submission records: new, changed and why, cosmetic, same, orphans; what it refuses."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from dmlpipe.scheduler.report import Submitted
from dmlpipe.scheduler.store import Store
from dmlpipe.storage.errors import DmlpipeError, ErrorCode
from dmlpipe.storage.gc.run import collect
from dmlpipe.storage.sync.transfer import clone
from dmlpipe.storage.trees.codetree import read_code

_names = itertools.count()

DAG = '''
import dmlpipe as dml

dag = dml.DAG("{dag}")


@dag.pipeline(dml.files("texts", "/{{stem}}"))
def {name}(texts: bytes, stem: str, *, least: int = {least}) -> dml.Files:
    """Doc."""
    return {{stem: texts[{least}:]}}{remark}
'''


@pytest.fixture
def store() -> Store:
    found = Store.init(f"memory://submission-{next(_names)}")
    found.create_repo("texts")
    return found


def write(folder: Path, *, dag: str = "d", name: str = "cut", least: int = 1, remark: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "dag.py"
    path.write_text(DAG.format(dag=dag, name=name, least=least, remark=remark))
    return path


def only(submitted: list[Submitted]) -> Submitted:
    (found,) = submitted
    return found


def test_a_file_is_new_then_same_then_cosmetic_then_changed(store: Store, tmp_path: Path) -> None:
    assert only(store.submit(write(tmp_path))).status == "new"
    before = store.refresh().n
    assert only(store.submit(write(tmp_path))).status == "same"
    assert only(store.submit(write(tmp_path), dry_run=True)).status == "same"
    assert store.refresh().n == before
    cosmetic = only(store.submit(write(tmp_path, remark="  # a remark")))
    assert (cosmetic.status, cosmetic.version) == ("cosmetic", 2)
    assert store.plan(write(tmp_path, remark="  # another"))["cut"].change == "cosmetic"
    assert store.plan(write(tmp_path, remark="  # a remark"))["cut"].change == ""
    changed = only(store.submit(write(tmp_path, least=2)))
    assert (changed.status, changed.version) == ("changed", 3)
    assert "code changed: cut(), dag.py:" in changed.why[0]
    assert "least: 1 -> 2" in changed.why[1]


def test_a_parameter_given_at_submit_is_a_change(store: Store, tmp_path: Path) -> None:
    store.submit(write(tmp_path))
    changed = only(store.submit(write(tmp_path), params={"cut": {"least": 5}}))
    assert changed.why == ("parameter changed: least: 1 -> 5",)
    assert store.pipeline_spec("cut").parameters == {"least": 5}
    assert store.pipeline_spec("cut", 1).parameters == {"least": 1}


def test_a_dry_run_writes_nothing(store: Store, tmp_path: Path) -> None:
    before = store.refresh().n
    writes = store.nodes.writes
    assert only(store.submit(write(tmp_path), dry_run=True)).status == "new"
    assert store.refresh().n == before
    assert store.nodes.writes == writes


def test_pipelines_that_left_their_dag_are_orphans_until_pruned(store: Store, tmp_path: Path) -> None:
    store.submit(write(tmp_path))
    states = {found.name: found.status for found in store.submit(write(tmp_path, name="other"))}
    assert states == {"other": "new", "cut": "orphan"}
    states = {found.name: found.status for found in store.submit(write(tmp_path, name="other"), prune=True)}
    assert states == {"other": "same", "cut": "pruned"}
    assert [name for name, _ in store.state.pipelines()] == ["other"]


def test_a_name_owned_by_another_dag_is_refused(store: Store, tmp_path: Path) -> None:
    store.submit(write(tmp_path / "a"))
    with pytest.raises(DmlpipeError, match="belongs to DAG 'd', not to 'e'") as caught:
        store.submit(write(tmp_path / "b", dag="e"))
    assert caught.value.code == ErrorCode.NAME_CLASH


def test_reprocess_computes_everything_again(store: Store, tmp_path: Path) -> None:
    store.submit(write(tmp_path))
    assert only(store.submit(write(tmp_path), reprocess=True)).why == ("forced",)
    # The salt stays with the pipeline until the next reprocess.
    assert only(store.submit(write(tmp_path))).status == "same"


@pytest.mark.parametrize("kind", ["command", "function"])
def test_what_an_environment_is_made_from_outlives_a_collection_and_is_cloned(tmp_path: Path, kind: str) -> None:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    store.create_repo("texts")
    lock = "a==1 " + "# " + "x" * 300
    (tmp_path / "dag").mkdir()
    (tmp_path / "dag" / "needs.txt").write_text(lock)
    path = write(tmp_path / "dag")
    if kind == "function":
        path.write_text(path.read_text().replace('"/{stem}"))', '"/{stem}"), env="needs.txt")'))
    else:
        call = 'dag.command("cut", "x", dml.files("texts"), env="needs.txt")'
        path.write_text(f'import dmlpipe as dml\ndag = dml.DAG("d")\n{call}\n')
    store.submit(path)
    transform = store.pipeline_spec("cut").transform
    assert transform.environment is not None
    collect(store, grace_s=0.0)
    clone(store.backend, str(tmp_path / "copy"))
    for each in (store, Store.open(tmp_path / "copy", cache_dir=tmp_path / "cache2")):
        found = {file: data for file, data, _ in read_code(each.tree(transform.environment.tree), each.objects)}
        assert found == {"needs.txt": lock.encode()}
