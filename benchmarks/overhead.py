"""What a datum costs beside its own work: `python -m benchmarks.overhead`, beside others that do nothing to items.

Each contender is a process of its own, in turn with the others; README.md says what is measured and what each keeps.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import dmlpipe as dml

from . import leases, noop, warm
from .inference import result_file
from .machine import HERE, ONE_THREAD, commit, describe, versions
from .rounds import Spread, interleaved, ratios

PACKAGES = ("dmlpipe", "dask", "distributed", "msgspec")
LIMIT_S = 600.0


STORE = "{store}"
"""Stands in a command line for a fresh copy of a prepared store."""
CLIENT_MAP, RAY_TASKS, RAY_DATA = "client.map", "ray tasks", "ray data"
"""What others are compared with."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of doing nothing to items."""

    name: str
    items: int
    """Enough for seconds; a slow one gets fewer."""
    warm: tuple[str, ...] = ()
    """Prints its seconds, from when everything is up; empty: it is only measured as a whole."""
    whole: tuple[str, ...] = ()
    """Does the same from nothing, and ends."""
    keeps: str = "nothing"
    kind: str = ""
    """Pipeline of the prepared store that `whole` runs."""


def contenders(scale: float, ray: Path | None, folder: Path | None) -> list[Contender]:
    """Describe the contenders; `scale` multiplies their items."""
    kept = "commit, provenance, cache"

    def scaled(items: int) -> int:
        return max(20, int(items * scale))

    def own(kind: str, items: int) -> list[Contender]:
        count = scaled(items)
        program = (sys.executable, "-m", "dmlpipe.benchmarks.warm", kind)
        warm = (*program, "--items", str(count), *(("--dir", str(folder)) if folder else ()))
        command = str(Path(sys.executable).with_name("dmlpipe"))
        run = (command, "--store", STORE, "run", kind, "--slots", "2")
        return [
            Contender(f"dmlpipe, {kind}", count, warm, (*program, "--store", STORE), kept, kind),
            Contender(f"dmlpipe run, {kind}", count, (), run, kept, kind),
        ]

    def other(name: str, items: int) -> Contender:
        count = scaled(items)
        argv = (sys.executable, "-m", "dmlpipe.benchmarks.noop", name, "--items", str(count))
        return Contender(name, count, argv, (*argv, "--cold"))

    found = [*own("values", 100_000), *own("folders", 20_000), *own("commands", 1_000)]
    found += [other(name, {"client.map": 5_000, "ProcessPool": 50_000}.get(name, 200_000)) for name in noop.CONTENDERS]
    if ray is not None:
        for kind, items in (("tasks", 10_000), ("data", 100_000)):
            count = scaled(items)
            argv = (str(ray), str(HERE / "ray_noop.py"), kind, str(count), "2")
            found.append(Contender(f"ray {kind}", count, argv, (*argv, "cold")))
    return found


def measure(contender: Contender, folder: Path) -> dict[str, Any]:
    """Run a contender once as it is when everything is up, and once as a whole process.

    Parameters
    ----------
    folder
        Has a prepared store for each number of items (`prepare`).

    Returns
    -------
    dict
        What it printed, and `whole_s`.

    Raises
    ------
    RuntimeError
        It failed.
    """
    found: dict[str, Any] = {"items": contender.items}
    if contender.warm:
        found |= json.loads(_run(contender, contender.warm, {}).splitlines()[-1])
    place = folder / "run"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    if contender.kind:
        shutil.copytree(folder / str(contender.items) / "store", place / "store")
    argv = [word.replace(STORE, str(place / "store")) for word in contender.whole]
    began = time.monotonic()
    _run(contender, argv, {"DMLPIPE_CACHE_DIR": str(place / "cache")})
    found["whole_s"] = time.monotonic() - began
    if contender.kind:
        warm.check(dml.open(place / "store", cache_dir=place / "cache"), contender.kind, contender.items)
    return found


def prepare(asked: Sequence[Contender], folder: Path) -> None:
    """Make the stores that whole processes run in copies of."""
    for items in {one.items for one in asked if one.kind}:
        (folder / str(items)).mkdir()
        warm.prepare(items, folder / str(items))


def _run(contender: Contender, argv: Sequence[str], env: dict[str, str]) -> str:
    done = subprocess.run(
        argv,
        env=os.environ | ONE_THREAD | env,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    if done.returncode:
        raise RuntimeError(f"{contender.name} failed with exit code {done.returncode}:\n{done.stderr}")
    return done.stdout


def report(measured: Mapping[Contender, Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Figures of every contender; ratios to client.map and Ray within a round, like with like."""
    rates = {one: [run["items"] / run["seconds"] for run in runs] for one, runs in measured.items() if one.warm}
    whole = {one: [run["items"] / run["whole_s"] for run in runs] for one, runs in measured.items()}
    bases = [one for one in measured if one.name in (CLIENT_MAP, RAY_TASKS, RAY_DATA)]
    rows = []
    for one, runs in measured.items():
        row: dict[str, Any] = {"contender": one.name, "items": one.items, "keeps": one.keeps}
        for title, of in (("items_per_s", rates), ("whole_items_per_s", whole)):
            if one not in of:
                continue
            row[title] = dataclasses.asdict(Spread.of(of[one]))
            for base in bases:
                name = f"{'whole_' if of is whole else ''}to_{base.name.replace('.', '_').replace(' ', '_')}"
                row[name] = dataclasses.asdict(Spread.of(ratios(of[one], of[base])))
        row["whole_s"] = dataclasses.asdict(Spread.of([run["whole_s"] for run in runs]))
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
    table = Table(
        title="doing nothing to items, 2 slots; median (range), in turn",
        title_justify="left",
        caption="warm: from when everything is up. whole: the process from start to end, its cluster included.",
        caption_justify="left",
    )
    table.add_column("contender")
    ray = any("to_ray_data" in row for row in rows)
    columns = {"items_per_s": "warm/s", "to_client_map": "/ client.map", "to_ray_data": "/ Ray Data"}
    columns |= {f"whole_{key}": title.replace("warm", "whole") for key, title in columns.items()}
    columns = {key: title for key, title in columns.items() if ray or not key.endswith("ray_data")}
    for name in ("items", *columns.values(), "CPU us/item", "keeps"):
        table.add_column(name, justify="right")
    for row in rows:
        found = [
            f"{Spread(**row[name]):{',.1f' if 'to_' in name else ',.0f'}}" if name in row else "" for name in columns
        ]
        cpu = row.get("cpu_us_per_item")
        table.add_row(
            row["contender"],
            f"{row['items']:,}",
            *found,
            f"{Spread(**cpu):.1f}" if cpu else "",
            "nothing" if row["keeps"] == "nothing" else "all",
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
    asked = contenders(given.scale, given.ray, given.dir)
    measured: dict[Contender, list[dict[str, Any]]] = {one: [] for one in asked}
    with tempfile.TemporaryDirectory(prefix="dmlpipe-overhead-", dir=given.dir) as folder:
        prepare(asked, Path(folder))
        for number, one in interleaved(asked, given.rounds):
            found = measure(one, Path(folder))
            measured[one].append(found)
            rate = f"{found['items'] / found['seconds']:12,.0f} items/s" if one.warm else " " * 20
            console.print(f"round {number + 1}  {one.name:22} {rate} {found['whole_s']:8.2f} s whole", style="dim")
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
