"""The demo keeps every promise: played twice by the command itself, then looked at with other eyes than its own."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dmlpipe.cli.demo.story
from dmlpipe.cli.main import main
from dmlpipe.storage.store import Store

REPOS = ("training", "labels", "images", "model", "predictions", "report")
LIMIT_S = 170
pytestmark = pytest.mark.timeout(LIMIT_S + 20)

JOBS = [
    ("model", 1, 0),
    ("predictions", 1000, 0),
    ("report", 1, 0),
    # ten images arrive
    ("predictions", 10, 1000),
    ("report", 1, 0),
    # mislabelled training data
    ("model", 1, 0),
    ("predictions", 1010, 0),
    ("report", 1, 0),
    # reverted
    ("predictions", 0, 1010),
    ("report", 0, 1),
    # ten more images, predicted by the held model
    ("predictions", 10, 1010),
    ("report", 1, 0),
]
"""Pipeline, datums run, datums skipped: every job of the demo, in order."""


@dataclasses.dataclass(frozen=True)
class Performance:
    """One demo that was played to its end."""

    folder: Path
    lines: list[dict[str, object]]
    told: str

    @property
    def store(self) -> Store:
        return Store.open(str(self.folder / ".dmlpipe"), read_only=True)

    @property
    def claims(self) -> list[str]:
        return [str(line["claim"]) for line in self.lines if "claim" in line]


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    code = "import sys; from dmlpipe.cli.main import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, "demo", "--json", "--keep", str(folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def performances(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Performance, Performance]]:
    """Two of them, side by side, in folders of different names."""
    base = tmp_path_factory.mktemp("demo")
    folders = [base / name for name in ("one", "another")]
    started = [start(folders[0], "--pictures", str(base / "pictures")), start(folders[1])]
    try:
        played = []
        for folder, process in zip(folders, started, strict=True):
            out, err = process.communicate(timeout=LIMIT_S)
            assert process.returncode == 0, err
            played.append(Performance(folder, [json.loads(line) for line in out.splitlines()], err))
        one, another = played
        yield one, another
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_every_job_did_what_the_demo_says(performances: tuple[Performance, Performance]) -> None:
    for played in performances:
        # Jobs that compute nothing may end in one entry.
        jobs = sorted(
            ((job.end_n, REPOS.index(job.pipeline), job.end.counters) for _, job in played.store.state.jobs()),
            key=lambda job: job[:2],
        )
        assert [(REPOS[repo], counters.run, counters.skipped) for _, repo, counters in jobs] == JOBS
        assert {job.state for _, job in played.store.state.jobs()} == {"done"}


def test_all_claims_held_and_there_are_many(performances: tuple[Performance, Performance]) -> None:
    one, another = performances
    assert len(one.claims) >= 20
    assert one.lines[-1]["claims"] == len(one.claims)
    # Two of them name commits, which hold the time.
    assert [claim.split("@")[0] for claim in one.claims] == [claim.split("@")[0] for claim in another.claims]


def test_two_performances_make_equal_trees(performances: tuple[Performance, Performance]) -> None:
    def trees(played: Performance, repo: str) -> list[str]:
        store = played.store
        return [store.body(head.commit).tree for head in store.state.history(repo)]

    one, another = performances
    for repo in REPOS:
        assert trees(one, repo) == trees(another, repo)
    # put, put, revert, in that order; the reverted head is the first one again.
    newest, _bad, first = trees(one, "model")
    assert newest == first


def test_the_wrong_prediction_is_explained(performances: tuple[Performance, Performance]) -> None:
    for played in performances:
        assert "└─" in played.told
        assert "C=1.0" in played.told or "C = 1.0" in played.told


def test_every_step_is_told_with_its_command(performances: tuple[Performance, Performance]) -> None:
    told = performances[0].told
    for n in range(1, 9):
        assert f"\n{n}  " in told
    for verb in ("init", "put", "run", "why", "cat", "diff", "revert", "status", "release", "plan"):
        assert f"$ dmlpipe {verb}" in told
    assert str(performances[0].folder) in told


def test_the_folder_that_it_left_goes_on_working(
    performances: tuple[Performance, Performance], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(performances[0].folder)
    monkeypatch.delenv("DMLPIPE_STORE", raising=False)
    assert main(["fsck"]) == 0
    assert main(["get", "report:/confusion.png", "."]) == 0
    assert Path("confusion.png").read_bytes().startswith(b"\x89PNG")
    assert main(["plan", "--exit-code", "dag.py"]) == 3


def test_the_pictures_of_the_readme_are_made(performances: tuple[Performance, Performance]) -> None:
    pictures = performances[0].folder.parent / "pictures"
    names = {path.name for path in pictures.glob("*.svg")}
    assert names == {"run.svg", "why.svg", "plan.svg"}
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    for name in names:
        assert (pictures / name).read_text().startswith("<svg")
        assert f"docs/pictures/{name}" in readme


def test_a_count_that_is_not_as_said_ends_it_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dmlpipe.cli.demo.story, "INPUT", 999)
    assert main(["demo", "--keep", str(tmp_path / "demo")]) == 1
    told = capfd.readouterr()
    assert (
        "the demo said '697 + 1 + 999 files in three commits': expected (697, 1, 999), found (697, 1, 1000)" in told.err
    )
    assert str(tmp_path / "demo") in told.out


def test_it_plays_in_no_folder_that_holds_something(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["demo", "--keep", str(tmp_path)]) == 2
    assert "is not empty" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
