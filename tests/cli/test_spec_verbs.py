"""`submit` for somebody who brings specifications: looked at, written out, recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli

SPEC: dict[str, Any] = {
    "pipeline": {"name": "edges"},
    "transform": {"image": "lab/edges:1", "cmd": ["sh"], "stdin": ["sh /code/edges.sh"]},
    "parallelism_spec": {"constant": 4},
    "params": {"depth": 3},
    "input": {"pfs": {"repo": "images", "glob": "/*"}},
}


@pytest.fixture
def spec(here: Path) -> Path:
    path = here / "edges.json"
    path.write_text(json.dumps(SPEC))
    (here / "code").mkdir()
    (here / "code" / "edges.sh").write_text("ls /pfs/images > /pfs/out/$depth\n")
    return path


def test_check_needs_no_store_and_says_what_is_lacking(cli: Cli, spec: Path) -> None:
    answer = cli("submit", "--check", "edges.json")
    assert answer.code == 0, answer.err
    header, row = (line.split("  ") for line in answer.lines[:2])
    assert header[0] == "pipeline"
    assert row[0] == "edges"
    assert {"script /code/edges.sh, repo images", "parallelism_spec"} <= {cell.strip() for cell in row}
    assert answer.lines[3:] == [
        "1 pipeline · 1 ok with notices; nothing was written",
        "repos to put first: images",
        "scripts in /code: take them out of the image, and give their folder with --code DIR",
    ]
    assert not (spec.parent / ".dmlpipe").exists()
    better = cli("submit", "--check", "edges.json", "--code", "code", "--json").records[0]
    assert (better["runs"], better["scripts"], better["missing_repos"]) == ("process", [], ["images"])


def test_check_takes_any_number_of_files_and_fails_if_one_is_refused(cli: Cli, here: Path) -> None:
    for number in range(40):
        one = {**SPEC, "pipeline": {"name": f"p{number}"}}
        if number == 7:
            one["tf_job"] = {"x": 1}
        (here / f"{number}.json").write_text(json.dumps(one))
    answer = cli("submit", "--check", *(f"{number}.json" for number in range(40)))
    assert answer.code == 1
    assert "40 pipelines · 39 ok with notices · 1 refused; nothing was written" in answer.lines
    assert "7.json:1  p7" in answer.lines
    assert "  tf_job is not supported" in answer.lines


def test_a_dry_run_prints_the_effective_spec(cli: Cli, store: Path, spec: Path) -> None:
    answer = cli("submit", "-n", "edges.json", "--code", "code", "--set", "edges.depth=4")
    assert answer.code == 0, answer.err
    effective = json.loads(answer.out)
    assert effective["params"] == {"depth": 4}
    assert effective["datum_tries"] == 3
    assert effective["input"]["pfs"]["branch"] == "master"
    assert "note: nothing was written" in answer.err
    assert cli("pipeline", "list").out == ""
    again = cli("submit", "-n", "edges.json", "--json").records[0]
    assert (again["status"], again["spec"]["params"]) == ("new", {"depth": 3})


def test_a_parameter_it_does_not_have_is_refused(cli: Cli, store: Path, spec: Path) -> None:
    answer = cli("submit", "edges.json", "--set", "edges.dpth=4")
    assert (answer.code, answer.err.splitlines()[1].strip()) == (2, "did you mean 'depth'?")


def test_a_spec_becomes_python_that_changes_nothing(cli: Cli, store: Path, spec: Path) -> None:
    assert cli("submit", "edges.json", "--code", "code").code == 0
    (spec.parent / "dag.py").write_text(cli("submit", "--to-python", "edges.json", "--code", "code").out)
    planned = cli("submit", "dag.py", "--json").records[0]
    assert (planned["pipeline"], planned["status"]) == ("edges", "cosmetic")


def test_a_container_belongs_to_the_version(cli: Cli, store: Path, spec: Path) -> None:
    assert cli("submit", "edges.json", "--code", "code").code == 0
    changed = cli("submit", "edges.json", "--code", "code", "--container", "podman", "--json")
    assert changed.records[0]["status"] == "changed"
    assert any("counts by its name" in notice for notice in changed.records[0]["notices"])
    assert "unknown" not in cli("submit", "edges.json", "--container", "lxc").err
    assert cli("submit", "edges.json", "--container", "lxc").code == 2
    (spec.parent / "dag.py").write_text("import dmlpipe\ndag = dmlpipe.DAG('d')\n")
    assert "--container belongs to specs" in cli("submit", "dag.py", "--container", "podman").err


def test_templates_and_the_schema(cli: Cli, store: Path, here: Path) -> None:
    (here / "t.jsonnet").write_text(f"function(name) {json.dumps(SPEC)} + {{pipeline: {{name: name}}}}")
    assert cli("submit", "--jsonnet", "t.jsonnet", "--arg", "name=one", "--json").records[0]["pipeline"] == "one"
    assert cli("submit", "t.jsonnet", "--arg", "name").code == 2
    assert json.loads(cli("submit", "--schema").out)["$defs"]["pfs"]["required"] == ["repo", "glob"]


def shapes() -> list[dict[str, Any]]:
    """Inputs as the pipelines have them that people learn Pachyderm from: maps, reduces, joins, groups, ticks."""

    def pfs(repo: str, glob: str = "/*", **fields: Any) -> dict[str, Any]:
        return {"pfs": {"repo": repo, "glob": glob, **fields}}

    keyed = [pfs(repo, "/(*).txt", joinOn="$1") for repo in ("shops", "purchases")]
    return [
        pfs("words", "/*"),
        pfs("words", "/"),
        {"cross": [pfs("images", "/"), pfs("edges", "/")]},
        {"join": keyed},
        {"join": [keyed[0], {"pfs": {**keyed[1]["pfs"], "outerJoin": True}}]},
        {"group": [pfs("purchases", "/*_(*).txt", groupBy="$1")]},
        {"union": [pfs("images"), pfs("words")]},
        {"cron": {"name": "tick", "spec": "@every 60s", "overwrite": True}},
    ]


def test_forty_specs_are_judged_at_once_and_nothing_is_written(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = []
    for number in range(40):
        spec = {
            "pipeline": {"name": f"p{number}"},
            "transform": {"image": "lab/x:1", "cmd": ["sh"], "stdin": ["true"]},
            "parallelismSpec": {"constant": 4},
            "input": shapes()[number % 8],
            **({"outputBranch": "staging"} if number % 8 == 0 else {}),
        }
        names.append(f"p{number}.json")
        (tmp_path / names[-1]).write_text(json.dumps(spec))
    before = sorted(path.name for path in tmp_path.iterdir())
    read: list[str] = []
    plain = Path.read_text

    def counted(path: Path, *args: Any, **options: Any) -> str:
        read.append(path.name)
        return plain(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", counted)
    answer = cli("submit", "--check", *names, "--json")
    assert [(row["pipeline"], row["verdict"]) for row in answer.records] == [
        (f"p{number}", "ok with notices") for number in range(40)
    ]
    assert sorted(name for name in read if name in names) == sorted(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
