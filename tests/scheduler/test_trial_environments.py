"""`try` in declared environments: real virtual environments, and a shell that stands in for environment modules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmlpipe import testing
from dmlpipe.scheduler.leases.inline import InlineExecutor
from dmlpipe.scheduler.pipelines.load import load_dags
from dmlpipe.scheduler.store import Store
from dmlpipe.scheduler.trial import Trial, Tried
from dmlpipe.storage.errors import InvalidInputError
from tests.tiny_wheel import wheel

DAG = """
import sys
from pathlib import Path
import dmlpipe as dml
dag = dml.DAG("labs", env="requirements.txt")

@dag.pipeline(dml.files("texts", "/{stem}.txt"))
def where(texts: bytes, stem: str) -> dml.Files:
    try:
        import tiny, importlib.util
        found = f"{tiny.__name__} {importlib.util.find_spec('numpy')}"
    except ImportError as err:
        found = str(err)
    print("seen at once")
    return {f"{stem}.txt": f"{sys.prefix}\\n{found}\\n", f"{stem}.large": bytes(3_000_000)}

@dag.pipeline(dml.files("texts", "/{stem}.txt"), batch=5)
def halves(texts: list[bytes], stem: list[str]) -> list[dml.Files]:
    if b"c" in texts:
        raise ValueError("no c please")
    return [{name: ""} for name in stem]

@dag.pipeline(dml.files("texts", "/{stem}.txt"))
def dies(texts: bytes, stem: str) -> dml.Files:
    import os
    os._exit(3)

@dag.pipeline(dml.files("texts", "/{stem}.txt"))
def stops(texts: bytes, stem: str) -> dml.Files:
    breakpoint()
    return {}

@dag.pipeline(dml.files("texts", "/{stem}.txt"))
def breaks(texts: bytes, stem: str) -> dml.Files:
    hidden = stem * 3
    assert not hidden
    return {}

PROGRAMS = "tiny > $out/said; echo $VIRTUAL_ENV >> $out/said"
dag.command("programs", PROGRAMS, dml.files("texts", "/a.txt"), env="requirements.txt")
dag.command("modules", "echo $LOADED > $out/said", dml.files("texts", "/a.txt"), env="module load samtools/1.19 bwa")
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared: the environment is made once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def file(tmp_path: Path, package: Path) -> Iterator[Path]:
    (tmp_path / "requirements.txt").write_text(f"--no-index\n{package}\n")
    path = tmp_path / "envdag.py"
    path.write_text(DAG)
    yield path
    sys.modules.pop("envdag", None)


def with_texts(store: Store) -> Store:
    with store.commit("texts") as session:
        for letter in "abcde":
            session.write(f"{letter}.txt", letter)
    return store


@pytest.fixture
def store(tmp_path: Path, cache: Path) -> Store:
    return with_texts(Store.init(f"memory://{uuid.uuid4().hex}", cache_dir=cache))


def prefix(cache: Path) -> str:
    (folder,) = [path for path in (cache / "envs").iterdir() if path.is_dir()]
    return str(folder)


def only(store: Store, file: Path | None, pipeline: str) -> Tried:
    (tried,) = Trial(store, file).run(pipeline).datums
    return tried


def test_a_function_is_tried_in_its_environment(
    store: Store, file: Path, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = list(store.backend.list())
    result = Trial(store, file).run("where", sample=2, keep=tmp_path / "out")
    assert [each.failure for each in result.datums] == [None, None]
    # What was not declared is not there, though this process has it.
    assert (tmp_path / "out" / "a.txt").read_text() == f"{prefix(cache)}\ntiny None\n"
    assert (tmp_path / "out" / "a.large").stat().st_size == 3_000_000
    assert capfd.readouterr().out == "seen at once\n" * 2
    assert list(store.backend.list()) == before


def test_recorded_code_is_tried_in_the_environment_that_is_recorded(
    store: Store, file: Path, cache: Path, tmp_path: Path
) -> None:
    store.submit(file)
    file.with_name("requirements.txt").unlink()
    assert Trial(store).run("where", keep=tmp_path / "out").ok
    assert (tmp_path / "out" / "a.txt").read_text() == f"{prefix(cache)}\ntiny None\n"


def test_a_failing_batch_is_split_there_too(store: Store, file: Path) -> None:
    result = Trial(store, file).run("halves", sample=5)
    failed = {each.shown: each.failure for each in result.datums if each.failure}
    assert {name: failure.message for name, failure in failed.items()} == {"texts:/c.txt": "no c please"}
    (failure,) = failed.values()
    assert failure.where.startswith("envdag.py:")
    assert failure.where.endswith(" in halves")


def test_a_process_that_dies_fails_its_datum_alone(store: Store, file: Path) -> None:
    result = Trial(store, file).run("dies", sample=2)
    failures = [each.failure for each in result.datums]
    assert [failure.message for failure in failures if failure] == ["the process ended with exit code 3"] * 2


def test_code_that_does_not_load_there_fails_with_its_reason(store: Store, file: Path) -> None:
    store.submit(file.with_name("envdag.py"))
    file.write_text(DAG.replace("import sys\n", "import sys\nassert 'envs' not in sys.prefix\n", 1))
    failure = only(store, file, "where").failure
    assert failure is not None
    assert (failure.kind, failure.where) == ("AssertionError", "envdag.py:3 in <module>")


def test_an_environment_that_cannot_be_made_is_the_error(file: Path, tmp_path: Path) -> None:
    store = with_texts(Store.init(f"memory://{uuid.uuid4().hex}", cache_dir=tmp_path / "cache"))
    file.with_name("requirements.txt").write_text("--no-index\nno-such-package-at-all==1\n")
    with pytest.raises(InvalidInputError, match=r"environment 'requirements\.txt' cannot be had"):
        only(store, file, "where")


def test_a_command_is_tried_in_its_environment(store: Store, file: Path, cache: Path, tmp_path: Path) -> None:
    result = Trial(store, file).run("programs", keep=tmp_path / "out")
    assert result.ok, result.datums
    assert (tmp_path / "out" / "said").read_text() == f"tiny 1.0\n{prefix(cache)}\n"


def test_a_command_is_tried_with_its_modules_loaded(
    store: Store, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".bash_profile").write_text('module() { export LOADED="$*"; }\n')
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    result = Trial(store, file).run("modules", keep=tmp_path / "out")
    assert result.ok, result.datums
    assert (tmp_path / "out" / "said").read_text() == "load samtools/1.19 bwa\n"


def test_changed_code_is_compared_in_its_environment(tmp_path: Path, file: Path, cache: Path) -> None:
    store = with_texts(Store.init(str(tmp_path / "store"), cache_dir=cache))
    store.submit(file)
    executor = InlineExecutor(store)
    assert store.run(targets=["where"], executor=executor).ok
    executor.close()
    # In this process it would make another file.
    file.write_text(DAG.replace('print("seen at once")', 'print("seen", "at once")'))
    sys.modules.pop("envdag", None)
    (same,) = [each for each in store.submit(file, if_same=2) if each.name == "where"]
    assert (same.status, same.why) == ("claimed", ("same as v1: 2 datums compared",))


def test_a_test_calls_the_function_itself_and_makes_no_environment(file: Path) -> None:
    (dag,) = load_dags(file)
    file.with_name("requirements.txt").write_text("--no-index\nno-such-package-at-all==1\n")
    for name in [name for name in dag.pipelines if name != "where"]:
        del dag.pipelines[name]
    made = testing.run(dag, {"texts": {"a.txt": b"a"}})["where"]
    assert made.read_bytes("/a.txt").decode().splitlines()[0] == sys.prefix


# --- at a terminal ---


def typed(store: Store, file: Path, cache: Path, answers: str, *words: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("dmlpipe")
    return subprocess.run(
        [program, "--store", store.url, "try", str(file), *words],
        input=answers,
        env={**os.environ, "DMLPIPE_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_debugger_opens_in_the_environment(tmp_path: Path, file: Path, cache: Path) -> None:
    store = with_texts(Store.init(str(tmp_path / "store"), cache_dir=cache))
    done = typed(store, file, cache, "p hidden\nimport sys; print(sys.prefix)\nq\n", "breaks", "--pdb", "--json")
    assert done.returncode == 1, done.stderr
    assert "'aaa'" in done.stdout
    assert prefix(cache) in done.stdout
    assert json.loads(done.stdout.splitlines()[-1].removeprefix("(Pdb) "))["failure"]["kind"] == "AssertionError"


def test_a_breakpoint_stops_there_and_leaving_it_ends_the_trial(tmp_path: Path, file: Path, cache: Path) -> None:
    store = with_texts(Store.init(str(tmp_path / "store"), cache_dir=cache))
    done = typed(store, file, cache, "p stem\nq\n", "stops", "--sample", "3")
    assert (done.returncode, done.stdout.count("'a'")) == (130, 1)
    assert "interrupted" in done.stderr
