"""The examples and the README do what they say: every command in them is typed here, in a copy of their folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dmlpipe.cli.main import main
from dmlpipe.storage.store import Store

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
pytestmark = pytest.mark.timeout(150)


def blocks(page: Path, language: str = "") -> list[list[str]]:
    """Lines of the fenced blocks of a page, in order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [block.splitlines() for name, block in found if name == language]


def type_line(line: str) -> int:
    """Type one line of a page: dmlpipe in this process, Python in another."""
    words = shlex.split(line, comments=True)
    match words:
        case []:
            return 0
        case ["dmlpipe", *rest]:
            return main(rest)
        case ["python", *rest]:
            subprocess.run([sys.executable, *rest], check=True, timeout=60)
            return 0
    raise AssertionError(f"what is this line? {line}")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to type in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DMLPIPE_STORE", raising=False)
    return tmp_path


def copy_example(name: str, here: Path) -> None:
    shutil.copytree(EXAMPLES / name, here, dirs_exist_ok=True)


def jobs(*, last: int) -> list[tuple[str, int, int]]:
    """Pipeline, datums run, datums skipped of the last jobs, oldest first."""
    state = Store.open(read_only=True).state
    done = [(job.pipeline, job.end.counters.run, job.end.counters.skipped) for _, job in state.jobs()]
    return done[:last][::-1]


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


def test_one_changed_chunk_of_an_array_reruns_one_datum(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy_example("array", here)
    first, second = blocks(here / "README.md")
    for line in first:
        assert type_line(line) == 0, line
    assert jobs(last=2) == [("model", 1, 0), ("segments", 6, 0)]
    why = " ".join(capfd.readouterr().out.split())
    store = Store.open(read_only=True)
    for repo in ("scenes", "model", "training"):
        assert f"{repo}@{store[repo].id[:6]}" in why
    for line in second:
        assert type_line(line) == 0, line
    assert jobs(last=1) == [("segments", 1, 5)]


def test_the_output_of_the_array_example_is_the_array_one_expects(here: Path) -> None:
    import numpy as np
    import zarr

    copy_example("array", here)
    for line in blocks(here / "README.md")[0]:
        assert type_line(line) == 0, line
    scene = zarr.open_array(str(here / "scene" / "ndvi"), mode="r")
    store = Store.open(read_only=True)
    threshold = json.loads(store["model"].read_bytes("/model.json"))["threshold"]
    made = store["segments"].array()
    assert made.dtype == np.uint8
    assert made.chunks == scene.chunks
    np.testing.assert_array_equal(made[...], (np.asarray(scene[...]) > threshold).astype(np.uint8))


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


def test_a_grid_computes_each_pair_once(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy_example("grid", here)
    first, longer = blocks(here / "README.md")
    for line in first:
        assert type_line(line) == 0, line
    assert jobs(last=2) == [("scores", 8, 0), ("best", 1, 0)]
    told = capfd.readouterr().out
    best = json.loads(next(line for line in told.splitlines() if line.startswith("{")))
    assert best["accuracy"] > 0.9
    for line in longer:
        assert type_line(line) == 0, line
    assert "2 of 10" in capfd.readouterr().out
    assert jobs(last=2) == [("scores", 2, 8), ("best", 1, 0)]


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


def test_the_tests_of_the_digits_example_pass(here: Path) -> None:
    copy_example("digits", here)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(here)},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readmes_ten_lines_do_what_it_says(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (python,) = blocks(ROOT / "README.md", "python")
    commands = next(block for block in blocks(ROOT / "README.md") if block[0] == "dmlpipe init")
    Path("dag.py").write_text("\n".join(python) + "\n")
    for path, text in {
        "2025/a.txt": "1 2 3 2 1 2 3",
        "2026/b.txt": "9 8 9",
        "week/mon.txt": "2 7 2",
        "week/tue.txt": "2 2 2",
        "late/sun.txt": "1 8",
    }.items():
        (here / "sensors" / path).parent.mkdir(parents=True, exist_ok=True)
        (here / "sensors" / path).write_text(text)
    counts = {
        "dmlpipe run dag.py": [("model", 1, 0), ("alarms", 2, 0)],
        "dmlpipe run # one datum": [("alarms", 1, 2)],
        "dmlpipe run # a new model": [("model", 1, 0), ("alarms", 3, 0)],
        "dmlpipe run # zero datums": [("alarms", 0, 3)],
    }
    seen = []
    for line in commands:
        assert type_line(line) == 0, line
        for start, expected in counts.items():
            if re.sub(r" +", " ", line).startswith(start):
                seen.append(start)
                assert jobs(last=len(expected)) == expected, line
    assert seen == list(counts)
    assert "7" in Store.open(read_only=True)["alarms"].read_bytes("/mon.txt").decode()
    assert "~ /mon.txt" in capfd.readouterr().out.replace("~  /", "~ /")


def test_the_readme_says_things_in_their_order() -> None:
    readme = (ROOT / "README.md").read_text()
    order = [
        "Data-versioned machine-learning",
        "docs/pictures/why.svg",
        "make demo",
        "make test",
        "```python",
        "dmlpipe init",
        "not there yet",
    ]
    places = [readme.index(text) for text in order]
    assert places == sorted(places)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/adr/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_a_carried_model_labels_files_of_any_folder(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("magika")
    copy_example("filetypes", here)
    (lines,) = blocks(here / "README.md")
    for line in lines:
        assert type_line(line) == 0, line
    assert jobs(last=2) == [("kinds", 1, 2), ("table", 1, 0)]
    told = capfd.readouterr().out
    assert "code/area.txt,python," in told
    assert "letters/page,html," in told
    assert "magika@" in told
    store = Store.open(read_only=True)
    assert b"code/build,shell," in store["table"].read_bytes("/kinds.csv")
