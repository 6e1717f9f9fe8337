"""What is wrong gets one clear error with its own code and a hint, and nothing is written."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from .conftest import Cli

DAG = """
from pathlib import Path
import dmlpipe as dml
dag = dml.DAG("first")
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """One wrong command line."""

    name: str
    words: str
    code: str
    """`error.code` of `--json`."""
    message: str
    """Regular expression for the first line, after `error: `."""
    hint: str = ""
    """Regular expression for the lines below it; empty: anything."""
    exit: int = 2
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Written beside the store first."""


def dag(body: str) -> dict[str, str]:
    return {"dag.py": DAG + body}


CASES = [
    Case(
        "the folder before the repo",
        "put ./week labels:/2026",
        "bad-ref",
        r"./week is a path, where the name of a repo is expected",
        r"the repo comes first: dmlpipe put labels:/2026 ./week",
    ),
    # the command line itself
    Case("unknown verb", "putt images week", "usage", "no verb 'putt'", "did you mean put"),
    Case("another tool's verb", "delete images:/a", "usage", "no verb 'delete'", "did you mean rm"),
    Case("unknown noun's verb", "repo lst", "usage", "repo has no verb 'lst'", "did you mean list"),
    Case("unknown option", "ls --recursiv images", "usage", "[Nn]o such option '?--recursiv", "see: dmlpipe ls --help"),
    Case("missing argument", "get images", "usage", "[Mm]issing argument 'DEST'", "usage: dmlpipe get"),
    Case("missing source", "put images", "usage", "missing SRC", "usage: dmlpipe put"),
    Case("no slots", "run -j 0", "usage", "[Ii]nvalid value for '-j'"),
    Case("option without its file", "run --set model.C=1", "usage", "--set needs a FILE"),
    Case(
        "setting that is none",
        "run dag.py --set C=1",
        "invalid",
        "expected PIPELINE.NAME=VALUE",
        "model.C",
        files=dag(""),
    ),
    # the store
    Case("folder that is no store", "--store week ls", "no-store", "no store at .*week", "dmlpipe init", exit=1),
    Case("unknown kind of store", "--store gopher://x/y ls", "", "gopher", exit=2),
    Case("store made twice", "init", "exists", "there is a store at .* already"),
    Case(
        "store where something else is", "init week", "exists", "week is not empty and no store", "empty or a new place"
    ),
    # names
    Case("missing repo", "ls imagse", "no-repo", "no repo 'imagse'", "did you mean images.*dmlpipe repo list", exit=1),
    Case(
        "slip in a repo to put to",
        "put imagse week",
        "no-repo",
        "no repo 'imagse'",
        "did you mean images.*--create",
        exit=1,
    ),
    Case(
        "missing branch",
        "cat images@mastr:/a.txt",
        "no-branch",
        "images@mastr: no branch 'mastr' in repo 'images'",
        "did you mean images@master\\? list: dmlpipe branch list images",
        exit=1,
    ),
    Case(
        "missing commit",
        "ls images@deadbeef",
        "no-commit",
        "images@deadbeef: no .* 'deadbeef'",
        "dmlpipe log images",
        exit=1,
    ),
    Case("too far back", "ls images@master^9", "no-commit", "only 1 ancestor", "dmlpipe log images", exit=1),
    Case("ref that is none", "ls @master", "bad-ref", "'@master' names nothing", "repo@branch:/path"),
    Case(
        "name that is none",
        "repo create 'week 34'",
        "bad-name",
        "'week 34' cannot be the name of a repo",
        "letters, digits",
    ),
    Case("repo made twice", "repo create images", "exists", "repo 'images' exists already", exit=1),
    Case("branch that is none", "branch create images week", "bad-ref", "images: expected REPO@BRANCH"),
    Case("put into the past", "put images@master^ week", "bad-ref", "not to an ancestor", "put to images@master"),
    # files
    Case("missing file", "cat images:/b.txt", "no-file", "no file /b.txt in images@", "did you mean /a.txt", exit=1),
    Case("folder as a file", "cat images:/sub", "bad-path", "images:/sub is a folder", "dmlpipe ls images:/sub"),
    Case("folder without -r", "rm images:/sub", "bad-path", "images:/sub is a folder", "-r"),
    Case("everything by accident", "rm images", "bad-path", "images names no file", "dmlpipe rm -r images:/"),
    Case("two branches in one rm", "rm images:/a.txt labels:/a.txt", "bad-ref", "one rm is one commit"),
    Case("bad glob", "ls 'images:/[a'", "bad-glob", "\\["),
    Case(
        "glob without a match",
        "cat 'images:/*.png'",
        "no-file",
        "the glob matches no file",
        "dmlpipe ls -R images",
        exit=1,
    ),
    Case("source that is not there", "put images nowhere", "no-file", "no such file or folder: nowhere", exit=1),
    Case("path with dots", "put images:/../x week", "bad-path", "the part '\\.\\.'"),
    Case("file where a folder is", "put images:/a.txt week", "bad-path|output-conflict|invalid", "a\\.txt"),
    Case("special file", "put images pipe", "bad-path", "pipe is a FIFO: only plain files"),
    Case("nameless stdin", "put images -", "bad-path", "stdin.*has no name", "images?.*-|notes:/today.txt"),
    Case("diff without a commit", "diff ./week ./week", "bad-ref", "needs a commit on one side"),
    # pipelines and jobs
    Case(
        "missing pipeline", "pipeline stop modle", "no-pipeline", "no pipeline 'modle'", "dmlpipe pipeline list", exit=1
    ),
    Case("target that is none", "run modle", "no-pipeline", "no pipeline 'modle'", exit=1),
    Case("revert of nothing", "revert modle --to master^", "no-pipeline", "no pipeline 'modle'", exit=1),
    Case("missing job", "job inspect ffff", "no-job", "no job 'ffff'", "dmlpipe job list", exit=1),
    Case("missing run", "status ffff", "not-found", "no run 'ffff'", exit=1),
    Case("missing datum", "datum logs 51ab0c", "no-datum", "no datum '51ab0c'", exit=1),
    Case("why of what is not there", "why images:/b.txt", "no-file", "no file /b.txt", exit=1),
    # DAG files
    Case("missing DAG file", "run dga.py", "no-file", "no file dga.py", "init --dag", exit=1),
    Case("no file at all", "submit images", "usage", "'images' is no FILE", "see: dmlpipe submit"),
    Case("file without a DAG", "submit empty.py", ".*", "DAG", files={"empty.py": "x = 1\n"}),
    Case(
        "DAG that is not in the file",
        "submit dag.py:secnd",
        "not-found",
        "no DAG 'secnd'",
        "there are: first",
        exit=1,
        files=dag(""),
    ),
    Case("syntax error", "run dag.py", "bad-code|user-code", "dag.py", ".*", exit=1, files={"dag.py": "def f(:\n"}),
    Case(
        "error in the file",
        "submit dag.py",
        "bad-code|user-code",
        "dag.py.*ZeroDivisionError|ZeroDivisionError",
        exit=1,
        files={"dag.py": "1 / 0\n"},
    ),
    Case(
        "missing input repo",
        "submit dag.py",
        "no-repo",
        "'labesl', which neither exists",
        "dmlpipe put labesl",
        exit=1,
        files=dag("@dag.pipeline(dml.files('labesl'))\ndef model(labesl: Path) -> dml.Files: return {}\n"),
    ),
    Case(
        "cycle",
        "submit dag.py",
        "cycle",
        "a.*b|b.*a",
        files=dag(
            "@dag.pipeline(dml.files('b'))\ndef a(b: Path) -> dml.Files: return {}\n"
            "@dag.pipeline(dml.files('a'))\ndef b(a: Path) -> dml.Files: return {}\n"
        ),
    ),
    Case(
        "two pipelines of one name",
        "submit dag.py",
        "name-clash",
        "model",
        files=dag(
            "@dag.pipeline(dml.files('images'))\ndef model(images: Path) -> dml.Files: return {}\n"
            "@dag.pipeline(dml.files('images'), name='model')\ndef other(images: Path) -> dml.Files: return {}\n"
        ),
    ),
    Case(
        "pipeline over people's data",
        "submit dag.py",
        "name-clash",
        "'labels', which holds data",
        "rename",
        files=dag("@dag.pipeline(dml.files('images'))\ndef labels(images: Path) -> dml.Files: return {}\n"),
    ),
    Case(
        "parameter that nobody has",
        "submit dag.py --set model.Q=1",
        ".*",
        "Q",
        files=dag(
            "@dag.pipeline(dml.files('images'))\ndef model(images: Path, *, C: float = 1.0) -> dml.Files: return {}\n"
        ),
    ),
    Case(
        "bad glob in a DAG",
        "submit dag.py",
        "bad-glob",
        "\\[a",
        files=dag("@dag.pipeline(dml.files('images', '/[a'))\ndef model(images: Path) -> dml.Files: return {}\n"),
    ),
    Case(
        "global that cannot be shipped",
        "submit dag.py",
        "bad-code",
        "uses global 'rows'.*pass it as a parameter",
        "version=",
        files=dag(
            "rows = iter([1, 2])\n"
            "@dag.pipeline(dml.files('images'))\ndef model(images: Path) -> dml.Files: return {'n': str(next(rows))}\n"
        ),
    ),
    Case(
        "annotation that means nothing",
        "submit dag.py",
        "bad-.*",
        "images",
        files=dag("@dag.pipeline(dml.files('images'))\ndef model(images: complex) -> dml.Files: return {}\n"),
    ),
    Case(
        "parameter that is no input",
        "submit dag.py",
        "bad-.*",
        "scans",
        files=dag("@dag.pipeline(dml.files('images'))\ndef model(scans: Path) -> dml.Files: return {}\n"),
    ),
    # specs
    Case(
        "spec with an unknown field",
        "submit spec.json",
        "bad-spec",
        "parallelism_spce|parallelismSpce",
        "parallelism",
        files={
            "spec.json": json.dumps(
                {
                    "pipeline": {"name": "m"},
                    "input": {"pfs": {"repo": "images", "glob": "/"}},
                    "transform": {"cmd": ["true"]},
                    "parallelismSpce": {},
                }
            )
        },
    ),
    Case(
        "spec without a field",
        "submit spec.json",
        "bad-spec",
        "transform|cmd",
        files={"spec.json": json.dumps({"pipeline": {"name": "m"}, "input": {"pfs": {"repo": "images", "glob": "/"}}})},
    ),
    Case("spec that is no JSON", "submit spec.json", "bad-spec", "spec.json", files={"spec.json": "{"}),
    Case(
        "parameters that are none",
        "submit dag.py --params p.yaml",
        "invalid",
        "--params p.yaml: expected",
        files={**dag(""), "p.yaml": "[1]"},
    ),
]


def _everything(store: Path) -> dict[str, float]:
    return {str(path.relative_to(store)): path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_what_is_wrong_is_said_and_nothing_is_written(case: Case, cli: Cli, store: Path, here: Path) -> None:
    os.mkfifo(here / "pipe")
    assert cli("put", "labels", "week").code == 0
    for name, text in case.files.items():
        (here / name).write_text(text)
    before = _everything(store)

    answer = cli(*shlex.split(case.words))

    first, _, rest = answer.err.partition("\n")
    if case.exit:
        assert first.startswith("error: "), answer
    assert re.search(case.message, first), answer.err
    assert re.search(case.hint, rest), answer.err
    assert answer.code == case.exit
    assert "Traceback" not in answer.err
    assert answer.out == "" or not case.exit
    assert _everything(store) == before

    told = cli("--json", *shlex.split(case.words))
    if case.exit:
        record = json.loads(told.err.splitlines()[-1])
        assert re.fullmatch(case.code or ".*", record["code"]), record
        assert record["exit"] == case.exit == told.code
        assert set(record) == {"error", "code", "hint", "exit"}


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 25
    assert len({case.name for case in CASES}) == len(CASES)


def test_no_store_anywhere(cli: Cli) -> None:
    answer = cli("ls")
    assert answer.code == 1
    assert answer.err.startswith("error: no store: neither ")
    assert "make one: dmlpipe init" in answer.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, r"has format 99; this dmlpipe reads format 1\n  upgrade dmlpipe"),
        ({"version": 0}, r"has format 0; this dmlpipe reads format 1"),
        ({"read_features": ["hovercraft"]}, r"needs hovercraft, which this dmlpipe lacks\n  upgrade dmlpipe"),
        ({"format": "other"}, r"holds 'other', not a dmlpipe store"),
    ],
)
def test_a_store_of_another_format(change: dict[str, object], message: str, cli: Cli, store: Path) -> None:
    info = store / "dmlpipe.json"
    info.chmod(0o644)
    info.write_text(json.dumps(json.loads(info.read_text()) | {"check": ""} | change))
    answer = cli("ls")
    assert answer.code == 1
    assert re.search(message, answer.err)


def test_a_store_with_an_unknown_way_of_writing_can_be_read_only(cli: Cli, store: Path) -> None:
    info = store / "dmlpipe.json"
    info.chmod(0o644)
    info.write_text(json.dumps(json.loads(info.read_text()) | {"check": ""} | {"write_features": ["hovercraft"]}))
    assert cli("ls", "images").code == 0
    answer = cli("put", "images", "week/sub")
    assert answer.code == 1
    assert "was opened read-only" in answer.err
    assert json.loads(cli("put", "images", "week/sub", "--json").err)["code"] == "read-only"


def test_damage_is_told(cli: Cli, store: Path) -> None:
    info = store / "dmlpipe.json"
    info.chmod(0o644)
    info.write_text("{")
    answer = cli("ls")
    assert (answer.code, json.loads(cli("ls", "--json").err)["code"]) == (1, "corrupt")
    assert "dmlpipe.json" in answer.err


def test_a_traceback_comes_only_with_v(cli: Cli, store: Path) -> None:
    assert "Traceback" not in cli("ls", "nothing").err
    assert "Traceback" in cli("ls", "nothing", "-v").err


def test_a_defect_is_told_as_one(cli: Cli, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object, **_options: object) -> None:
        raise RuntimeError("out of cheese")

    monkeypatch.setattr("dmlpipe.storage.store.Store.open", broken)
    answer = cli("ls")
    assert answer.code == 1
    assert answer.err == "error: RuntimeError: out of cheese\n  this is a defect of dmlpipe; -v shows where\n"


def test_ctrl_c_is_130(cli: Cli, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dmlpipe.storage.store.Store.open", interrupted)
    assert cli("ls").code == 130


def test_a_full_disk_is_told(cli: Cli, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device", "/x")

    monkeypatch.setattr("dmlpipe.storage.store.Store.open", full)
    answer = cli("ls", "--json")
    assert json.loads(answer.err)["code"] == "disk-full"
