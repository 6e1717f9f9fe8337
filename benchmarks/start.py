"""What it costs to start: `python -m benchmarks.start`.

Each command is a process of its own, timed from its start to its end, in turn with the others. `--help` is compared
with the import of click, which no command line made with click can be quicker than. `submit --check` judges forty
specifications (`specs_work.py`). Then: how soon `up` starts a job after a commit (`reaction.py`).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import dmlpipe as dml

from . import reaction
from .machine import commit, describe, versions
from .rounds import Spread, interleaved, ratios
from .specs_work import COUNT, write_specs

HELP_LIMIT = 3.0
"""`dmlpipe --help` may take so many times what the import of click takes."""

CHECK = f"dmlpipe submit --check, {COUNT} specs"
CHECK_LIMIT_S = 2.0
"""What a person waits for gladly who looks at their specifications for the first time."""

DAG = """\
import dmlpipe as dml

dag = dml.DAG("sizes")


@dag.pipeline(dml.files("texts", "/*.txt"))
def sizes(texts: bytes) -> dml.Files:
    return {"size.txt": str(len(texts))}
"""


@dataclass(frozen=True, slots=True)
class Command:
    """A process to be timed."""

    name: str
    argv: tuple[str, ...]
    heavy: bool = False
    """Seconds, not tenths: left out of most rounds."""
    before: Callable[[int], None] | None = None
    """Makes it due; gets the round; not timed."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a process took."""

    seconds: float
    cpu: float
    """Seconds of it and of all that it started: what a busy machine changes least."""


def commands(folder: Path) -> list[Command]:
    """Describe the commands, in a store with one pipeline that is up to date."""
    store = dml.init(folder / ".dmlpipe", cache_dir=folder / "cache")
    dag = folder / "dag.py"
    dag.write_text(DAG)
    store.put("texts", ("a.txt", b"first"))
    store.submit(dag)
    store.run(slots=1)

    def put_one(number: int) -> None:
        # One file in place of the last: one datum, whose output has the same path.
        store.put("texts", ("a.txt", b"x" * (number + 10)))

    specs = write_specs(folder / "specs")
    python = sys.executable
    dmlpipe = str(Path(python).with_name("dmlpipe"))
    return [
        Command("python -c pass", (python, "-c", "pass")),
        Command("python -c 'import click'", (python, "-c", "import click")),
        Command("dmlpipe --help", (dmlpipe, "--help")),
        Command("dmlpipe ls", (dmlpipe, "ls")),
        Command("dmlpipe ls REPO", (dmlpipe, "ls", "texts")),
        Command(CHECK, (dmlpipe, "submit", "--check", *map(str, specs))),
        Command("dmlpipe run, nothing to do", (dmlpipe, "run")),
        Command("dmlpipe run, one datum", (dmlpipe, "run", "-j", "1"), heavy=True, before=put_one),
    ]


def measure(command: Command, folder: Path, number: int) -> Taken:
    """Run a command once.

    Raises
    ------
    RuntimeError
        It did not succeed.
    """
    if command.before is not None:
        command.before(number)
    env = os.environ | {"DMLPIPE_CACHE_DIR": str(folder / "cache"), "NO_COLOR": "1"}
    env.pop("DMLPIPE_STORE", None)
    before = _cpu_of_children()
    began = time.perf_counter()
    done = subprocess.run(
        command.argv, cwd=folder, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{command.name} failed with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return Taken(seconds, _cpu_of_children() - before)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_rounds(folder: Path, rounds: int, heavy_rounds: int) -> dict[str, list[Taken]]:
    """Time every command, after one untimed round that warms the page cache and the bytecode."""
    known = commands(folder)
    taken: dict[str, list[Taken]] = {command.name: [] for command in known}
    for command in known:
        measure(command, folder, -1)
    for number, command in interleaved(known, rounds):
        if not command.heavy or number < heavy_rounds:
            taken[command.name].append(measure(command, folder, number))
    return taken


def report(taken: dict[str, list[Taken]]) -> list[dict[str, Any]]:
    """Figures of every command; ratios to click's import of the same round."""
    base = [each.seconds for each in taken["python -c 'import click'"]]
    rows = []
    for name, each in taken.items():
        values, cpu = [one.seconds for one in each], [one.cpu for one in each]
        to_click = Spread.of(ratios(values, base[: len(values)]))
        rows.append(
            {
                "command": name,
                "seconds": {key: round(value, 4) for key, value in dataclasses.asdict(Spread.of(values)).items()},
                "cpu": {key: round(value, 4) for key, value in dataclasses.asdict(Spread.of(cpu)).items()},
                "to_click": {key: round(value, 2) for key, value in dataclasses.asdict(to_click).items()},
                "rounds": len(values),
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table; exit with 1 if `--help` or `--check` is over its limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--heavy-rounds", type=int, default=5, help="of commands that compute: %(default)s")
    parser.add_argument("--reactions", type=int, default=10, help="commits while a cluster is up; default: %(default)s")
    parser.add_argument("--bucket", action="store_true", help="commits to a bucket, too, of a server on this machine")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    given = parser.parse_args(arguments)
    if min(given.rounds, given.reactions) < 1 or not 1 <= given.heavy_rounds <= given.rounds:
        parser.error("--rounds, --heavy-rounds and --reactions take numbers above 0, heavy ones no more than rounds")
    machine = describe()
    with tempfile.TemporaryDirectory(prefix="dmlpipe-bench-") as folder:
        rows = report(run_rounds(Path(folder), given.rounds, given.heavy_rounds))
        found = reaction.measure(Path(folder), Path(folder) / "dag.py", given.reactions, bucket=given.bucket)
        reactions = {place: Spread.of(values) for place, values in found.items()}
    table = Table(title="whole process; median (range), rounds in turn", title_justify="left")
    for name in ("command", "ms", "ms CPU", "times import click", "rounds"):
        table.add_column(name, justify="left" if name == "command" else "right")
    for row in rows:
        milliseconds = Spread(**{key: value * 1000 for key, value in row["seconds"].items()})
        cpu = Spread(**{key: value * 1000 for key, value in row["cpu"].items()})
        to_click = Spread(**row["to_click"])
        table.add_row(row["command"], f"{milliseconds:.0f}", f"{cpu:.0f}", f"{to_click:.1f}", str(row["rounds"]))
    console = Console(width=None if sys.stdout.isatty() else 132)
    console.print(table)
    for place, spread in reactions.items():
        ms = Spread(*(value * 1000 for value in dataclasses.astuple(spread)))
        console.print(f"up, from a commit in {place} to its job: {ms:.0f} ms, {given.reactions} commits")
    if given.out:
        result = {
            "benchmark": "start",
            "taken": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "machine": dataclasses.asdict(machine),
            "versions": versions(("dmlpipe", "click", "distributed")),
            "commands": rows,
            "reactions": {
                place: {name: round(value, 4) for name, value in dataclasses.asdict(spread).items()}
                for place, spread in reactions.items()
            },
        }
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=1) + "\n")
    by_name = {row["command"]: row for row in rows}
    times = by_name["dmlpipe --help"]["to_click"]["median"]
    if times > HELP_LIMIT:
        console.print(f"dmlpipe --help takes {times:.1f} times what the import of click takes, over {HELP_LIMIT:g}")
    seconds = by_name[CHECK]["seconds"]["median"]
    if seconds > CHECK_LIMIT_S:
        console.print(f"{CHECK} takes {seconds:.1f} s, over {CHECK_LIMIT_S:g}")
    if times > HELP_LIMIT or seconds > CHECK_LIMIT_S:
        sys.exit(1)


if __name__ == "__main__":
    main()
