from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Cli


def test_init_makes_a_store_that_git_ignores(cli: Cli, here: Path) -> None:
    answer = cli("init")
    assert answer.code == 0
    assert answer.out.startswith("made an empty store at ")
    assert (here / ".dmlpipe" / ".gitignore").read_text() == "*\n"
    assert cli("ls").code == 0


def test_init_twice_is_refused(cli: Cli, store: Path) -> None:
    answer = cli("init")
    assert answer.code == 2
    assert answer.err.startswith("error: there is a store at ")


def test_init_dag_beside_a_store_writes_the_files(cli: Cli, store: Path, here: Path) -> None:
    answer = cli("init", "--dag")
    assert answer.code == 0
    assert "is a store already" in answer.err
    assert (here / "dag.py").exists()


def test_init_dag_with_a_folder_makes_a_project_there(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = cli("init", "--dag", "mine")
    assert answer.code == 0
    assert "next: cd mine" in answer.out
    assert sorted(path.name for path in (here / "mine").iterdir()) == [".dmlpipe", "dag.py", "test_dag.py"]
    assert not (here / "dag.py").exists()
    monkeypatch.chdir(here / "mine")
    assert cli("ls").code == 0


def test_init_dag_here_does_not_say_cd(cli: Cli, here: Path) -> None:
    answer = cli("init", "--dag", ".")
    assert answer.code == 0
    assert "next: pytest" in answer.out


def test_run_without_pipelines_says_what_to_do(cli: Cli, store: Path) -> None:
    answer = cli("run")
    assert answer.code == 0
    assert answer.out == "nothing to do: no pipelines yet\n"
    assert answer.err == "note: submit some: dmlpipe run dag.py\n"


def test_init_dag_overwrites_nothing(cli: Cli, here: Path) -> None:
    (here / "test_dag.py").write_text("mine")
    answer = cli("init", "--dag")
    assert answer.code == 1
    assert answer.err.startswith("error: test_dag.py exists already in ")
    assert not (here / ".dmlpipe").exists()
    assert not (here / "dag.py").exists()


def test_the_first_dag_is_short_and_its_tests_pass_without_a_store(cli: Cli, here: Path) -> None:
    assert cli("init", "--dag").code == 0
    lines = (here / "dag.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 22
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
