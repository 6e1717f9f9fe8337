"""`env=`: what commands and functions run with, declared per pipeline. Real virtual environments; conda, environment
modules and podman are programs that record how they were called and do what is asked of them in small.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmlpipe.scheduler.pipelines.load import load_dags
from dmlpipe.storage.errors import InvalidInputError
from dmlpipe.worker.child.container import PROGRAMS
from tests.conformance.lab import Lab, Ran, pfs
from tests.tiny_wheel import wheel

HEAD = """
import sys
import dmlpipe as dml
dag = dml.DAG("labs")
"""
FUNCTION = """
@dag.pipeline(dml.files("texts", "/a.txt"), env={env!r})
def p(texts: bytes) -> dml.Files:
    import importlib.util
    has = [name for name in ("tiny", "numpy") if importlib.util.find_spec(name)]
    return {{"said": f"{{sys.prefix}} {{has}}"}}
"""
COMMAND = "dag.command('p', {line!r}, dml.files('texts', '/a.txt'), env={env!r})\n"
IMAGE = "lab/seq@sha256:" + "ab" * 32


@pytest.fixture
def here(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A lab with a text, and a folder of programs in front of all others."""
    lab.put("texts", {"/a.txt": "a"})
    (lab.folder / "bin").mkdir()
    (lab.folder / "home").mkdir()
    monkeypatch.setenv("PATH", str(lab.folder / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("HOME", str(lab.folder / "home"))
    yield lab
    sys.modules.pop("labs", None)


def program(lab: Lab, name: str, text: str) -> Path:
    """Write a Python program that first adds its words to a file; return that file."""
    calls = lab.folder / f"{name}.calls"
    path = lab.folder / "bin" / name
    head = f"#!{sys.executable}\nimport json, os, re, subprocess, sys\nwords = sys.argv[1:]\n"
    path.write_text(head + f"open({str(calls)!r}, 'a').write(json.dumps(words) + '\\n')\n" + textwrap.dedent(text))
    path.chmod(0o755)
    return calls


def conda(lab: Lab) -> Path:
    """A conda that makes a virtual environment, and copies the file into it."""
    return program(
        lab,
        "micromamba",
        f"""
        folder, file = words[words.index("-p") + 1], words[words.index("-f") + 1]
        subprocess.run([{sys.executable!r}, "-m", "venv", "--without-pip", folder], check=True)
        open(folder + "/from", "w").write(open(file).read())
        """,
    )


def submit(lab: Lab, text: str, **files: str) -> None:
    for name, content in files.items():
        (lab.folder / name.replace("_", ".")).write_text(content)
    (lab.folder / "labs.py").write_text(HEAD + text)
    lab.store.submit(load_dags(lab.folder / "labs.py"))


def said(lab: Lab, ran: Ran) -> str:
    assert ran.states == {"p": "done"}, ran.summary.jobs
    return lab.files("p")["/said"].strip()


def made(lab: Lab) -> str:
    """The one environment that was made."""
    (folder,) = [path for path in (lab.folder / "cache" / "envs").iterdir() if path.is_dir()]
    return str(folder)


def environment(folder: Path) -> Path:
    """A virtual environment with a program `seq-tool`."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (folder / "bin" / "seq-tool").write_text("#!/bin/sh\necho seq 1.0 of $VIRTUAL_ENV\n")
    (folder / "bin" / "seq-tool").chmod(0o755)
    return folder


# --- commands ---


def test_a_command_runs_with_a_virtual_environment_that_is_there(here: Lab) -> None:
    folder = environment(here.folder / "venv")
    submit(here, COMMAND.format(line="seq-tool > $out/said", env="venv"))
    assert said(here, here.run()) == f"seq 1.0 of {folder}"


def test_a_command_runs_with_what_a_requirements_file_names(here: Lab) -> None:
    requirements = f"--no-index\n{wheel(here.folder)}\n"
    submit(here, COMMAND.format(line="tiny > $out/said", env="needs.txt"), needs_txt=requirements)
    assert said(here, here.run()) == "tiny 1.0"


def test_a_command_runs_in_the_conda_environment_of_its_file(here: Lab) -> None:
    calls = conda(here)
    line = "cat $CONDA_PREFIX/from > $out/said"
    submit(here, COMMAND.format(line=line, env="seq.yml"), seq_yml="dependencies: [samtools]\n")
    assert said(here, here.run()) == "dependencies: [samtools]"
    (words,) = map(json.loads, calls.read_text().splitlines())
    assert words[:4] == ["create", "--yes", "-p", made(here)]
    # Made once for a file and a host.
    here.put("texts", {"/a.txt": "again"})
    assert here.run().counts == {"p": (1, 0)}
    assert len(calls.read_text().splitlines()) == 1


def test_a_command_runs_with_its_modules_loaded(here: Lab) -> None:
    (here.folder / "home" / ".bash_profile").write_text('module() { export LOADED="$*"; }\n')
    submit(here, COMMAND.format(line="echo $LOADED > $out/said", env="module load samtools/1.19 bwa"))
    assert said(here, here.run()) == "load samtools/1.19 bwa"


def test_a_module_that_is_not_there_fails_the_datum_with_what_was_said(here: Lab) -> None:
    (here.folder / "home" / ".bash_profile").write_text('module() { echo "no $2" >&2; return 1; }\n')
    submit(here, COMMAND.format(line="true", env="module load samtools/9"))
    ran = here.run()
    assert ran.states == {"p": "failed"}


def test_a_command_runs_in_its_image(here: Lab) -> None:
    calls = program(
        here,
        PROGRAMS[0],
        """
        mounts = dict(v.rsplit(":", 1)[0].split(":")[::-1] for f, v in zip(words, words[1:]) if f == "-v")
        at = words.index("--entrypoint")
        argv = [words[at + 1], *words[at + 3 :]]
        argv = [re.sub("/pfs/out", lambda _: mounts["/pfs/out"], word) for word in argv]
        sys.exit(subprocess.run(argv).returncode)
        """,
    )
    submit(here, COMMAND.format(line="echo contained > /pfs/out/said", env=IMAGE))
    assert said(here, here.run()) == "contained"
    (words, *_) = map(json.loads, calls.read_text().splitlines())
    assert words[words.index("--entrypoint") + 2] == IMAGE


def test_a_specification_may_declare_an_environment_too(here: Lab) -> None:
    (here.folder / "needs.txt").write_text(f"--no-index\n{wheel(here.folder)}\n")
    here.submit(here.spec("p", pfs("texts"), "tiny > /pfs/out/said", env="needs.txt"))
    assert said(here, here.run()) == "tiny 1.0"


# --- functions ---


def test_a_function_runs_with_a_virtual_environment_that_is_there(here: Lab) -> None:
    folder = environment(here.folder / "venv")
    submit(here, FUNCTION.format(env="venv"))
    assert said(here, here.run()) == f"{folder} []"


def test_a_function_runs_with_what_a_requirements_file_names(here: Lab) -> None:
    submit(here, FUNCTION.format(env="needs.txt"), needs_txt=f"--no-index\n{wheel(here.folder)}\n")
    assert said(here, here.run()) == f"{made(here)} ['tiny']"


def test_a_function_runs_in_the_conda_environment_of_its_file(here: Lab) -> None:
    calls = conda(here)
    submit(here, FUNCTION.format(env="seq.yml"), seq_yml="dependencies: [python]\n")
    assert said(here, here.run()) == f"{made(here)} []"
    assert len(calls.read_text().splitlines()) == 1


def test_a_function_cannot_have_modules_and_is_told_what_can(here: Lab) -> None:
    with pytest.raises(InvalidInputError, match="modules are for commands") as refused:
        submit(here, FUNCTION.format(env="module load samtools"))
    assert "load them where the workers are started" in str(refused.value.hint)


def test_the_image_of_a_function_counts_and_a_notice_says_who_has_to_run_it(here: Lab) -> None:
    (here.folder / "labs.py").write_text(HEAD + FUNCTION.format(env=IMAGE))
    (submitted,) = here.store.submit(load_dags(here.folder / "labs.py"))
    assert any("workers started in that image" in notice for notice in submitted.notices)
    assert said(here, here.run()).startswith(sys.prefix)
    (here.folder / "labs.py").write_text(HEAD + FUNCTION.format(env=IMAGE.replace("ab", "cd")))
    sys.modules.pop("labs")
    (submitted,) = here.store.submit(load_dags(here.folder / "labs.py"))
    assert submitted.status == "changed"


# --- what counts, what is refused ---


@pytest.mark.parametrize("text", [FUNCTION, COMMAND.replace("{line!r}", "'cp $texts $out/said'")])
def test_another_content_of_the_file_computes_anew_and_another_name_does_not(here: Lab, text: str) -> None:
    conda(here)
    submit(here, text.format(env="seq.yml"), seq_yml="dependencies: [python]\n")
    assert here.run().counts == {"p": (1, 0)}
    sys.modules.pop("labs")
    submit(here, text.format(env="same.yml"), same_yml="dependencies: [python]\n")
    assert here.run().counts == {}
    sys.modules.pop("labs")
    submit(here, text.format(env="same.yml"), same_yml="dependencies: [python=3.13]\n")
    assert here.run().counts == {"p": (1, 0)}


@pytest.mark.parametrize("text", [FUNCTION, COMMAND.replace("{line!r}", "'true'")])
def test_several_environments_are_refused_with_what_to_do(here: Lab, text: str) -> None:
    with pytest.raises(InvalidInputError, match="env= is one environment, got a list") as refused:
        submit(here, text.format(env=["module load samtools", "needs.txt"]))
    assert "module load a b" in str(refused.value.hint)


def test_several_environments_of_a_dag_are_refused(here: Lab) -> None:
    (here.folder / "labs.py").write_text(HEAD.replace('DAG("labs")', 'DAG("labs", env=["a", "b"])'))
    with pytest.raises(InvalidInputError, match="DAG 'labs': env= is one environment, got a list"):
        load_dags(here.folder / "labs.py")


def test_several_environments_in_a_specification_are_refused(here: Lab) -> None:
    with pytest.raises(InvalidInputError, match=r"env: expected a text, got \['module load samtools', 'needs\.txt'\]"):
        here.submit(here.spec("p", pfs("texts"), env=["module load samtools", "needs.txt"]))
