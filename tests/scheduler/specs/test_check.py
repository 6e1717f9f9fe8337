from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from dmlpipe.scheduler.specs.check import Verdict, check_specs


def spec(name: str, repo: str = "images", **changes: Any) -> dict[str, Any]:
    transform = {"image": f"lab/{name}:1", "cmd": ["sh"], **changes.pop("transform", {})}
    return {
        "pipeline": {"name": name},
        "transform": transform,
        "input": {"pfs": {"repo": repo, "glob": "/*"}},
        **changes,
    }


def check(folder: Path, *specs: Any, repos: tuple[str, ...] = ("images",), **options: Any) -> list[Verdict]:
    path = folder / "specs.json"
    path.write_text(json.dumps(specs))
    found = options.pop("programs", ("sh",))
    return check_specs(
        [path], repos=repos, environ={}, find=lambda name: f"/bin/{name}" if name in found else None, **options
    )


def test_a_spec_that_runs_as_it_is(tmp_path: Path) -> None:
    lines = [
        "ls /pfs/images > /pfs/out/x; ls /dev/null /tmp/x",
        "find -L /pfs -path '*/images/*' -not -path '?/x/[a]/y'",
    ]
    plain = {**spec("a"), "transform": {"cmd": ["sh"], "stdin": lines}}
    (verdict,) = check(tmp_path, plain)
    assert verdict == Verdict(str(tmp_path / "specs.json"), 1, "a", "ok", runs="process")


def test_scripts_inside_the_image_are_listed_and_decide_how_it_runs(tmp_path: Path) -> None:
    data = spec("a", transform={"cmd": ["python3", "/app/train.py", "/pfs/images"], "stdin": ["cat /code/x.txt"]})
    programs = ("python3",)
    (bare,) = check(tmp_path, data, programs=programs)
    assert bare.scripts == ("/app/train.py", "/code/x.txt")
    assert bare.runs == "not: no /app/train.py, no /code/x.txt"
    (box,) = check(tmp_path, data, programs=(*programs, "docker"))
    assert box.runs == "docker, with --container"
    (chosen,) = check(tmp_path, data, programs=(*programs, "docker", "podman"), container="docker")
    assert chosen.runs == "docker"
    (lacking,) = check(tmp_path, data, container="apptainer")
    assert lacking.runs == "not: no apptainer"
    (no_program,) = check(tmp_path, spec("b", transform={"cmd": ["Rscript", "x.R"]}))
    assert no_program.runs == "not: no program Rscript, no x.R"


def test_scripts_beside_the_images_working_directory_are_listed_too(tmp_path: Path) -> None:
    data = spec("a", transform={"cmd": ["python", "-u", "inner/main.py", "--out", "/pfs/out/b.py"]})
    lines = ["cd /tmp && bash run.sh gpu", "python3 ./ingest.py; echo made.py", "for f in /pfs/images/*.py; do"]
    shell = spec("b", transform={"cmd": ["sh"], "stdin": lines})
    programs = ("python", "sh")
    first, second = check(tmp_path, data, shell, programs=programs)
    assert (first.scripts, first.runs) == (("inner/main.py",), "not: no inner/main.py")
    assert second.scripts == ("run.sh", "./ingest.py")
    (tmp_path / "scripts" / "inner").mkdir(parents=True)
    (tmp_path / "scripts" / "inner" / "main.py").touch()
    (given,) = check(tmp_path, data, programs=programs, code=tmp_path / "scripts")
    assert (given.scripts, given.runs) == ((), "process")


def test_a_code_folder_has_the_scripts(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "train.py").touch()
    data = spec("a", transform={"cmd": ["sh", "/code/train.py", "/code/gone.py"]})
    (given,) = check(tmp_path, data, code=tmp_path / "scripts")
    assert given.scripts == ("/code/gone.py",)
    (own,) = check(tmp_path, {**data, "code": "scripts"})
    assert own.scripts == ("/code/gone.py",)


def test_secrets_are_looked_for_where_it_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    known = tmp_path / ".config/dmlpipe/secrets/db/password"
    known.parent.mkdir(parents=True)
    known.write_text("x")
    known.chmod(stat.S_IRUSR | stat.S_IWUSR)
    secrets = [{"name": "db", "key": "password", "env_var": "PASSWORD"}, {"name": "tls", "mount_path": "/run/tls"}]
    (verdict,) = check(tmp_path, spec("a", transform={"secrets": secrets}))
    assert verdict.secrets == ("PASSWORD=db/password", "/run/tls=tls (missing)")


def test_repos_that_nobody_makes_are_missing(tmp_path: Path) -> None:
    first, second, third = check(tmp_path, spec("a"), spec("b", "a"), spec("c", "labels"))
    assert (first.missing_repos, second.missing_repos, third.missing_repos) == ((), (), ("labels",))
    assert [each.missing_repos for each in check(tmp_path, spec("a"), repos=())] == [("images",)]


def test_fields_without_meaning_are_named_and_a_wrong_one_hides_no_other(tmp_path: Path) -> None:
    wrong = spec("wrong", datum_trys=3)
    refused, noticed = check(
        tmp_path, wrong, spec("a", podPatch="[]", parallelism_spec={"constant": 2}, transform={"debug": True})
    )
    assert (refused.verdict, refused.pipeline) == ("refused", "wrong")
    assert refused.why == "unknown field 'datum_trys'"
    assert refused.hint == "did you mean 'datum_tries'?"
    assert noticed.verdict == "ok with notices"
    assert noticed.without_meaning == ("podPatch", "parallelism_spec", "transform.debug")


def test_two_of_one_name_and_a_cycle_are_refused(tmp_path: Path) -> None:
    assert {each.verdict for each in check(tmp_path, spec("a"), spec("a"))} == {"refused"}
    one, two = tmp_path / "1.json", tmp_path / "2.json"
    one.write_text(json.dumps(spec("a")))
    two.write_text(json.dumps(spec("a")))
    # Of two files the later one is an update.
    first, second = check_specs([one, two], repos=())
    assert (first.verdict, second.verdict) == ("ok with notices", "ok with notices")
    assert first.notices[-1] == "a: 2.json:1 has this name too, and replaces it if it is submitted later"
    a, b, other = check(tmp_path, spec("a", "b"), spec("b", "a"), spec("other"))
    assert (a.verdict, b.verdict) == ("refused", "refused")
    assert "cycle" in a.why
    assert other.verdict != "refused"


def test_a_file_that_cannot_be_read_is_one_verdict(tmp_path: Path) -> None:
    bad, empty = tmp_path / "bad.json", tmp_path / "empty.yaml"
    bad.write_text("{")
    empty.write_text("")
    found = check_specs([bad, empty], repos=())
    assert [(each.verdict, each.pipeline) for each in found] == [("refused", "")] * 2
