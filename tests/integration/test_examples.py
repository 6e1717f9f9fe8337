"""The examples do what they say: every command in them is typed here, in a copy of their folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dmlpipe.storage.store import Store
from tests.integration.pages import EXAMPLES, ROOT, blocks, copy_example, jobs, type_line

pytestmark = pytest.mark.timeout(150)


def test_specs_from_pachyderm_run_as_they_are_and_awk_says_the_same(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy_example("iris", here)
    python, awk, perl = blocks(here / "README.md")
    for line in python:
        assert type_line(line) == 0, line
    assert jobs(last=2) == [("model", 1, 0), ("inference", 2, 0)]
    by_python = Store.open(read_only=True)
    told = capfd.readouterr()
    assert "pachyderm/iris-train:python-svm" in told.err
    assert "Iris-virginica" in told.out
    for line in awk:
        assert type_line(line) == 0, line
    assert jobs(last=2) == [("model", 1, 0), ("inference", 2, 0)]
    by_awk = Store.open(read_only=True)
    for repo in ("model", "inference"):
        assert by_python[repo].tree.root == by_awk[repo].tree.root
    awks = {repo: by_awk[repo] for repo in ("model", "inference")}
    capfd.readouterr()
    for line in perl:
        assert type_line(line) == 0, line
    by_perl = Store.open(read_only=True)
    for repo, made in awks.items():
        assert by_perl[repo].id != made.id
        assert by_perl[repo].tree.root == made.tree.root
    listed = [line.split()[:2] for line in capfd.readouterr().out.splitlines()[-3:]]
    assert listed == [["v3", "changed"], ["v2", "changed"], ["v1", "new"]]


def test_pachyderms_specs_are_copies() -> None:
    names = {path.name for path in (EXAMPLES / "iris" / "pachyderm").iterdir()}
    assert names == {
        f"{language}_{what}.pipeline.json" for language in ("python", "rstats") for what in ("infer", "train")
    }
    assert "examples/iris/pachyderm" in (ROOT / "NOTICE").read_text()


def test_joins_and_groups_run_what_a_new_file_belongs_to(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy_example("shops", here)
    first, late, specs = blocks(here / "README.md")
    for line in first:
        assert type_line(line) == 0, line
    assert sorted(jobs(last=4)) == [("kept", 5, 0), ("months", 2, 0), ("revenue", 5, 0), ("things", 6, 0)]
    told = capfd.readouterr().out
    assert "252.46 in 3 shops" in told
    assert "revenue@" in told.partition("month")[2]
    for line in late:
        assert type_line(line) == 0, line
    assert sorted(jobs(last=4)) == [("kept", 1, 5), ("months", 1, 1), ("revenue", 1, 5), ("things", 1, 6)]
    for line in specs:
        assert type_line(line) == 0, line
    assert sorted(jobs(last=2)) == [("priced", 6, 0), ("slips", 3, 0)]
    store = Store.open(read_only=True)
    assert store["kept"].read_bytes("/bergen_2026-02.txt") == b"490\n"
    assert store["slips"].read_bytes("/bergen.csv") == b"lamp,490\nrug,1290\nlamp,490\nvase,250\nvase,250\n"
    used = {use.name: use.path for use in store.why("kept:/lisbon_2026-01.txt").inputs}
    assert used == {"bought": "/lisbon_2026-01.csv"}


def test_functions_and_commands_count_the_same_words(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy_example("wordcount", here)
    functions, commands, again = blocks(here / "README.md")
    for line in functions:
        assert type_line(line) == 0, line
    assert jobs(last=2) == [("counts", 1, 3), ("totals", 1, 0)]
    words = {name: int(number) for name, number in map(str.split, totals().splitlines())}
    texts = " ".join(path.read_text().lower() for path in here.glob("*/*.txt"))
    assert words == {word: len(re.findall(rf"\b{word}\b", texts)) for word in re.findall("[a-z]+", texts)}
    trees = {repo: Store.open(read_only=True)[repo].tree.root for repo in ("counts", "totals")}
    capfd.readouterr()
    for line in commands:
        assert type_line(line) == 0, line
    assert jobs(last=2) == [("counts", 4, 0), ("totals", 1, 0)]
    assert trees == {repo: Store.open(read_only=True)[repo].tree.root for repo in ("counts", "totals")}
    for line in again:
        assert type_line(line) == 0, line
    assert jobs(last=2) == [("counts", 0, 4), ("totals", 0, 1)]


def totals() -> str:
    return Store.open(read_only=True)["totals"].read_bytes("/totals.tsv").decode()


def test_pictures_end_in_one_sheet(here: Path) -> None:
    from PIL import Image

    copy_example("montage", here)
    first, more = blocks(here / "README.md")
    for line in first:
        assert type_line(line) == 0, line
    assert jobs(last=2) == [("edges", 6, 0), ("sheet", 1, 0)]
    assert Image.open(here / "sheet.png").size == (4 * 160, 2 * 2 * 120)
    seen = []
    for line in more:
        assert type_line(line) == 0, line
        if line.startswith("dmlpipe run"):
            seen.append(jobs(last=1))
    assert seen == [[("sheet", 1, 0)], [("sheet", 1, 0)]]
    assert ("edges", 1, 6) in jobs(last=3)


def test_work_begins_when_a_branch_is_moved(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy_example("deferred", here)
    staged, batched, moved = blocks(here / "README.md")
    for line in staged:
        assert type_line(line) == 0, line
    assert jobs(last=1) == []
    for line in batched:
        assert type_line(line) == 0, line
    told = capfd.readouterr().out
    assert "staging: 2 commits" in told
    assert "lamp 2\nrug 1\nvase 1\n" in told
    assert jobs(last=2) == [("stock", 1, 0)]
    assert re.search(r"^invoices +waits for data .*\nstock +up to date", told, re.MULTILINE)
    for line in moved:
        assert type_line(line) == 0, line
    assert jobs(last=2) == [("invoices", 4, 0), ("invoices", 0, 3)]
    assert len(list(Store.open(read_only=True)["invoices"].ls("/"))) == 3


def test_a_report_is_made_at_each_tick(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy_example("cron", here)
    first, later = blocks(here / "README.md")
    for line in first:
        assert type_line(line) == 0, line
    assert jobs(last=2) == [("report", 1, 0)]
    assert "bergen\t180\nlisbon\t80\n" in capfd.readouterr().out
    for line in later:
        assert type_line(line) == 0, line
    assert jobs(last=3) == [("report", 1, 0)] * 2
    told = capfd.readouterr().out
    assert "zurich\t300\n" in told
    assert "report_day@" in told
    store = Store.open(read_only=True)
    ticks = [info.path for info in store["report_day"].ls("/")]
    assert [store["report"].read_bytes("/as-of.txt").decode().strip()] == [path.strip("/") for path in ticks]
