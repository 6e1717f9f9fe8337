from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest

from dmlpipe.scheduler.store import Store
from dmlpipe.scheduler.trial import Trial
from dmlpipe.storage.errors import InvalidInputError, NotFoundError

DAG = """
import dmlpipe as dml
dag = dml.DAG("letters")

@dag.pipeline(dml.files("texts", "/{stem}.txt"))
def upper(texts: bytes, stem: str, *, tail: str = "!") -> dml.Files:
    return {f"{stem}.up": texts.upper() + tail.encode()}

@dag.pipeline(dml.cross(dml.files("upper"), dml.values(n=[1, 2])))
def joined(upper: dml.Path, n: int) -> dml.Files:
    return {f"{n}": "x"}
""".replace("dml.Path", "Path").replace("import dmlpipe", "from pathlib import Path\nimport dmlpipe")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "trydag.py"
    path.write_text(DAG)
    yield path
    sys.modules.pop("trydag", None)


@pytest.fixture
def store(tmp_path: Path, file: Path) -> Store:
    store = Store.init(f"memory://{uuid.uuid4().hex}", cache_dir=tmp_path / "cache")
    with store.commit("texts") as session:
        for letter in "abcde":
            session.write(f"{letter}.txt", letter)
    store.submit(file)
    return store


def objects(store: Store) -> list[tuple[str, int]]:
    return list(store.backend.list())


def test_a_trial_runs_real_inputs_and_writes_nothing(store: Store, tmp_path: Path) -> None:
    before = objects(store)
    result = Trial(store).run("upper", sample=2, keep=tmp_path / "out")
    assert result.ok
    assert (result.total, len(result.datums)) == (5, 2)
    assert result.datums[0].shown == "texts:/a.txt"
    assert result.datums[0].outputs == (("a.up", 2),)
    assert (tmp_path / "out" / "a.up").read_bytes() == b"A!"
    assert objects(store) == before
    assert store.refresh().head("upper") is None


def test_a_trial_hands_over_outputs_of_any_size(store: Store, file: Path, tmp_path: Path) -> None:
    sizes = {"small": 3_000, "whole": 2_000_000, "pieces": 20_000_000}
    file.write_text(
        DAG.replace('{f"{stem}.up": texts.upper() + tail.encode()}', f"{{k: bytes(n) for k, n in {sizes}.items()}}")
    )
    assert Trial(store, file).run("upper", keep=tmp_path / "out").ok
    assert {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()} == sizes


def test_a_trial_takes_the_files_present_code(store: Store, file: Path, tmp_path: Path) -> None:
    file.write_text(DAG.replace("texts.upper()", "texts * 3"))
    before = objects(store)
    Trial(store, file, params={"upper": {"tail": "?"}}).run("upper", datum="texts:/b.txt", keep=tmp_path / "out")
    assert (tmp_path / "out" / "b.up").read_bytes() == b"bbb?"
    assert objects(store) == before


def test_parameters_of_what_is_recorded_can_be_set(store: Store, tmp_path: Path) -> None:
    Trial(store, params={"upper": {"tail": "."}}).run("upper", keep=tmp_path / "out")
    assert (tmp_path / "out" / "a.up").read_bytes() == b"A."
    with pytest.raises(NotFoundError, match="no parameter 'tial'"):
        Trial(store, params={"upper": {"tial": "."}}).run("upper")


def test_the_debugger_opens_where_it_fails(store: Store, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(DAG.replace("    return {f", "    raise ValueError(stem)\n    return {f", 1))
    seen: list[str] = []

    def look(trace: TracebackType) -> None:
        while trace.tb_next is not None:
            trace = trace.tb_next
        seen.append(trace.tb_frame.f_locals["stem"])

    monkeypatch.setattr("pdb.post_mortem", look)
    result = Trial(store, file).run("upper", datum="texts:/c.txt", debug=True)
    assert seen == ["c"]
    assert not result.ok
    assert result.datums[0].to_dict()["failure"]["kind"] == "ValueError"


def test_leaving_the_debugger_at_a_breakpoint_ends_the_trial(store: Store, file: Path) -> None:
    file.write_text(DAG.replace("    return {f", "    import bdb\n    raise bdb.BdbQuit\n    return {f", 1))
    with pytest.raises(KeyboardInterrupt):
        Trial(store, file).run("upper")


@pytest.mark.parametrize("name", ["'all'", "'all' if stem == 'a' else 'all/b'"])
def test_two_datums_that_write_one_path_fail_as_their_job_would(store: Store, file: Path, name: str) -> None:
    file.write_text(DAG.replace('f"{stem}.up"', name))
    result = Trial(store, file).run("upper", sample=2)
    assert [each.outcome for each in result.datums] == ["ok", "failed"]
    failure = result.datums[1].failure
    assert failure is not None
    assert failure.message.endswith("where texts:/a.txt wrote, too")


def test_a_datum_is_named_by_its_id(store: Store) -> None:
    [first] = Trial(store).run("upper").datums
    assert [each.id for each in Trial(store).run("upper", datum=first.id[:8]).datums] == [first.id]


def test_what_cannot_be_tried_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no datum 'texts:/z"):
        Trial(store).run("upper", datum="texts:/z.txt")
    with pytest.raises(NotFoundError, match="joined reads upper@master, which has no commit"):
        Trial(store).run("joined")
    with pytest.raises(NotFoundError, match="no pipeline 'uper'"):
        Trial(store).run("uper")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidInputError, match="is not an empty folder"):
        Trial(store).run("upper", keep=tmp_path)
