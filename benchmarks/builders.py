"""Who is asked to bring N outputs up to date: dmlpipe, and the programs that people use for it today.

The work is the same for all: one small input file, one output file that is made from it and nothing else. Each
command is a process of its own. `change` is what happens outside, and timed apart: files are written (or put).
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import dmlpipe as dml

SLOTS = 2
LIMIT_S = 3600


def path_of(number: int) -> str:
    """Where a file stands: a thousand in each folder."""
    return f"{number // 1000:04d}/{number:07d}.txt"


@dataclasses.dataclass(frozen=True)
class Builder:
    """A contender.

    Attributes
    ----------
    run, plan
        Command lines: bring everything up to date; say what would be done (empty: it cannot).
    sizes_max
        Largest number of files that it is asked to bring up to date after a small change.
    all_max
        Largest number of files that it is asked to make all of.
    """

    name: str
    run: tuple[str, ...]
    plan: tuple[str, ...]
    set_up: Callable[[Path, int], None]
    change: Callable[[Path, Sequence[int], str], None]
    outputs: Callable[[Path, Sequence[int]], list[str]]
    """Content of some outputs."""
    sizes_max: int
    all_max: int
    done: Callable[[Path, int, str], None] | None = None
    """Makes all outputs without the program, where that would take too long."""
    plan_code: tuple[int, ...] = (0,)


def execute(folder: Path, argv: Sequence[str], codes: Sequence[int] = (0,)) -> float:
    """Run a command to its end; return its seconds.

    Raises
    ------
    RuntimeError
        It ended with another code than expected.
    """
    environment = os.environ | {"DMLPIPE_CACHE_DIR": str(folder / "cache"), "NO_COLOR": "1", "DVC_NO_ANALYTICS": "1"}
    environment.pop("DMLPIPE_STORE", None)
    began = time.perf_counter()
    with (folder / "log").open("w+") as log:
        done = subprocess.run(
            argv, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=LIMIT_S
        )
        seconds = time.perf_counter() - began
        if done.returncode not in codes:
            log.seek(0)
            raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}:\n{log.read()[-2000:]}")
    return seconds


# --- dmlpipe ------------------------------------------------------------

_FUNCTION = """\
import dmlpipe as dml

dag = dml.DAG("copies")


@dag.pipeline(dml.files("in", "/{folder}/{name}", name="given"), batch=256)
def out(given: list[bytes], folder: list[str], name: list[str]) -> list[dml.Files]:
    return [{f"{at}/{file}": content} for content, at, file in zip(given, folder, name)]
"""
_COMMAND = """\
import dmlpipe as dml

dag = dml.DAG("copies")
files = dml.files("in", "/{folder}/{name}", name="given")
dag.command("out", "mkdir $out/$folder; cp $given $out/$folder/$name", files)
"""


def _set_up_store(dag: str) -> Callable[[Path, int], None]:
    def set_up(folder: Path, count: int) -> None:
        (folder / "dag.py").write_text(dag)
        store = dml.init(folder / ".dmlpipe", cache_dir=folder / "cache")
        _put(folder, range(count), "first")
        store.submit(folder / "dag.py")

    return set_up


def _put(folder: Path, numbers: Sequence[int], text: str) -> None:
    store = dml.open(folder / ".dmlpipe", cache_dir=folder / "cache")
    with store.commit("in", create=True) as session:
        for number in numbers:
            session.write(path_of(number), f"{text} {number}")


def _read_store(folder: Path, numbers: Sequence[int]) -> list[str]:
    store = dml.open(folder / ".dmlpipe", cache_dir=folder / "cache", read_only=True)
    made = store["out"]
    return [made.read_bytes(path_of(number)).decode() for number in numbers]


def counters(folder: Path) -> tuple[int, int]:
    """Datums run and skipped of the last job."""
    store = dml.open(folder / ".dmlpipe", cache_dir=folder / "cache", read_only=True)
    _, job = next(iter(store.refresh().jobs("out")))
    return job.end.counters.run, job.end.counters.skipped


def _dmlpipe(name: str, dag: str, *, most: int) -> Builder:
    program = str(Path(sys.executable).with_name("dmlpipe"))
    return Builder(
        name=name,
        run=(program, "-q", "run", "-j", str(SLOTS)),
        plan=(program, "plan"),
        set_up=_set_up_store(dag),
        change=_put,
        outputs=_read_store,
        sizes_max=most,
        all_max=most,
    )


# --- programs over folders ------------------------------------------------------------

_MAKEFILE = """\
INPUTS := $(wildcard in/*/*.txt)
all: $(patsubst in/%,out/%,$(INPUTS))
out/%: in/%
	@mkdir -p $(@D) && cp $< $@
"""
_SNAKEFILE = """\
NAMES = glob_wildcards("in/{name}.txt").name
rule all:
    input: expand("out/{name}.txt", name=NAMES)
rule copy:
    input: "in/{name}.txt"
    output: "out/{name}.txt"
    shell: "cp {input} {output}"
"""


_LOOP = """\
from pathlib import Path

for path in sorted(Path("in").glob("*/*.txt")):
    target = Path("out", *path.parts[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(path.read_text())
"""
_JOBLIB = """\
from pathlib import Path

from joblib import Memory

memory = Memory("memory", verbose=0)


@memory.cache
def copied(content: str) -> str:
    return content


for path in sorted(Path("in").glob("*/*.txt")):
    target = Path("out", *path.parts[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(copied(path.read_text()))
"""
_REDUN = """\
from pathlib import Path

from redun import File, task

redun_namespace = "copies"


@task()
def copied(given: File, target: str) -> File:
    made = File(target)
    made.write(given.read())
    return made


@task()
def main() -> list[File]:
    return [copied(File(str(path)), str(Path("out", *path.parts[1:]))) for path in sorted(Path("in").glob("*/*.txt"))]
"""


def _write(folder: Path, numbers: Sequence[int], text: str, *, below: str = "in") -> None:
    made: set[Path] = set()
    for number in numbers:
        path = folder / below / path_of(number)
        if path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(path.parent)
        path.write_text(f"{text} {number}")


def _copy_all(folder: Path, count: int, text: str) -> None:
    _write(folder, range(count), text, below="out")


def _read(folder: Path, numbers: Sequence[int]) -> list[str]:
    return [(folder / "out" / path_of(number)).read_text() for number in numbers]


def _set_up_folder(name: str, text: str) -> Callable[[Path, int], None]:
    def set_up(folder: Path, count: int) -> None:
        (folder / name).write_text(text)
        _write(folder, range(count), "first")

    return set_up


def _set_up_dvc(program: str) -> Callable[[Path, int], None]:
    def set_up(folder: Path, count: int) -> None:
        _write(folder, range(count), "first")
        (folder / "out").mkdir()
        names = [path_of(number).removesuffix(".txt") for number in range(count)]
        for name in {name.partition("/")[0] for name in names}:
            (folder / "out" / name).mkdir()
        each = (
            "      cmd: cp in/${item}.txt out/${item}.txt\n"
            '      deps: ["in/${item}.txt"]\n'
            '      outs: ["out/${item}.txt"]'
        )
        listed = ", ".join(f'"{name}"' for name in names)
        (folder / "dvc.yaml").write_text(f"stages:\n  copy:\n    foreach: [{listed}]\n    do:\n{each}\n")
        execute(folder, (program, "init", "--no-scm", "-q"))

    return set_up


def _script(name: str, file: str, text: str) -> Builder:
    """A program of its own, on this Python."""
    return Builder(
        name,
        (sys.executable, file),
        (),
        _set_up_folder(file, text),
        _write,
        _read,
        sizes_max=100_000,
        all_max=100_000,
    )


def find(name: str) -> str | None:
    """A program's path: as ``$NAME`` says, else on the search path, else beside this Python."""
    given = os.environ.get(name.upper())
    beside = Path(sys.executable).with_name(name)
    return given or shutil.which(name) or (str(beside) if beside.exists() else None)


PROGRAMS = {"make": "GNU make", "snakemake": "Snakemake", "dvc": "DVC", "redun": "redun"}
"""Those of others, and what their contender is called."""


def builders() -> tuple[list[Builder], list[str]]:
    """Return who is there to be measured, and the names of programs that were not found."""
    found = [
        _dmlpipe("dmlpipe, a function", _FUNCTION, most=1_000_000),
        _dmlpipe("dmlpipe, a command", _COMMAND, most=1_000),
        _script("a plain loop, which redoes all", "loop.py", _LOOP),
        _script("joblib.Memory", "cached.py", _JOBLIB),
    ]
    missing = []
    for name in PROGRAMS:
        program = find(name)
        if program is None:
            missing.append(name)
        elif name == "make":
            found.append(
                Builder(
                    PROGRAMS[name],
                    (program, "-s", f"-j{SLOTS}"),
                    (program, "-q"),
                    _set_up_folder("Makefile", _MAKEFILE),
                    _write,
                    _read,
                    sizes_max=100_000,
                    all_max=1_000,
                    done=_copy_all,
                    plan_code=(0, 1),
                )
            )
        elif name == "snakemake":
            found.append(
                Builder(
                    PROGRAMS[name],
                    (program, "-q", "all", "-c", str(SLOTS)),
                    (program, "-q", "all", "-n"),
                    _set_up_folder("Snakefile", _SNAKEFILE),
                    _write,
                    _read,
                    sizes_max=1_000,
                    all_max=1_000,
                )
            )
        elif name == "redun":
            found.append(
                Builder(
                    PROGRAMS[name],
                    (program, "run", "workflow.py", "main"),
                    (),
                    _set_up_folder("workflow.py", _REDUN),
                    _write,
                    _read,
                    sizes_max=10_000,
                    all_max=10_000,
                )
            )
        else:
            found.append(
                Builder(
                    PROGRAMS[name],
                    (program, "repro", "-q"),
                    (program, "status", "-q"),
                    _set_up_dvc(program),
                    _write,
                    _read,
                    sizes_max=100,
                    all_max=100,
                    plan_code=(0, 1),
                )
            )
    return found, missing
