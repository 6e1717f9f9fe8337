"""`gc`, `du`, `commit squash|delete|keep`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dmlpipe.cli.main import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMLPIPE_CACHE_DIR", str(tmp_path / "cache"))
    assert main(["init", "-q"]) == 0
    for text in ("one", "two", "three"):
        (tmp_path / "a.txt").write_text(text * 1000)
        assert main(["put", "notes", "a.txt", "-q"]) == 0
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert main([*words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_a_rule_is_kept_by_gc_and_foreseen_by_its_dry_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "commit", "keep", "notes", "--last", "1") == {"repo": "notes", "last": 1, "days": 0.0}
    planned = told(capsys, "gc", "-n", "--grace", "0")
    done = told(capsys, "gc", "--grace", "0")
    assert (done["dropped"], done["bytes"]) == (2, planned["bytes"])
    assert done["bytes"] > 500  # text, compressed
    assert main(["fsck"]) == 0
    capsys.readouterr()
    assert main(["cat", "notes:/a.txt"]) == 0
    assert capsys.readouterr().out == "three" * 1000


def test_a_list_can_be_looked_at_before_it_is_swept(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["squash", "commit", "notes@master^"]) == 0
    marked = told(capsys, "store", "gc", "--mark", "--grace", "0")
    assert marked["dead_packs"]
    assert told(capsys, "gc", "--sweep", marked["mark"], "--grace", "0")["objects"] >= len(marked["keys"])
    assert main(["fsck"]) == 0


def test_a_commit_is_taken_back(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["commit", "delete", "notes@master"]) == 0
    capsys.readouterr()
    assert main(["cat", "notes:/a.txt"]) == 0
    assert capsys.readouterr().out == "two" * 1000
    assert main(["log", "notes"]) == 0


def test_du_adds_up(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usage = told(capsys, "store", "du")
    assert usage["total"] == usage["content"] + usage["other"]
    assert [held["name"] for held in usage["repos"]] == ["notes"]
    (notes,) = usage["repos"]
    assert (notes["commits"], notes["files"], notes["size"]) == (3, 1, 5000)
    assert usage["total"] == sum(usage["parts"].values())
    assert usage["total"] == usage["content"] + usage["memory"] + usage["history"] + usage["garbage"]
    assert main(["du", "--branches"]) == 0
    answer = capsys.readouterr()
    assert "notes@master" in answer.out
    assert "█" in answer.out
    assert "in all: " in answer.out
    assert answer.err == "", "it takes no time, so nothing is told of how far it is"


def test_du_shows_the_largest_and_says_how_many_are_left(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(20):
        assert main(["put", f"repo-{number:02}", "a.txt", "-q"]) == 0
    assert main(["du"]) == 0
    out = capsys.readouterr().out
    assert "and 6 smaller ones: --all lists them" in out
    assert main(["du", "--all"]) == 0
    out = capsys.readouterr().out
    assert all(f"repo-{number:02}" in out for number in range(20))
    assert "smaller" not in out


def test_gc_refuses_two_ways_at_once(here: Path) -> None:
    assert main(["gc", "-n", "--mark"]) == 2
