"""What a datum costs beside its own work: `python -m benchmarks.overhead`, beside others that do nothing to items.

Each contender is a process of its own, in turn with the others; README.md says what is measured and what each keeps.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from . import leases, noop
from .inference import result_file
from .machine import HERE, ONE_THREAD, commit, describe, versions
from .rounds import Spread, interleaved, ratios

PACKAGES = ("dmlpipe", "dask", "distributed", "msgspec")
LIMIT_S = 600.0


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of doing nothing to items."""

    name: str
    items: int
    """Enough for seconds; a slow one gets fewer."""
    argv: tuple[str, ...]
    keeps: str = "nothing"


def contenders(scale: float, ray: Path | None, folder: Path | None) -> list[Contender]:
    """Describe the contenders; `scale` multiplies their items."""

    def own(kind: str, items: int) -> Contender:
        count = max(20, int(items * scale))
        argv = [sys.executable, "-m", "dmlpipe.benchmarks.warm", kind, "--items", str(count)]
        argv += ["--dir", str(folder)] if folder else []
        return Contender(f"dmlpipe, {kind}", count, tuple(argv), "commit, provenance, cache")

    def other(name: str, items: int) -> Contender:
        count = max(20, int(items * scale))
        return Contender(name, count, (sys.executable, "-m", "dmlpipe.benchmarks.noop", name, "--items", str(count)))

    found = [own("values", 100_000), own("folders", 20_000), own("commands", 1_000)]
    found += [other(name, {"client.map": 5_000, "ProcessPool": 50_000}.get(name, 200_000)) for name in noop.CONTENDERS]
    if ray is not None:
        for kind, items in (("tasks", 10_000), ("data", 50_000)):
            count = max(20, int(items * scale))
            script = str(HERE / "ray_noop.py")
            found.append(Contender(f"ray {kind}", count, (str(ray), script, kind, str(count), "2")))
    return found


def measure(contender: Contender) -> dict[str, Any]:
    """Run a contender once and return what it printed.

    Raises
    ------
    RuntimeError
        It failed.
    """
    done = subprocess.run(
        contender.argv,
        env=os.environ | ONE_THREAD,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    if done.returncode:
        raise RuntimeError(f"{contender.name} failed with exit code {done.returncode}:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(measured: Mapping[Contender, Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Figures of every contender; ratios to client.map within a round."""
    rates = {one: [run["items"] / run["seconds"] for run in runs] for one, runs in measured.items()}
    base = next(values for one, values in rates.items() if one.name == "client.map")
    rows = []
    for one, runs in measured.items():
        row: dict[str, Any] = {
            "contender": one.name,
            "items": one.items,
            "keeps": one.keeps,
            "items_per_s": dataclasses.asdict(Spread.of(rates[one])),
            "to_client_map": dataclasses.asdict(Spread.of(ratios(rates[one], base))),
        }
        if "cpu_s" in runs[0]:
            row["cpu_us_per_item"] = dataclasses.asdict(Spread.of([run["cpu_s"] / one.items * 1e6 for run in runs]))
        for key in ("us_per_datum", "controller_us_per_datum"):
            if key in runs[0]:
                names = {name for run in runs for name in run[key]}
                row[key] = {name: Spread.of([run[key].get(name, 0.0) for run in runs]).median for name in sorted(names)}
        rows.append(row)
    return rows


def show(rows: Sequence[Mapping[str, Any]], machinery: Mapping[str, Any], console: Console) -> None:
    """Print the tables."""
    table = Table(title="doing nothing to items, 2 slots; median (range), in turn", title_justify="left")
    table.add_column("contender")
    for name in ("items", "items/s", "x client.map", "CPU us/item"):
        table.add_column(name, justify="right")
    table.add_column("keeps")
    for row in rows:
        cpu = row.get("cpu_us_per_item")
        table.add_row(
            row["contender"],
            f"{row['items']:,}",
            f"{Spread(**row['items_per_s']):,.0f}",
            f"{Spread(**row['to_client_map']):.1f}",
            f"{Spread(**cpu):.1f}" if cpu else "",
            row["keeps"],
            style="bold" if row["contender"].startswith("dmlpipe") else None,
        )
    console.print(table)
    for row in rows:
        if "us_per_datum" in row:
            parts = [f"{name} {value:.1f}" for name, value in row["us_per_datum"].items()]
            steps = [f"{name} {value:.1f}" for name, value in row["controller_us_per_datum"].items()]
            console.print(
                f"{row['contender']}: us of CPU a datum: {', '.join(parts)}; of the controller: {', '.join(steps)}"
            )
    console.print(
        f"leases alone: {machinery['datums']:,} datums, {machinery['lease_size']} a lease: "
        f"{machinery['datums_per_s']:,} datums/s, {machinery['scheduler_us_per_lease']} us of the scheduler's CPU a "
        f"lease, its memory grew by {machinery['scheduler_growth_mib']} MiB"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, print its tables, write its figures and its plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of items, default: %(default)s")
    parser.add_argument("--datums", type=int, default=1_000_000, help="of the leases alone, default: %(default)s")
    parser.add_argument("--ray", type=Path, metavar="PYTHON", help="a Python that has Ray: measure it, too")
    parser.add_argument("--dir", type=Path, help="where to work, default: the system's folder for temporary files")
    parser.add_argument("--out", type=Path, help="file or folder; default: benchmarks/results, and an .svg beside it")
    given = parser.parse_args(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=132)
    out = result_file(given.out, "overhead")
    machine, taken_at = describe(), commit()
    measured: dict[Contender, list[dict[str, Any]]] = {one: [] for one in contenders(given.scale, given.ray, given.dir)}
    for number, one in interleaved(list(measured), given.rounds):
        found = measure(one)
        measured[one].append(found)
        rate = found["items"] / found["seconds"]
        console.print(f"round {number + 1}  {one.name:22} {rate:12,.0f} items/s", style="dim")
    machinery = leases.measure(given.datums, 100)
    rows = report(measured)
    result = {
        "benchmark": "overhead",
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": taken_at,
        "machine": dataclasses.asdict(machine),
        "versions": versions(PACKAGES),
        "rounds": given.rounds,
        "contenders": rows,
        "leases": machinery,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    # Imported here: matplotlib takes half a second, which nobody waits for before the figures.
    from .chart import draw_overhead

    draw_overhead(result, out.with_suffix(".svg"))
    show(rows, machinery, console)
    console.print(f"figures: {out}\nplot:    {out.with_suffix('.svg')}", soft_wrap=True)


if __name__ == "__main__":
    main()
