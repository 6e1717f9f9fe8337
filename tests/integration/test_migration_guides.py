"""docs/guides/from-pachyderm.md and from-snakemake.md: their commands are run in order, and what they name exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from dmlpipe.cli.main import root
from tests.scheduler.specs.write_schema import GUIDE as FROM_PACHYDERM
from tests.scheduler.specs.write_schema import with_fields

pytestmark = pytest.mark.timeout(180)

FROM_SNAKEMAKE = FROM_PACHYDERM.with_name("from-snakemake.md")
EDGES = {
    "pipeline": {"name": "edges"},
    "transform": {"image": "lab/edges:1", "cmd": ["sh", "/code/edges.sh"]},
    "parallelism_spec": {"constant": 4},
    "input": {"pfs": {"repo": "images", "glob": "/*"}},
}


def blocks(guide: Path, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", guide.read_text(), re.DOTALL | re.MULTILINE)


def play(guide: Path, folder: Path, end: str) -> str:
    """Type a guide's commands in a folder; what `end` prints at last."""
    script = ["set -eu", f"cd {shlex.quote(str(folder))}", *blocks(guide, "bash"), "echo ==", end]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DMLPIPE_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DMLPIPE_CACHE_DIR": str(folder / "cache"),
        "DMLPIPE_FSYNC": "never",
    }
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], env=environment, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.partition("\n==\n")[2]


def test_from_pachyderm_runs_as_it_stands(tmp_path: Path) -> None:
    for folder, name, text in (
        ("data/images", "a.txt", "a b\n"),
        ("data/late", "b.txt", "b\n"),
        ("scripts", "edges.sh", 'for f in /pfs/images/*; do tr a-z A-Z < $f > "/pfs/out/$(basename $f)"; done\n'),
        ("specs", "edges.json", json.dumps(EDGES)),
        (
            "specs",
            "edges.jsonnet",
            "function(name, repo) "
            + json.dumps({**EDGES, "transform": {"cmd": ["sh"], "stdin": ["cp -r /pfs/* /tmp"]}})
            + " + {pipeline: {name: name}, input: {pfs: {repo: repo, glob: '/*'}}}",
        ),
    ):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).write_text(text)
    end = "dmlpipe cat edges:/b.txt; dmlpipe job list edges | wc -l; dmlpipe pipeline list --json"
    shown, jobs, *pipelines = play(FROM_PACHYDERM, tmp_path, end).splitlines()
    assert shown == "B"
    # A header and two jobs: the Python DAG computed nothing.
    assert jobs == "3"
    listed = {each["pipeline"]: each["version"] for each in map(json.loads, pipelines)}
    assert listed == {"edges": 2, "edges-of-scans": 1}


def test_from_snakemake_runs_as_it_stands(tmp_path: Path) -> None:
    for name, text in (
        ("data/reads/a.txt", "1\n25\n40\n"),
        ("data/reads/b.txt", "21\n"),
        ("data/late/c.txt", "20\n99\n"),
        ("data/genome/ref.txt", "ref\n"),
        ("scripts/align.sh", '#!/bin/sh\nawk -v least="$3" \'$1 >= least\' "$2"\n'),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "scripts" / "align.sh").chmod(0o755)
    (dag,) = blocks(FROM_SNAKEMAKE, "python dag.py")
    (tmp_path / "dag.py").write_text(dag)
    counts = play(FROM_SNAKEMAKE, tmp_path, "cat counts.tsv; echo; dmlpipe cat 'report@master^:/counts.tsv'")
    assert counts.split() == ["2", "1", "2", "1", "2"], "as first got; and with the late sample"


def test_the_tables_of_fields_are_those_of_the_reader() -> None:
    text = FROM_PACHYDERM.read_text(encoding="utf-8")
    assert text == with_fields(text), "run: python -m tests.scheduler.specs.write_schema"


@pytest.mark.parametrize("guide", [FROM_PACHYDERM, FROM_SNAKEMAKE], ids=lambda path: path.stem)
def test_every_verb_and_flag_that_a_guide_names_exists(guide: Path) -> None:
    text = guide.read_text()
    right = [line.rsplit("|", 2)[1] for line in text.splitlines() if line.startswith("|") and "`" in line]
    context = click.Context(root)
    verbs = set(root.list_commands(context))
    named = [words for cell in right for words in re.findall(r"`(?:dmlpipe )?([^`]+)`", cell)]
    named += [line.removeprefix("dmlpipe ") for block in blocks(guide, "bash") for line in block.splitlines()]
    checked = 0
    for text in named:
        words = text.split()
        if words[0] not in verbs:
            continue
        command = root.get_command(context, words[0])
        assert command is not None
        if isinstance(command, click.Group) and len(words) > 1 and words[1].islower():
            sub = command.get_command(context, words[1])
            assert sub is not None, text
            command = sub
        known = {flag for each in command.params for flag in each.opts}
        for word in words:
            if re.fullmatch(r"--?[a-z][a-z-]*", word):
                assert word in known, f"{text}: {words[0]} has no {word}"
        checked += 1
    assert checked > 15


def test_the_guide_names_every_verb_of_pachctl() -> None:
    text = FROM_PACHYDERM.read_text()
    nouns = (
        *("project", "repo", "branch", "commit", "file", "pipeline", "job", "datum", "defaults", "secret"),
        *("transaction", "metadata", "cluster"),
    )
    for noun in nouns:
        assert re.search(rf"`[a-z]+ {noun}\b", text), noun
