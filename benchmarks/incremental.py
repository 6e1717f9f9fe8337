"""What it costs to bring N outputs up to date after 0, 10 or N inputs changed: `python -m benchmarks.incremental`.

Every command is a process of its own, timed from its start to its end. What is made is compared with what should be
there: one difference, and there are no figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .builders import PROGRAMS, Builder, builders, counters, execute
from .machine import commit, describe, versions
from .rounds import Spread, interleaved

SIZES = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
FEW = 10
STEPS = ("run, all new", "run, 0 changed", "plan, 0 changed", "run, 10 changed", "plan, 10 changed", "run, all changed")


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """Seconds of one step."""

    builder: str
    files: int
    step: str
    seconds: float
    outside_s: float = 0.0
    """What writing (for dmlpipe: putting) the changed inputs took before."""


def measure(builder: Builder, folder: Path, files: int) -> Iterator[Figure]:
    """Set one contender up, and time its steps.

    Raises
    ------
    RuntimeError
        It did something else than it should have.
    """
    builder.set_up(folder, files)
    makes_all = files <= builder.all_max
    if makes_all or builder.done is None:
        yield Figure(builder.name, files, "run, all new", execute(folder, builder.run))
    else:
        builder.done(folder, files, "first")
    few = list(range(min(FEW, files)))
    last = [files - 1]
    _expect(builder, folder, last, "first")

    if builder.plan:
        yield Figure(builder.name, files, "plan, 0 changed", execute(folder, builder.plan))
    yield Figure(builder.name, files, "run, 0 changed", execute(folder, builder.run))

    outside = _change(builder, folder, few, "second")
    if builder.plan:
        yield Figure(builder.name, files, "plan, 10 changed", execute(folder, builder.plan, builder.plan_code), outside)
    yield Figure(builder.name, files, "run, 10 changed", execute(folder, builder.run), outside)
    _expect(builder, folder, few, "second")
    _count(builder, folder, len(few), files - len(few))

    if makes_all:
        outside = _change(builder, folder, range(files), "third")
        yield Figure(builder.name, files, "run, all changed", execute(folder, builder.run), outside)
        _expect(builder, folder, few + last, "third")
        _count(builder, folder, files, 0)


def _change(builder: Builder, folder: Path, numbers: Sequence[int], text: str) -> float:
    # Programs that go by times of change must see one that differs.
    time.sleep(0.02)
    began = time.perf_counter()
    builder.change(folder, numbers, text)
    return time.perf_counter() - began


def _expect(builder: Builder, folder: Path, numbers: Sequence[int], text: str) -> None:
    made = builder.outputs(folder, numbers)
    wanted = [f"{text} {number}" for number in numbers]
    if made != wanted:
        raise RuntimeError(f"{builder.name} made {made[:3]}, expected {wanted[:3]}")


def _count(builder: Builder, folder: Path, run: int, skipped: int) -> None:
    if builder.name.startswith("dmlpipe") and counters(folder) != (run, skipped):
        raise RuntimeError(f"{builder.name} ran and skipped {counters(folder)}, expected {(run, skipped)}")


def report(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Spread over the rounds, by contender, size and step."""
    grouped: dict[tuple[str, int, str], list[Figure]] = {}
    for figure in figures:
        grouped.setdefault((figure.builder, figure.files, figure.step), []).append(figure)
    return [
        {
            "contender": builder,
            "files": files,
            "step": step,
            "seconds": _rounded(Spread.of([figure.seconds for figure in found])),
            "outside_s": _rounded(Spread.of([figure.outside_s for figure in found])),
            "rounds": len(found),
        }
        for (builder, files, step), found in grouped.items()
    ]


def lacking(missing: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Programs that were not found, of which an earlier call left no figures either."""
    there = {row["contender"] for row in rows}
    return [name for name in missing if PROGRAMS[name] not in there]


def _rounded(spread: Spread) -> dict[str, float]:
    return {name: round(value, 3) for name, value in dataclasses.asdict(spread).items()}


def draw(result: Mapping[str, Any], target: Path) -> None:
    """Draw seconds over files, one panel for each kind of change; both axes are logarithmic."""
    import matplotlib
    from matplotlib.figure import Figure as Picture

    matplotlib.rcParams["svg.hashsalt"] = "dmlpipe"
    steps = [step for step in STEPS if step.startswith("run")]
    picture = Picture(figsize=(13, 3.8), layout="constrained")
    panels = picture.subplots(1, len(steps), sharey=True)
    for panel, step in zip(panels, steps, strict=True):
        for name in dict.fromkeys(row["contender"] for row in result["figures"]):
            rows = [row for row in result["figures"] if (row["contender"], row["step"]) == (name, step)]
            mine = name.startswith("dmlpipe")
            panel.plot(
                [row["files"] for row in rows],
                [row["seconds"]["median"] for row in rows],
                marker="o",
                linewidth=2.0 if mine else 1.2,
                label=name,
            )
        panel.set(xscale="log", yscale="log", title=step.removeprefix("run, "), xlabel="files")
        panel.grid(visible=True, which="major", alpha=0.3)
    panels[0].set_ylabel("seconds, whole process")
    panels[0].legend(fontsize="small")
    picture.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)


def show(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table: a line for each contender and size, a column for each step."""
    table = Table(title="seconds of the whole process; median over the rounds", title_justify="left")
    for name in ("contender", "files", *STEPS, "put or write all"):
        table.add_column(name, justify="left" if name == "contender" else "right")
    for builder, files in dict.fromkeys((row["contender"], row["files"]) for row in rows):
        mine = {row["step"]: row for row in rows if (row["contender"], row["files"]) == (builder, files)}
        cells = [f"{mine[step]['seconds']['median']:.2f}" if step in mine else "" for step in STEPS]
        outside = mine.get("run, all changed")
        last = f"{outside['outside_s']['median']:.2f}" if outside else ""
        table.add_row(builder, f"{files:,}", *cells, last)
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.incremental", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="files; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="of sizes up to 1,000; larger ones have one: %(default)s")
    parser.add_argument("--all-max", type=int, default=1_000_000, help="more files than these do not all change")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contenders whose name holds one of these")
    parser.add_argument("--dir", type=Path, help="where stores and files are made")
    parser.add_argument("--out", type=Path, help="the figures as JSON, a plot beside it; what is there is kept")
    given = parser.parse_args(arguments)
    if min(given.sizes) < 1 or given.rounds < 1:
        parser.error("--sizes and --rounds take numbers above 0")
    console = Console(width=None if sys.stdout.isatty() else 132)
    machine = describe()
    known, missing = builders()
    if missing:
        console.print(f"not found, left out: {', '.join(missing)} (set ${missing[0].upper()} to its path)")
    if given.only:
        known = [builder for builder in known if any(part in builder.name for part in given.only)]
    rows: list[dict[str, Any]] = []
    if given.out and given.out.exists():
        rows = json.loads(given.out.read_text())["figures"]
    # One that was interrupted in the middle is measured again.
    there = {(row["contender"], row["files"]) for row in rows if row["step"] == "run, 10 changed"}
    rows = [row for row in rows if (row["contender"], row["files"]) in there]
    for files in sorted(given.sizes):
        wanted = [each for each in known if files <= each.sizes_max and (each.name, files) not in there]
        figures: list[Figure] = []
        for _, builder in interleaved(wanted, given.rounds if files <= 1_000 else 1):
            builder = dataclasses.replace(builder, all_max=min(builder.all_max, given.all_max))
            folder = Path(tempfile.mkdtemp(prefix="dmlpipe-bench-", dir=given.dir))
            try:
                for figure in measure(builder, folder, files):
                    figures.append(figure)
                    if given.out:
                        told = rows + report(figures)
                        here = {"machine": dataclasses.asdict(machine), "missing": lacking(missing, told)}
                        _write(given.out, {**here, "figures": told})
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        rows += report(figures)
    show(console, rows)


def _write(out: Path, result: Mapping[str, Any]) -> None:
    head = {
        "benchmark": "incremental",
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": versions(("dmlpipe", "distributed")),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**head, **result}, indent=1) + "\n")
    # The first figure of who is handed finished outputs is one of a plan: there is nothing to draw yet.
    if any(row["step"].startswith("run") for row in result["figures"]):
        draw(result, out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
