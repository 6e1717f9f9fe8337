"""Pachyderm's specs as they are: `/pfs` and `/code` where their scripts look, in any language."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.terminal import Terminal

pytestmark = pytest.mark.timeout(120)

IRIS = Path(__file__).resolve().parents[2] / "examples" / "iris"
SPECS = {name: f"pachyderm/python_{name}.pipeline.json" for name in ("train", "infer")}

LOOK = {
    "pipeline": {"name": "look"},
    "transform": {
        "cmd": ["sh", "-e"],
        "stdin": [
            'out="/pfs/out/$(basename /pfs/rows/*)"',
            "pwd > $out",
            "ls -A /pfs/rows /pfs/all /code >> $out",
            "sh /code/say.sh >> $out",
            "echo token=$TOKEN aws=$AWS_SECRET_ACCESS_KEY >> $out",
            "if echo changed 2> /dev/null > /pfs/rows/*; then echo written >> $out; fi",
        ],
        "env": {"TOKEN": "t0"},
    },
    "input": {
        "cross": [
            {"pfs": {"repo": "attributes", "glob": "/*", "name": "rows"}},
            {"pfs": {"repo": "attributes", "glob": "/", "name": "all"}},
        ]
    },
}


@pytest.fixture
def iris(terminal: Terminal) -> Terminal:
    """The example's folder with its data in a store."""
    shutil.copytree(IRIS, terminal.folder, dirs_exist_ok=True)
    terminal.type("init")
    terminal.type("put", "training", "data/iris.csv")
    terminal.type("put", "attributes", "data/test")
    return terminal


def submit(iris: Terminal, *specs: str) -> str:
    """Submit with the scripts; what is told."""
    told = [iris.type("submit", spec, "--code", "code") for spec in specs]
    return "".join(done.stdout + done.stderr for done in told)


def edit(iris: Terminal, path: str, **changes: Any) -> None:
    """Change top-level fields of a spec, or drop them (None)."""
    spec = json.loads((iris.folder / path).read_text()) | changes
    iris.write(path, json.dumps({name: value for name, value in spec.items() if value is not None}))


def test_python_and_awk_are_two_versions_of_the_same_pipelines(iris: Terminal) -> None:
    told = submit(iris, *SPECS.values())
    assert "pachyderm/iris-train:python-svm" in told, "a notice: the image is not used"
    iris.type("run", "-j", "2")
    assert iris.jobs(last=2) == [("model", "done", 1, 0, 0), ("inference", "done", 2, 0, 0)]
    by_python = {repo: iris.store()[repo] for repo in ("model", "inference")}
    expected = predict(iris.folder)
    assert {
        file.name: by_python["inference"].read_bytes(file.path) for file in by_python["inference"].ls("/")
    } == expected

    told = submit(iris, "awk/iris.pipeline.yaml")
    assert [line.split()[:3] for line in told.splitlines() if "changed" in line] == [
        ["model", "changed", "v2"],
        ["inference", "changed", "v2"],
    ]
    iris.type("run", "-j", "2")
    assert iris.jobs(last=2) == [("model", "done", 1, 0, 0), ("inference", "done", 2, 0, 0)]
    store = iris.store()
    by_awk = {repo: store[repo] for repo in by_python}
    assert all(by_awk[repo].id != by_python[repo].id for repo in by_python)
    assert [view.tree.root for view in by_awk.values()] == [view.tree.root for view in by_python.values()]
    # Each commit is explained by the version that made it.
    versions = {at: store.why(f"inference@{at}:/1.csv").code for at in ("master", "master^")}
    assert {at: code and code.version for at, code in versions.items()} == {"master": 2, "master^": 1}
    assert iris.type("diff", "inference@master^", "inference").stdout == ""


def predict(folder: Path) -> dict[str, bytes]:
    """The same by the same scripts, without dmlpipe."""
    (folder / "model").mkdir()
    (folder / "predicted").mkdir()
    (folder / "alone").mkdir()
    shutil.copy(folder / "data" / "iris.csv", folder / "alone")
    for script, *places in (("pytrain.py", "alone", "model"), ("pyinfer.py", "model", "data/test", "predicted")):
        subprocess.run([sys.executable, f"code/{script}", *places], cwd=folder, check=True, timeout=60)
    return {path.name: path.read_bytes() for path in (folder / "predicted").iterdir()}


def test_an_edit_that_changes_no_result_starts_nothing(iris: Terminal) -> None:
    submit(iris, *SPECS.values())
    iris.type("run", "-j", "1")
    heads = {repo: iris.store()[repo].id for repo in ("model", "inference")}

    # Words for people, an image that no container runs, how many workers a cluster would start.
    edit(iris, SPECS["train"], description="another sentence", parallelismSpec={"constant": 4})
    spec = json.loads((iris.folder / SPECS["infer"]).read_text())
    spec["transform"]["image"] = "pachyderm/iris-infer:later"
    # Another syntax, and the other way to write names.
    spec["parallelism_spec"] = spec.pop("parallelismSpec")
    iris.write("infer.yaml", yaml.safe_dump(spec, sort_keys=True))
    edited = (SPECS["train"], "infer.yaml")
    for path in edited:
        assert iris.type("plan", path, "--code", "code", "--exit-code").stdout.splitlines()[-1] == "nothing to do"
    told = submit(iris, *edited)
    assert [line.split()[:3] for line in told.splitlines() if "cosmetic" in line] == [
        ["model", "cosmetic", "v2"],
        ["inference", "cosmetic", "v2"],
    ]
    assert iris.type("run").stdout == "nothing to do: everything is up to date\n"
    assert {repo: iris.store()[repo].id for repo in heads} == heads
    assert submit(iris, *edited).count("same") == 2


def test_an_edited_script_is_a_change_that_plan_names(iris: Terminal) -> None:
    submit(iris, *SPECS.values())
    iris.type("run", "-j", "1")
    script = iris.folder / "code" / "pyinfer.py"
    script.write_text(script.read_text() + "\n# scripts count by their bytes\n")
    planned = iris.type("plan", SPECS["infer"], "--code", "code", "--exit-code", code=3).stdout
    assert re.search(r"inference +2 of 2 +code changed: .*pyinfer\.py", planned)
    assert re.search(r"code changed: .*pyinfer\.py", submit(iris, SPECS["infer"]))
    iris.type("run", "-j", "1")
    assert iris.jobs(last=1) == [("inference", "done", 2, 0, 0)]
    # The model's spec has the same folder, and was not submitted again.
    assert iris.store()["model"].job == iris.store()["model@master"].job
    # Put back: all results are known.
    script.write_text(script.read_text().replace("\n# scripts count by their bytes\n", ""))
    submit(iris, SPECS["infer"])
    iris.type("run", "-j", "1")
    assert iris.jobs(last=1) == [("inference", "done", 0, 2, 0)]


def test_a_script_sees_what_pachyderm_shows_it(iris: Terminal) -> None:
    iris.write("look.json", json.dumps(LOOK))
    iris.write("code/say.sh", "echo said; exit 0")
    submit(iris, "look.json")
    iris.type("run", "-j", "2")
    look = iris.store()["look"]
    said = {file.name: look.read_text(file.path).splitlines() for file in look.ls("/")}
    code = sorted(path.name for path in (iris.folder / "code").iterdir())
    assert set(said) == {"1.csv", "2.csv"}
    for name, lines in said.items():
        listed = ["/code:", *code, "", "/pfs/all:", "1.csv", "2.csv", "", "/pfs/rows:", name]
        # Its own datum and no other; the whole repo where the glob says so; no credentials; inputs are read-only.
        assert lines[1:] == [*listed, "said", "token=t0 aws="]
    for name in said:
        assert iris.store()["attributes"].read_bytes(f"/{name}") == (iris.folder / "data" / "test" / name).read_bytes()


def test_a_missing_script_is_named_with_what_to_do(iris: Terminal) -> None:
    told = iris.type("submit", SPECS["train"])
    assert "model: it names files in /code: give their folder with --code DIR" in told.stdout + told.stderr
    failed = iris.type("run", "-j", "1", code=1)
    assert "/code/pytrain.py" in failed.stdout
    assert "nothing published: model has no commit" in failed.stderr
    submit(iris, SPECS["train"])
    iris.type("run", "-j", "1")
    assert iris.jobs(last=1) == [("model", "done", 1, 0, 0)]


def test_a_file_of_specs_is_recorded_whole_or_not_at_all(iris: Terminal) -> None:
    iris.type("--store", "other", "init")
    iris.type("--store", "other", "put", "training", "data/iris.csv")
    words = ("--store", "other", "submit", "awk/iris.pipeline.yaml", "--code", "code")
    assert "reads repo 'attributes'" in iris.type(*words, code=1).stderr
    assert iris.type("--store", "other", "pipeline", "list", "--json").stdout == ""


def test_codes_and_words_that_a_script_may_end_with(iris: Terminal) -> None:
    spec = {
        "pipeline": {"name": "grep"},
        "transform": {
            "cmd": [
                "sh",
                "-c",
                "grep virginica /pfs/training/iris.csv > /pfs/out/found; grep -q tulip /pfs/training/*",
            ],
            "acceptReturnCode": [1],
        },
        "input": {"pfs": {"repo": "training", "glob": "/"}},
    }
    iris.write("grep.json", json.dumps(spec))
    iris.type("submit", "grep.json")
    iris.type("run", "-j", "1")
    assert len(iris.store()["grep"].read_text("/found").splitlines()) == 50
    spec["transform"] = {"cmd": ["sh"], "stdin": ["echo so far so good", "echo it broke here >&2", "exit 3"]}
    iris.write("grep.json", json.dumps(spec))
    failed = iris.type("run", "grep.json", "-j", "1", code=1).stdout
    lines = failed.splitlines()
    assert re.match(r"  1 × exit: the command `sh` ended with exit code 3 ", lines[1])
    assert lines[2].strip() == "it broke here"
    assert iris.type("datum", "logs", datum_of(failed)).stdout == "so far so good\nit broke here\n"


def test_a_secret_that_a_script_tells_is_not_stored(iris: Terminal) -> None:
    spec = {
        "pipeline": {"name": "tell"},
        "transform": {
            "cmd": ["sh", "-c", 'echo "bad token: $API_TOKEN"; test "$API_TOKEN" != hunter2-hunter2'],
            "secrets": [{"name": "api", "key": "token", "env_var": "API_TOKEN"}],
        },
        "input": {"pfs": {"repo": "training", "glob": "/"}},
    }
    iris.write("tell.json", json.dumps(spec))
    iris = dataclasses.replace(iris, variables={"API_TOKEN": "hunter2-hunter2"})
    failed = iris.type("run", "tell.json", "-j", "1", code=1).stdout
    assert failed.splitlines()[2].strip() == "bad token: ***"
    assert iris.type("datum", "logs", datum_of(failed)).stdout == "bad token: ***\n"


def datum_of(told: str) -> str:
    found = re.search(r"--datum ([0-9a-f]+)", told)
    assert found is not None
    return found[1]
