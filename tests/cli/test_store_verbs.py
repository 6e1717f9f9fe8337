"""`store`, `log --ledger` and `put --link` as they are typed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dmlpipe.storage.digest import digest

from .conftest import Cli


def test_info_says_what_and_where(cli: Cli, store: Path) -> None:
    record = cli("store", "info", "--json").records[0]
    assert record["url"] == f"file://{store}"
    assert (record["entries"], record["repos"], record["format"]) == (2, 1, 1)
    assert record["chain"] == cli("log", "--ledger", "--json").records[0]["hash"]
    assert any(line.split() == ["repo_id", record["repo_id"]] for line in cli("store", "info").lines)


def test_init_and_fsck_stand_there_too(cli: Cli, here: Path) -> None:
    assert cli("store", "init", "other").out == f"made an empty store at file://{here}/other\n"
    assert cli("store", "fsck", "--store", "other").code == 0


def test_clone_push_and_pull(cli: Cli, store: Path, here: Path) -> None:
    answer = cli("store", "clone", store, "copy")
    assert answer.out.startswith(f"cloned to file://{here}/copy: 2 ledger entries, ")
    assert cli("cat", "--store", "copy", "images:/a.txt").out == "alpha again\n"
    assert cli("log", "--store", "copy", "images").out == cli("log", "images").out
    assert cli("put", "images", "week/sub/b.txt").code == 0
    assert cli("store", "push", "copy").out.startswith(f"pushed to file://{here}/copy: 1 ledger entry, ")
    assert cli("put", "--store", "copy", "images", "week/a.txt", "--append").code == 0
    behind = cli("store", "push", "copy")
    assert behind.out.startswith(f"pushed to file://{here}/copy: nothing new, at entry 3 ")
    assert behind.err == "note: copy has 1 ledger entry more than this store: dmlpipe store pull copy\n"
    record = cli("store", "pull", "copy", "--json").records[0]
    assert (record["entries"], record["ahead"], record["source"]) == (1, 0, f"file://{here}/copy")
    assert cli("cat", "images:/a.txt").out == "alpha again\n" * 2


def test_clones_that_grew_apart_are_refused(cli: Cli, store: Path) -> None:
    assert cli("store", "clone", store, "copy").code == 0
    assert cli("repo", "create", "mine").code == 0
    assert cli("repo", "create", "theirs", "--store", "copy").code == 0
    answer = cli("store", "push", "copy")
    assert answer.code == 1
    assert "grown apart at ledger entry 2" in answer.err
    assert cli("store", "clone", store, "copy", "--json").code == 1


def test_an_archive_there_and_back(cli: Cli, store: Path, here: Path) -> None:
    answer = cli("store", "archive", "images.tar")
    assert answer.out.startswith("wrote images.tar: 2 ledger entries, ")
    assert cli("store", "archive", "images.tar").code == 2
    assert cli("store", "clone", "images.tar", "copy").code == 0
    assert cli("cat", "--store", "copy", "images:/sub/b.txt").out == "beta\n"
    assert cli("store", "archive", "again.tar", "--store", "copy").code == 0
    assert (here / "again.tar").read_bytes() == (here / "images.tar").read_bytes()
    (here / "no.tar").write_text("no archive")
    assert "no archive of a store" in cli("store", "clone", "no.tar", "copy2").err


def test_the_ledger_is_shown_newest_first(cli: Cli, store: Path) -> None:
    assert cli("tag", "create", "images", "v1").code in (0, 2)
    lines = cli("log", "--ledger").lines
    assert lines[-1].split()[0] == "0"
    assert "repo.create images, commit images@" in lines[-1]
    assert lines[-1].endswith("ref.set images@master")
    assert len(cli("log", "--ledger", "--limit", "1").lines) == 1
    records = cli("log", "--ledger", "--json").records
    assert [record["n"] for record in records] == list(range(len(records)))[::-1]
    assert records[0]["prev"] == records[1]["hash"]
    assert records[-1]["records"][0] == {"t": "repo.create", "repo": "images"}
    assert cli("log", "--ledger", "images").code == 2
    assert cli("log").code == 2


def test_put_links(cli: Cli, store: Path, here: Path) -> None:
    (here / "week" / "large.bin").write_bytes(b"x" * 5000)
    assert cli("put", "linked", "week", "--link").code == 0
    assert cli("cat", "linked:/sub/b.txt").out == "beta\n"
    assert cli("get", "linked", "out").code == 0
    assert (here / "out" / "large.bin").read_bytes() == b"x" * 5000
    (here / "week" / "large.bin").write_bytes(b"y" * 5001)
    answer = cli("cat", "linked:/large.bin")
    assert (answer.code, answer.out) == (1, "")
    assert "week/large.bin changed since it was put: expected 5000 bytes" in answer.err
    assert cli("put", "linked", "week", "--link", "--append").code == 2
    assert cli("fsck").out.endswith(", 3 links not looked at (--links): all is well\n")
    broken = cli("fsck", "--links")
    assert broken.code == 1
    assert broken.lines[0].split()[0] == "link"


def test_an_index_is_made_on_demand_and_changes_no_answer(cli: Cli, store: Path, here: Path) -> None:
    body = b"content to be found " * 30
    (here / "x.bin").write_bytes(body)
    assert cli("put", "found", "x.bin").code == 0
    name = digest(body).hex()[:12]
    before = cli("why", name, "--json").records
    assert before[0]["path"] == "/x.bin"
    record = cli("store", "index", "--json").records[0]
    assert record["entries"] == 3
    assert Path(record["file"]).is_file()
    assert cli("why", name, "--json").records == before
    assert cli("store", "index", "--rebuild").out.startswith("indexed 3 ledger entries in ")
    Path(record["file"]).write_bytes(b"broken" * 1000)
    assert cli("why", name, "--json").records == before


@pytest.mark.parametrize("words", [("store", "clone", "here"), ("store", "push"), ("store", "pul", "x")])
def test_wrong_words(cli: Cli, store: Path, words: tuple[str, ...]) -> None:
    assert cli(*words).code == 2


@pytest.mark.s3
def test_a_bucket_and_back(cli: Cli, store: Path, s3_url: str) -> None:
    assert cli("store", "clone", store, s3_url).code == 0
    assert cli("put", "--store", s3_url, "images", "week/a.txt", "--append").code == 0
    assert cli("store", "pull", s3_url).code == 0
    assert cli("cat", "images:/a.txt").out == "alpha again\n" * 2
    assert cli("store", "fsck", "--store", s3_url).code == 0
    assert os.environ["AWS_ENDPOINT_URL"]
