"""Declared environments, made where the worker runs: real interpreters, and programs that stand in for rare ones."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from dmlpipe.storage.errors import InvalidInputError
from dmlpipe.storage.store import Store
from dmlpipe.worker.job import Environment, PythonTransform
from dmlpipe.worker.slots.environments import Provided, provide
from dmlpipe.worker.slots.interpreters import check_interpreter
from dmlpipe.worker.slots.kept_environments import KEPT_S, collect, keep
from tests.tiny_wheel import wheel
from tests.worker.bench import Bench, code_tree, command, file_datums, parameter, put, python, spec, varying


def declared(store: Store, kind: str, name: str, text: str) -> Environment:
    tree = code_tree(store, {name: (text.encode(), 0o644)})
    return Environment(kind=kind, name=name, tree=tree, file=name)


def test_a_lock_file_becomes_one_environment_that_commands_run_in(bench: Bench, tmp_path: Path) -> None:
    environment = declared(bench.store, "venv", "requirements.txt", f"--no-index\n{wheel(tmp_path)}\n")
    found: list[Provided] = []

    def get() -> None:
        found.append(provide(environment, bench.store, bench.store.cache_dir, dict(os.environ)))

    together = [threading.Thread(target=get) for _ in range(2)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    assert found[0] == found[1]
    (folder,) = [path for path in (bench.store.cache_dir / "envs").iterdir() if path.is_dir()]
    made = folder.stat().st_mtime_ns
    tree = put(bench.store, "in", {"a": b""})
    job = spec(command("tiny > $out/said; python -c 'import tiny'", environment=environment), varying("in", tree))
    (row,) = bench.run(job, file_datums(tree)).values()
    assert row.failure is None, bench.log(row, job.job)
    assert bench.content(job.job) == {"said": b"tiny 1.0\n"}
    assert folder.stat().st_mtime_ns == made
    # What was left half made is made anew.
    (folder / ".complete").unlink()
    (folder / "bin" / "tiny").unlink()
    get()
    assert (folder / "bin" / "tiny").exists()


def test_an_environment_that_cannot_be_made_says_what_its_maker_said(bench: Bench) -> None:
    environment = declared(bench.store, "venv", "lock.txt", "--no-index\nno-such-package-at-all==1\n")
    tree = put(bench.store, "in", {"a": b""})
    job = spec(command("true 1", environment=environment), varying("in", tree))
    (row,) = bench.run(job, file_datums(tree)).values()
    assert row.failure is not None
    assert "environment 'lock.txt' cannot be had: python ended with exit code 1" in row.failure.message
    assert "no-such-package-at-all" in row.failure.message


def program(folder: Path, name: str, text: str) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n" + text)
    (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize(("name", "words"), [("conda", "env create --yes -p"), ("micromamba", "create --yes -p")])
def test_conda_makes_its_environment_from_the_file(bench: Bench, tmp_path: Path, name: str, words: str) -> None:
    text = 'echo "$@" > $0.calls\nwhile [ "$1" != -p ]; do shift; done\nmkdir -p $2/bin; cp $4 $2/lock\n'
    environ = program(tmp_path / "bin", name, text)
    environment = declared(bench.store, "conda", "environment.yml", "dependencies: [samtools]\n")
    provided = provide(environment, bench.store, tmp_path, environ)
    folder = Path(provided.variables["CONDA_PREFIX"])
    assert provided.variables["PATH"].startswith(f"{folder}/bin:")
    assert (folder / "lock").read_text() == "dependencies: [samtools]\n"
    assert (tmp_path / "bin" / f"{name}.calls").read_text().startswith(words)


def test_without_conda_that_is_the_error(bench: Bench, tmp_path: Path) -> None:
    environment = declared(bench.store, "conda", "environment.yml", "dependencies: []\n")
    with pytest.raises(InvalidInputError, match="none of micromamba, mamba, conda is there"):
        provide(environment, bench.store, tmp_path, {"PATH": str(tmp_path)})


def test_a_folder_is_used_as_it_is_and_has_to_be_there(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    program(tmp_path / "env" / "bin", "seq-tool", "echo from env\n")
    environment = Environment(kind="folder", name=str(tmp_path / "env"))
    tree = put(bench.store, "in", {"a": b""})
    job = spec(command("seq-tool > $out/x; true", environment=environment), varying("in", tree))
    bench.run(job, file_datums(tree))
    assert bench.content(job.job) == {"x": b"from env\n"}
    with pytest.raises(InvalidInputError, match="there is no /no/such/bin"):
        provide(Environment(kind="folder", name="/no/such"), bench.store, tmp_path, {})


def test_modules_are_loaded_in_a_login_shell(bench: Bench, tmp_path: Path, restart: Callable[[], None]) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".bash_profile").write_text('module() { export LOADED="$*"; }\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path / "home"))
        restart()
        environment = Environment(kind="modules", name="module load samtools/1.19 bwa")
        tree = put(bench.store, "in", {"a b": b"x"})
        transform = command("sh", "-c", 'echo "$LOADED" > "$1"', "sh", "$out/said", environment=environment)
        job = spec(transform, varying("in", tree))
        (row,) = bench.run(job, file_datums(tree)).values()
    assert row.failure is None, bench.log(row, job.job)
    assert bench.content(job.job) == {"said": b"load samtools/1.19 bwa\n"}


# --- functions ---


def in_environment(store: Store, source: str, environment: Environment) -> PythonTransform:
    return msgspec.structs.replace(python(store, source, "f", parameter("given", "bytes")), environment=environment)


WHERE = """
    import sys
    import dmlpipe as dml
    dag = dml.DAG("lab")
    def f(given):
        import tiny
        try:
            import numpy
        except ImportError:
            numpy = None
        return {"said": f"{sys.prefix} {tiny.__name__} {numpy}"}
"""


def test_a_function_runs_on_the_interpreter_of_its_lock_file(bench: Bench, tmp_path: Path) -> None:
    environment = declared(bench.store, "venv", "requirements.txt", f"--no-index\n{wheel(tmp_path)}\n")
    tree = put(bench.store, "in", {"a": b""})
    job = spec(in_environment(bench.store, WHERE, environment), varying("given", tree))
    (row,) = bench.run(job, file_datums(tree)).values()
    assert row.failure is None, bench.log(row, job.job)
    (folder,) = [path for path in (bench.store.cache_dir / "envs").iterdir() if path.is_dir()]
    # What was not declared is not there, though the worker has it.
    assert bench.content(job.job) == {"said": f"{folder} tiny None".encode()}
    (meta,) = bench.metas(job.job)
    assert meta.versions == {"tiny": "1.0"}


def test_functions_with_and_without_an_environment_share_no_child(bench: Bench, tmp_path: Path) -> None:
    environment = declared(bench.store, "venv", "requirements.txt", f"--no-index\n{wheel(tmp_path)}\n")
    tree = put(bench.store, "in", {"a": b""})
    prefixes = set()
    for number, each in enumerate((environment, None)):
        source = "import sys\ndef f(given): return {'said': sys.prefix}"
        transform = msgspec.structs.replace(
            python(bench.store, source, "f", parameter("given", "bytes")), environment=each
        )
        job = spec(transform, varying("given", tree), job=f"{number:016x}")
        bench.run(job, file_datums(tree))
        prefixes |= set(bench.content(job.job).values())
    assert len(prefixes) == 2


def test_a_folder_without_python_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    with pytest.raises(InvalidInputError, match="does not run") as refused:
        check_interpreter("seq", tmp_path, dict(os.environ))
    assert "msgspec" in str(refused.value.hint)


def test_a_python_that_cannot_run_the_child_is_refused_with_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text("#!/bin/sh\necho 'No module named msgspec'; exit 1\n")
    (tmp_path / "bin/python").chmod(0o755)
    with pytest.raises(InvalidInputError, match="cannot run functions:\nNo module named msgspec"):
        check_interpreter("seq", tmp_path, dict(os.environ))


def test_what_nothing_used_for_long_goes_and_what_is_in_use_stays(tmp_path: Path) -> None:
    place = tmp_path / "envs"

    def make(name: str, size: int) -> None:
        (place / name / "bin").mkdir(parents=True)
        (place / name / "bin" / "python").write_bytes(b"x" * size)
        (place / name / ".complete").touch()

    def names() -> set[str]:
        return {path.name for path in place.iterdir() if path.is_dir()}

    make("old", 4096)
    make("middle", 4096)
    for number, name in enumerate(("old", "middle")):
        used = 1_000_000.0 + number
        os.utime(place / name / ".complete", (used, used))
    # Within the limits nothing goes.
    assert collect(place, max_bytes=1 << 20, now=1_000_100.0) == []
    # Too much: what was used longest ago goes, as far as need be.
    assert collect(place, max_bytes=4096, now=1_000_100.0) == ["old"]
    assert names() == {"middle"}
    # This process uses one: it stays, however old and large. Another one that is unused for a month goes.
    make("unused", 4096)
    os.utime(place / "unused" / ".complete", (1_000_000.0, 1_000_000.0))
    keep(place / "used", lambda: make("used", 1 << 16))
    assert names() == {"used"}, "making one made room: the others were last used in 1970"
    assert collect(place, max_bytes=0, now=time.time() + 10 * KEPT_S) == []
    # Half of one, as who is killed while it removes leaves it, is made anew.
    (place / "half" / "bin").mkdir(parents=True)
    keep(place / "half", lambda: make("half", 1))
    assert (place / "half" / "bin" / "python").read_bytes() == b"x"


def test_an_environment_stays_while_the_process_that_runs_in_it_lives(tmp_path: Path) -> None:
    place = tmp_path / "envs"
    using = (
        "import pathlib, sys; from dmlpipe.worker.slots.kept_environments import keep; "
        "place = pathlib.Path(sys.argv[1]); keep(place / 'e', (place / 'e').mkdir); print('used', flush=True); input()"
    )
    user = subprocess.Popen(
        [sys.executable, "-c", using, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert user.stdout is not None
    try:
        assert user.stdout.readline() == "used\n"
        assert collect(place, max_bytes=-1) == []
    finally:
        user.communicate()
    assert collect(place, max_bytes=-1) == ["e"]
    assert not (place / "e").exists()
