from __future__ import annotations

import io
import random
from pathlib import Path

import pytest

from dmlpipe.storage.errors import BackendError

from .conftest import Cli


def test_put_makes_a_repo_and_says_so(cli: Cli, store: Path, here: Path) -> None:
    answer = cli("put", "labels", "week/a.txt", "-m", "truth")
    assert answer.lines[0] == "made repo labels"
    assert answer.lines[1].startswith("labels@master is at ")
    assert answer.lines[1].endswith(": 1 file, 12 B; stored 0 B of 12 B")  # it stands in the tree itself


def test_put_tells_what_was_stored_of_what_was_given(
    cli: Cli, store: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "text").mkdir()
    (here / "text/log").write_text("the same line again\n" * 50_000)
    (here / "text/noise").write_bytes(random.Random(1).randbytes(50_000))
    record = cli("put", "text", "text", "--json").records[0]
    assert record["given"] == 1_050_000
    assert 50_000 < record["stored"] < 60_000
    record = cli("put", "text:/copy", "text", "--json").records[0]
    assert (record["given"], record["stored"]) == (1_050_000, 0)


@pytest.mark.parametrize("given", ["text", "text/noise"])
def test_put_of_very_much_suggests_links_before_it_stores_anything(
    cli: Cli, store: Path, here: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setattr("dmlpipe.cli.verbs.put.SUGGEST_LINK_BYTES", 1_500_000)
    (here / "text").mkdir()
    (here / "text/noise").write_bytes(random.Random(2).randbytes(1_600_000))

    def full(*args: object) -> None:
        raise BackendError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("dmlpipe.storage.objects.writer.ObjectWriter.add_large", full)
        answer = cli("put", "text", given)
        assert (answer.code, "put --link" in answer.err) == (1, True)
    assert "put --link" in cli("put", "text", given).err
    assert "put --link" not in cli("put", "other", given, "--link").err


def test_put_of_the_same_again_makes_no_commit(cli: Cli, store: Path) -> None:
    answer = cli("put", "images", "week")
    assert answer.code == 0
    assert answer.out.endswith(": nothing changed\n")
    assert cli("put", "images", "week", "--json").records[0]["changed"] is False


def test_put_reads_stdin_under_the_targets_name(cli: Cli, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"from stdin")))
    assert cli("put", "images:/sub/c.txt", "-").code == 0
    assert cli("cat", "images:/sub/c.txt").out == "from stdin"
    assert cli("cat", "images:/sub/b.txt").out == "beta\n"


def test_put_of_a_file_to_the_name_of_one_says_that_a_target_is_a_folder(cli: Cli, store: Path, here: Path) -> None:
    answer = cli("put", "labels:/b.txt", "week/a.txt")
    assert answer.err == (
        "note: labels@master:/b.txt is taken for a folder: the file becomes /b.txt/a.txt; "
        "to give it another name: dmlpipe put labels@master:/b.txt - < week/a.txt\n"
    )
    for target, source in (
        ("labels:/days", "week/a.txt"),
        ("labels:/week.txt", "week"),
        ("labels:/c.txt", f"file://{here / 'week/a.txt'}"),
    ):
        assert cli("put", target, source).err == ""
    (here / "a b.txt").write_text("x")
    assert cli("put", "labels:/c.txt", "a b.txt").err.endswith("- < 'a b.txt'\n")


def test_put_never_takes_the_store_itself(cli: Cli, store: Path) -> None:
    assert cli("put", "all", ".").code == 0
    assert cli("ls", "-R", "all").lines == ["/week/a.txt", "/week/sub/b.txt"]


def test_put_mirrors_excludes_and_reads_lists(cli: Cli, store: Path, here: Path) -> None:
    (here / "week" / "a.txt").unlink()
    (here / "week" / "x.tmp").write_text("x")
    assert cli("put", "images", "week", "--mirror", "--exclude", "*.tmp").code == 0
    assert cli("ls", "-R", "images").lines == ["/sub/b.txt"]
    (here / "list").write_text("week/x.tmp\n\n")
    assert cli("put", "images", "--from-file", "list").code == 0
    assert cli("ls", "-R", "images").lines == ["/sub/b.txt", "/x.tmp"]
    assert cli("put", "images", "week/x.tmp", "--append").code == 0
    assert cli("cat", "images:/x.tmp").out == "xx"


def test_a_dry_put_writes_nothing(cli: Cli, store: Path) -> None:
    before = cli("log", "images").out
    answer = cli("put", "labels", "week", "-n")
    assert answer.lines[-1] == "would put 2 files, 17 B, to labels; nothing was written"
    assert cli("log", "images").out == before
    assert cli("repo", "list", "--json").records[-1]["repo"] == "images"


def test_ls_lists_folders_globs_and_sizes(cli: Cli, store: Path) -> None:
    assert cli("ls", "images").lines == ["/a.txt", "/sub/"]
    assert cli("ls", "images:/sub").lines == ["/sub/b.txt"]
    assert cli("ls", "images:/**.txt").lines == ["/a.txt", "/sub/b.txt"]
    assert cli("ls", "-l", "images").lines == ["     12 B  /a.txt", "        -  /sub/"]


def test_cat_prints_several_files_and_earlier_ones(cli: Cli, store: Path) -> None:
    assert cli("cat", "images:/sub/b.txt", "images@master^:/a.txt").out == "beta\nalpha\n"
    assert cli("cat", "images:/*.txt").out == "alpha again\n"


def test_cat_prints_nothing_if_one_name_is_wrong(cli: Cli, store: Path) -> None:
    answer = cli("cat", "images:/a.txt", "images:/b.txt")
    assert (answer.code, answer.out) == (1, "")


def test_get_copies_a_file_a_folder_and_what_a_glob_matches(cli: Cli, store: Path, here: Path) -> None:
    assert cli("get", "images:/a.txt", "one.txt").out == "wrote 1 file to one.txt\n"
    assert cli("get", "images", "all").out == "wrote 2 files to all\n"
    assert cli("get", "images:/*", "matched").code == 0
    assert (here / "one.txt").read_text() == "alpha again\n"
    assert (here / "all" / "sub" / "b.txt").read_text() == (here / "matched" / "sub" / "b.txt").read_text() == "beta\n"


def test_rm_is_one_commit(cli: Cli, store: Path) -> None:
    assert cli("rm", "images:/*.txt", "-n").lines == ["/a.txt", "nothing was deleted"]
    answer = cli("rm", "images:/a.txt", "images:/sub", "-r", "-m", "clear")
    assert answer.out.startswith("deleted 2 files; images@master is at ")
    assert cli("ls", "images").out == ""
    assert cli("ls", "images@master^").lines == ["/a.txt", "/sub/"]


def test_diff_of_commits_and_of_a_folder(cli: Cli, store: Path, here: Path) -> None:
    answer = cli("diff", "images@master^", "images")
    assert answer.lines == ["~ /a.txt"]
    assert answer.err == "1 file: 1 changed, +6 B\n"
    (here / "week" / "new.txt").write_text("n")
    assert cli("diff", "images", "./week").lines == ["+ /new.txt"]
    assert cli("diff", "./week", "images").lines == ["- /new.txt"]
    assert cli("diff", "images", "./week", "--exit-code").code == 3
    assert cli("diff", "images", "images", "--exit-code").code == 0


def test_log_of_a_branch_a_path_and_an_ancestor(cli: Cli, store: Path) -> None:
    assert [line.partition('  "')[2] for line in cli("log", "images").lines] == ['second"', 'first"']
    assert [each["message"] for each in cli("log", "images:/sub", "--json").records] == ["first"]
    assert [each["message"] for each in cli("log", "images:/a.txt", "--json").records] == ["second", "first"]
    assert [each["message"] for each in cli("log", "images@master^", "--json").records] == ["first"]
    assert len(cli("log", "images", "--limit", "1").lines) == 1


def test_branches_are_made_moved_and_deleted(cli: Cli, store: Path) -> None:
    assert cli("branch", "create", "images@old", "images@master^").code == 0
    assert cli("cat", "images@old:/a.txt").out == "alpha\n"
    assert cli("branch", "set", "images@old", "images").code == 0
    assert cli("cat", "images@old:/a.txt").out == "alpha again\n"
    assert [each["branch"] for each in cli("branch", "list", "images", "--json").records] == ["master", "old"]
    assert cli("branch", "delete", "images@old").out == "deleted branch images@old\n"
    assert cli("ls", "images@old").code == 1


def test_repos_are_made_and_deleted(cli: Cli, store: Path) -> None:
    assert cli("create", "repo", "scans", "-m", "of week 34").out == "made repo scans\n"
    assert cli("repo", "inspect", "scans", "--json").records[0]["description"] == "of week 34"
    assert cli("repo", "delete", "scans").code == 0
    assert [each["repo"] for each in cli("repo", "list", "--json").records] == ["images"]


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (("ls",), "repo head files size time created description pipeline branches"),
        (("ls", "images"), "repo commit path type size"),
        (("log", "images"), "repo commit time author message files size parents job"),
        (("diff", "images^", "images"), "path change old_size new_size"),
        (("branch", "list", "images"), "repo branch head files size time trigger"),
        (("put", "images", "week"), "repo branch commit changed files size created given stored reflinked"),
        (("put", "images", "week", "-n"), "path from"),
        (("get", "images", "out"), "repo commit dest files"),
        (("rm", "images:/a.txt"), "repo branch commit deleted files"),
    ],
)
def test_json_lines_have_stable_keys(words: tuple[str, ...], keys: str, cli: Cli, store: Path) -> None:
    answer = cli(*words, "--json")
    assert answer.code == 0
    assert answer.records
    assert {tuple(record) for record in answer.records} == {tuple(keys.split())}


def test_quiet_prints_only_what_was_asked_for(cli: Cli, store: Path) -> None:
    assert cli("put", "images", "week", "-q").out == ""
    assert cli("-q", "ls", "images").lines == ["/a.txt", "/sub/"]


def test_file_names_cannot_move_the_cursor(cli: Cli, store: Path, here: Path) -> None:
    (here / "week" / "\x1b[2Jevil\n").write_text("x")
    assert cli("put", "images", "week").code == 0
    assert "/\\x1b[2Jevil\\n" in cli("ls", "images").lines
    assert cli("ls", "images", "--json").records[0]["path"] == "/\x1b[2Jevil\n"
