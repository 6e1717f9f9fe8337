from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .conftest import Cli


@pytest.fixture
def parted(cli: Cli, store: Path, here: Path) -> Path:
    """`images` with a branch that changed another file than master did."""
    assert cli("branch", "create", "images@side").code == 0
    (here / "new.txt").write_text("new\n")
    assert cli("put", "images@side", "new.txt", "-m", "on the side").code == 0
    (here / "b.txt").write_text("beta again\n")
    assert cli("put", "images:/sub", "b.txt", "-m", "third").code == 0
    return store


def test_merge_makes_a_commit_of_both(cli: Cli, parted: Path) -> None:
    would = cli("merge", "images@side", "-n")
    assert would.out == "would change 1 file of images@master (merged); nothing was written\n"
    answer = cli("merge", "images@side", "-m", "together")
    assert answer.out.startswith("images@master is at ")
    assert answer.out.endswith(": merged with images@side, 1 file changed\n")
    assert cli("ls", "-R", "images").lines == ["/a.txt", "/new.txt", "/sub/b.txt"]
    (record,) = cli("commit", "inspect", "images", "--json").records
    assert (len(record["parents"]), record["message"], record["names"]) == (2, "together", ["master"])
    assert cli("merge", "images@side").out == "images@master has all of images@side already\n"
    (record,) = cli("merge", "images", "--into", "side", "--json").records
    assert (record["result"], record["branch"], record["changed"]) == ("fast-forward", "images@side", 1)


def test_merge_names_conflicts_and_writes_nothing(cli: Cli, parted: Path, here: Path) -> None:
    (here / "b.txt").write_text("beta of the side\n")
    assert cli("put", "images@side:/sub", "b.txt").code == 0
    before = cli("log", "images").out
    answer = cli("merge", "images@side")
    assert (answer.code, answer.lines) == (1, ["! /sub/b.txt  changed in both, differently"])
    assert answer.err.startswith("error: images@")
    assert "--prefer ours" in answer.err
    told = cli("merge", "images@side", "--json")
    assert (told.code, told.records[0]["path"], told.records[0]["winner"]) == (1, "/sub/b.txt", None)
    assert cli("log", "images").out == before
    answer = cli("merge", "images@side", "--prefer", "theirs")
    assert answer.lines[0] == "! /sub/b.txt  changed in both, differently; theirs is taken"
    assert cli("cat", "images:/sub/b.txt").out == "beta of the side\n"


def test_tags_are_made_moved_and_deleted(cli: Cli, store: Path) -> None:
    assert cli("tag", "create", "images@v1", "images@master^").out.startswith("images@v1 is ")
    assert cli("cat", "images@v1:/a.txt").out == "alpha\n"
    answer = cli("tag", "create", "images@v1")
    assert answer.code == 1
    assert "exists already" in answer.err
    assert cli("tag", "create", "images@v1", "--force").code == 0
    assert cli("cat", "images@v1:/a.txt").out == "alpha again\n"
    assert cli("tag", "create", "images@master").code == 1
    assert [each["tag"] for each in cli("tag", "list", "images", "--json").records] == ["v1"]
    assert cli("tag", "list", "images").lines[1].startswith("images@v1  ")
    assert cli("tag", "delete", "images@v1").out == "deleted tag images@v1\n"
    gone = cli("tag", "delete", "images@v1")
    assert (gone.code, gone.err.partition("\n")[0]) == (1, "error: no tag 'v1' in repo 'images'")
    assert cli("tag", "create", "images").code == 2


def test_commits_are_listed_wherever_they_are(cli: Cli, parted: Path) -> None:
    assert cli("branch", "delete", "images@side").code == 0
    assert cli("tag", "create", "images@v1", "images@master^").code == 0
    records = cli("commit", "list", "images", "--json").records
    assert [each["message"] for each in records] == ["third", "on the side", "second", "first"]
    assert [each["names"] for each in records] == [["master"], [], ["v1"], []]
    lines = cli("commit", "list", "images", "--limit", "2").lines
    assert len(lines) == 3
    assert lines[1].endswith("master  third")
    told = cli("commit", "inspect", "images@v1")
    assert any(line.split() == ["message", "second"] for line in told.lines)


def test_a_proof_is_checked_without_the_store(
    cli: Cli, store: Path, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = cli("prove", "images@master^:/a.txt", "-o", "a.proof")
    assert (told.code, told.out) == (0, "")
    head = told.err.split()[6].rstrip(";")
    (here / "copy.txt").write_text("alpha\n")
    shutil.rmtree(store)
    answer = cli("verify", "a.proof", "copy.txt")
    assert answer.code == 0
    assert answer.lines[0].endswith(":/a.txt  6 B  is copy.txt")
    assert answer.lines[2] == "  vouched for by what this machine saw: entry 1"
    # Elsewhere nothing vouches for the ledger but what the reader noted.
    monkeypatch.setenv("DMLPIPE_CACHE_DIR", str(tmp_path / "other"))
    answer = cli("verify", "a.proof")
    assert (answer.code, answer.out) == (2, "")
    assert f"the proof reaches {head}" in answer.err
    (record,) = cli("verify", "a.proof", "--head", head, "--json").records
    assert (record["path"], record["entry"], record["head"], record["file"]) == ("/a.txt", 0, head, None)
    assert cli("verify", "a.proof", "--head", f"1:{'0' * 64}").code == 1
    assert cli("verify", "a.proof", "--head", f"7:{'0' * 64}").code == 2
    (here / "copy.txt").write_text("alpha!\n")
    assert "its content differs" in cli("verify", "a.proof", "copy.txt", "--head", head).err
    (here / "a.proof").write_bytes((here / "a.proof").read_bytes()[:-1])
    assert cli("verify", "a.proof", "--head", head).code == 1


def test_a_proof_needs_a_file_and_a_place(cli: Cli, store: Path, here: Path) -> None:
    answer = cli("prove", "images", "-o", "x")
    assert (answer.code, "names no file" in answer.err) == (2, True)
    answer = cli("prove", "images:/a.txt", "--json")
    assert (answer.code, answer.out) == (2, "")


def test_diff_shows_paths_counts_and_lines(cli: Cli, store: Path, here: Path) -> None:
    (here / "week" / "raw.bin").write_bytes(b"\0" * 10)
    (here / "week" / "a.txt").write_text("alpha again\nand again\n")
    assert cli("put", "images", "week").code == 0
    sides = ("images@master^", "images")
    assert cli("diff", "--name-only", *sides).lines == ["/a.txt", "/raw.bin"]
    assert [line.split() for line in cli("diff", "--stat", *sides).lines] == [
        ["~", "/a.txt", "+1", "-0", "+10", "B"],
        ["+", "/raw.bin", "binary", "+10", "B"],
    ]
    patch = ["--- a/a.txt", "+++ b/a.txt", "@@ -1 +1,2 @@", " alpha again", "+and again"]
    assert cli("diff", "-p", *sides).lines == [*patch, "+ /raw.bin"]
    text, raw = cli("diff", "-p", *sides, "--json").records
    assert (text["lines_added"], text["lines_removed"], text["patch"].splitlines()) == (1, 0, patch)
    assert (raw["lines_added"], raw["patch"]) == (None, None)


def test_diff_shows_lines_of_a_local_side(cli: Cli, store: Path, here: Path) -> None:
    (here / "week" / "sub" / "b.txt").write_text("gamma\n")
    (here / "week" / "new.txt").write_text("n\n")
    changed = ["@@ -1 +1 @@", "-beta", "+gamma"]
    lines = cli("diff", "-p", "images", "./week").lines
    assert lines == [
        "--- /dev/null",
        "+++ b/new.txt",
        "@@ -0,0 +1 @@",
        "+n",
        "--- a/sub/b.txt",
        "+++ b/sub/b.txt",
        *changed,
    ]
    assert cli("diff", "-p", "images:/sub", "./week/sub").lines[2:] == changed
    assert cli("diff", "-p", "images:/sub/b.txt", "./week/sub/b.txt").lines[2:] == changed
    assert cli("diff", "-p", "./week/sub", "images:/sub").lines[3:] == ["-gamma", "+beta"]


def test_a_branch_follows_another_one(cli: Cli, store: Path, here: Path) -> None:
    made = cli(
        "branch", "create", "images@ready", "--trigger", "master", "--trigger-commits", "1", "--trigger-size", "1k"
    )
    assert "images@ready follows master: 1.0 kB or 1 commit" in made.out
    (here / "week" / "c.txt").write_text("gamma\n")
    cli("put", "images", "week")
    (master, ready) = cli("branch", "list", "images", "--json").records
    assert ready["head"] == master["head"]
    assert (master["trigger"], ready["trigger"]) == (None, {"size": 1000, "commits": 1})
    assert "master: 1.0 kB or 1 commit" in cli("branch", "list", "images").out
    assert cli("branch", "create", "images@ready", "--no-trigger").code == 0
    for words in (("--trigger-size", "1k"), ("--trigger", "master", "images@master"), ("--trigger", "master")):
        assert cli("branch", "create", "images@other", *words).code == 2
