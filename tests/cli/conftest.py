from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dmlpipe.cli.main import main


@dataclasses.dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


Cli = Callable[..., Answer]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with nothing of the outside in the environment."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("DMLPIPE_STORE", "CI", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DMLPIPE_CACHE_DIR", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def cli(here: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run one command line in this process."""

    def call(*words: str | os.PathLike[str]) -> Answer:
        capsys.readouterr()
        code = main([os.fspath(word) for word in words])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


@pytest.fixture
def store(cli: Cli, here: Path) -> Path:
    """A store with two commits of `images`."""
    assert cli("init").code == 0
    (here / "week").mkdir()
    (here / "week" / "a.txt").write_text("alpha\n")
    (here / "week" / "sub").mkdir()
    (here / "week" / "sub" / "b.txt").write_text("beta\n")
    assert cli("put", "images", "week", "-m", "first").code == 0
    (here / "week" / "a.txt").write_text("alpha again\n")
    assert cli("put", "images", "week", "-m", "second").code == 0
    return here / ".dmlpipe"
