"""Parallel inference with a resident model: `python -m benchmarks.inference`, what `make bench` runs.

Every contender labels the same files with the same persisted model, each time in a process of its own, in turn; every
result of every run is compared with that of the plain loop. README.md says what the figures mean.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import dmlpipe as dml

from .baselines import BASELINES
from .contender import DMLPIPE, Marks
from .machine import ONE_THREAD, RESULTS, commit, describe, versions
from .models import MODEL_REPO, MODELS
from .rounds import Spread, interleaved, ratios
from .workloads import InferenceWorkload

PACKAGES = ("dmlpipe", "dask", "distributed", "scikit-learn", "numpy", "joblib")
LIMIT_S = 1800.0
POOL = "ProcessPool"
RAY = "ray data"
SECOND_SHARE, SECOND_S = 0.03, 1.0
"""What a run after 1 % of the files changed may take: of the first run, and seconds beside."""


@dataclass(frozen=True, slots=True)
class Contender:
    """An alternative on a number of slots."""

    name: str
    slots: int

    def __str__(self) -> str:
        return f"{self.name} x{self.slots}"


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one contender."""

    whole_s: float
    """From starting its process to its end: interpreter, imports, cluster, everything."""
    leased_s: float
    """From the first file handed out to the last result written."""
    cpu_s: float
    """Used by the process and everything it started: what a busy machine changes least."""
    computed: int
    """Files labelled."""
    results: str
    """Hash over the names and bytes of all results."""
    second_s: float | None = None
    """The whole process of a run after one file in a hundred changed; None of what keeps nothing."""
    second_cpu_s: float | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is made once, before anything is measured."""

    folder: Path
    scorer: str
    """Name in `MODELS`."""
    inputs: Path
    model: Path
    """Its folder."""
    store: Path
    """A store that holds the files and the trained model; each run of dmlpipe gets a copy."""
    input_bytes: int
    put_s: float


def prepare(workload: InferenceWorkload, folder: Path, *, model: str = "forest", data: Path | None = None) -> Prepared:
    """Write the files, put them into a store, train the model there or put it."""
    scorer = MODELS[model]
    scorer.check()
    inputs, project = folder / "inputs", folder / "project"
    inputs.mkdir()
    size = 0
    for name, content in scorer.items(workload.files, workload, data):
        (inputs / name).write_bytes(content)
        size += len(content)
    store = dml.init(folder / "store", cache_dir=folder / "cache")
    scorer.provide(store, workload, folder)
    began = time.monotonic()
    store.put("items", inputs, message=f"{workload.files} files")
    put_s = time.monotonic() - began
    project.mkdir()
    (project / "dag.py").write_text(scorer.dag_text("items"))
    store.submit(project / "dag.py", params=scorer.parameters(workload))
    if scorer.trained:
        store.run(slots=1, targets=[MODEL_REPO])
    store[MODEL_REPO].get("/", folder / "model")
    return Prepared(folder, model, inputs, folder / "model", folder / "store", size, put_s)


def measure(contender: Contender, prepared: Prepared, ray: Path | None = None) -> Measured:
    """Run a contender once, in a process of its own, and look at all it left."""
    place = prepared.folder / "run"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    python = str(ray) if ray is not None and contender.name == RAY else sys.executable
    command = [python, "-m", "dmlpipe.benchmarks.contender", contender.name, "--slots", str(contender.slots)]
    command += ["--scorer", prepared.scorer]
    if contender.name == DMLPIPE:
        shutil.copytree(prepared.store, place / "store")
        command += ["--store", str(place / "store")]
    else:
        command += ["--inputs", str(prepared.inputs), "--model", str(prepared.model), "--out", str(place / "out")]
    # An empty cache folder for each run: a worker that was never here before.
    env = os.environ | ONE_THREAD | {"DMLPIPE_CACHE_DIR": str(place / "cache")}
    whole_s, marks = _timed(contender, command, env)
    second_s = second_cpu_s = None
    if contender.name == DMLPIPE:
        results = _digest(_committed(place / "store", place / "cache", prepared.scorer))
        changed = _change_one_percent(prepared.inputs, place / "store", place / "cache")
        second_s, again = _timed(contender, command, env)
        second_cpu_s = again.cpu_s
        if again.computed != changed:
            raise RuntimeError(f"after {changed} files changed, {again.computed} were labelled")
    else:
        results = _digest((path.name, path.read_bytes()) for path in sorted((place / "out").iterdir()))
    return Measured(whole_s, marks.done - marks.leased, marks.cpu_s, marks.computed, results, second_s, second_cpu_s)


def _timed(contender: Contender, command: Sequence[str], env: Mapping[str, str]) -> tuple[float, Marks]:
    began = time.monotonic()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    whole_s = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"{contender} failed with exit code {done.returncode}:\n{done.stderr}")
    return whole_s, Marks(**json.loads(done.stdout.splitlines()[-1]))


def _change_one_percent(inputs: Path, store_path: Path, cache: Path) -> int:
    """Put other content under one name in a hundred: that of the names behind them. Say how many."""
    paths = sorted(inputs.iterdir())
    changed = max(1, len(paths) // 100)
    with dml.open(store_path, cache_dir=cache).commit("items", message=f"{changed} changed") as commit:
        for path, other in zip(paths[:changed], paths[-changed:], strict=True):
            commit.write(f"/{path.name}", other.read_bytes())
    return changed


def _committed(store_path: Path, cache: Path, scorer: str) -> Iterable[tuple[str, bytes]]:
    """Results as the store has them, after asking it what made one of them."""
    store = dml.open(store_path, cache_dir=cache)
    commit = store["predictions"]
    names = sorted(entry.path for entry in commit.ls("/"))
    told = json.dumps(store.why(f"predictions:{names[0]}").to_dict())
    if MODEL_REPO not in told or ("training" not in told and MODELS[scorer].trained):
        raise RuntimeError(f"the derivation of {names[0]} does not lead to the model and its training data: {told}")
    return ((name.lstrip("/"), commit.read_bytes(name)) for name in names)


def _digest(results: Iterable[tuple[str, bytes]]) -> str:
    found = hashlib.sha256()
    for name, data in results:
        found.update(f"{name} {len(data)}\n".encode())
        found.update(data)
    return found.hexdigest()


def run_rounds(
    workload: InferenceWorkload,
    contenders: Sequence[Contender],
    rounds: int,
    folder: Path,
    console: Console,
    *,
    model: str = "forest",
    data: Path | None = None,
    ray: Path | None = None,
) -> tuple[dict[Contender, list[Measured]], Prepared]:
    """Measure every contender once a round, and refuse figures of different results.

    Raises
    ------
    RuntimeError
        A contender failed, left out a file, or its results differ from the loop's.
    """
    console.print(f"preparing {workload.files:,} files for {MODELS[model].about}", style="dim")
    prepared = prepare(workload, folder, model=model, data=data)
    measured: dict[Contender, list[Measured]] = {contender: [] for contender in contenders}
    expected = ""
    for number, contender in interleaved(contenders, rounds, seed=workload.seed):
        found = measure(contender, prepared, ray)
        measured[contender].append(found)
        expected = expected or found.results
        if found.computed != workload.files or found.results != expected:
            raise RuntimeError(
                f"{contender} in round {number + 1}: {found.computed} of {workload.files} files, results "
                f"{found.results[:12]}, expected {expected[:12]}"
            )
        console.print(
            f"round {number + 1}  {contender!s:34} {found.whole_s:7.2f} s whole  {found.leased_s:7.2f} s leased "
            f"{found.cpu_s:7.2f} s CPU",
            style="dim",
        )
    return measured, prepared


def report(workload: InferenceWorkload, measured: Mapping[Contender, Sequence[Measured]]) -> list[dict[str, Any]]:
    """Figures of every contender, ratios taken round by round."""
    loop = next(runs for contender, runs in measured.items() if contender.name == "loop")
    rows = []
    for contender, runs in measured.items():
        whole = [run.whole_s for run in runs]
        leased = [run.leased_s for run in runs]
        pool = measured.get(Contender(POOL, contender.slots))
        row: dict[str, Any] = {
            "contender": contender.name,
            "slots": contender.slots,
            "whole_s": [round(value, 3) for value in whole],
            "leased_s": [round(value, 3) for value in leased],
            "cpu_s": [round(run.cpu_s, 3) for run in runs],
            "items_per_s": _plain(Spread.of([workload.total_items / value for value in leased])),
            "items_per_s_whole": _plain(Spread.of([workload.total_items / value for value in whole])),
            # 1.0: each slot labels as fast as the loop alone.
            "efficiency": _plain(
                Spread.of([ratio / contender.slots for ratio in ratios([run.leased_s for run in loop], leased)])
            ),
            "whole_to_loop": _plain(Spread.of(ratios(whole, [run.whole_s for run in loop]))),
            "cpu_to_loop": _plain(Spread.of(ratios([run.cpu_s for run in runs], [run.cpu_s for run in loop]))),
        }
        if runs[0].second_s is not None:
            second = [run.second_s for run in runs if run.second_s is not None]
            row["second_s"] = [round(value, 3) for value in second]
            row["second_cpu_s"] = [run.second_cpu_s for run in runs]
            # Of a run that keeps nothing: 1.0.
            row["second_to_first"] = _plain(Spread.of(ratios(second, whole)))
        if pool is not None:
            row["leased_to_pool"] = _plain(Spread.of(ratios(leased, [run.leased_s for run in pool])))
            row["whole_to_pool"] = _plain(Spread.of(ratios(whole, [run.whole_s for run in pool])))
        rows.append(row)
    return rows


def _plain(spread: Spread) -> dict[str, float]:
    return {name: round(value, 4) for name, value in dataclasses.asdict(spread).items()}


def show(
    rows: Sequence[dict[str, Any]], workload: InferenceWorkload, rounds: int, console: Console, *, model: str = "forest"
) -> None:
    """Print the table."""
    table = Table(
        title=f"{workload.files:,} files, {MODELS[model].about}; "
        f"median (range) of {rounds} round{'s' if rounds > 1 else ''}, in turn",
        title_justify="left",
        caption="leased: from the first file handed out to the last result written (dmlpipe: committed). "
        "whole: from starting the process to its end. efficiency: 1.0 is every slot as fast as the loop.",
        caption_justify="left",
    )
    table.add_column("contender")
    for name in (
        "slots",
        "items/s leased",
        "efficiency",
        "leased s / pool's",
        "whole s",
        "whole s / pool's",
        "CPU s / loop's",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        pool = Spread(**row["leased_to_pool"]) if "leased_to_pool" in row else None
        whole_pool = Spread(**row["whole_to_pool"]) if "whole_to_pool" in row else None
        table.add_row(
            row["contender"],
            str(row["slots"]),
            f"{row['items_per_s']['median']:,.0f}",
            f"{Spread(**row['efficiency']):.2f}",
            f"{pool:.2f}" if pool else "",
            f"{Spread.of(row['whole_s']):.1f}",
            f"{whole_pool:.2f}" if whole_pool else "",
            f"{Spread(**row['cpu_to_loop']):.2f}",
            style="bold" if row["contender"] == DMLPIPE else None,
        )
    console.print(table)
    for row in rows:
        if "second_s" in row:
            first, second = Spread.of(row["whole_s"]), Spread.of(row["second_s"])
            allowed = SECOND_SHARE * first.median + SECOND_S
            console.print(
                f"{row['contender']} x{row['slots']}: after 1 % of the files changed {second:.2f} s whole, "
                f"{second.median / first.median:.1%} of the first run; "
                f"{'within' if second.median <= allowed else 'over'} the limit of {SECOND_SHARE:.0%} plus "
                f"{SECOND_S:g} s = {allowed:.2f} s"
            )


def result_file(out: Path | None, benchmark: str = "") -> Path:
    """Return where the figures go: `out`, or `<date>-<commit>.json` in the folder `out`, or in `benchmarks/results`.

    The name of a benchmark other than that of inference stands at the end.
    """
    if out is not None and not out.is_dir():
        return out
    name = "-".join(filter(None, (datetime.now(UTC).date().isoformat(), commit().rstrip("+"), benchmark)))
    return (out or RESULTS) / f"{name}.json"


def contenders_for(slots: Sequence[int], *, ray: bool = False, only: Sequence[str] = ()) -> list[Contender]:
    """Return the loop, and each other contender on each number of slots.

    Parameters
    ----------
    ray
        Whether Ray takes part.
    only
        Who takes part beside the loop and the pool, with which all are compared; empty: all.
    """
    names = [*BASELINES, DMLPIPE]
    others = [name for name in names if name != "loop" and (ray or name != RAY)]
    if only:
        others = [name for name in others if name == POOL or name in only]
    return [Contender("loop", 1), *(Contender(name, count) for name in others for count in slots)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, print its table, write its figures and its plot."""
    usual = InferenceWorkload()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference", description=__doc__)
    parser.add_argument("--files", type=int, default=usual.files, help="default: %(default)s")
    parser.add_argument("--trees", type=int, default=usual.trees, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    parser.add_argument("--model", choices=MODELS, default="forest", help="default: %(default)s")
    parser.add_argument("--data", type=Path, help="folder whose files magika or minilm label: Python's own library")
    parser.add_argument("--ray", type=Path, metavar="PYTHON", help="a Python that has Ray and dmlpipe: measure it, too")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        choices=[*BASELINES, DMLPIPE],
        help="beside the loop and the pool: all",
    )
    parser.add_argument("--dir", type=Path, help="where to work, default: the system's folder for temporary files")
    parser.add_argument("--out", type=Path, help="file or folder; default: benchmarks/results, and an .svg beside it")
    given = parser.parse_args(arguments)
    if given.files < 1 or given.rounds < 1 or min(given.slots) < 1:
        parser.error("--files, --rounds and --slots take numbers above 0")
    # For the training, too; children get them anyway.
    os.environ.update(ONE_THREAD)
    console = Console()
    if not console.is_terminal:
        console = Console(width=132)
    out = result_file(given.out)
    items = usual.items if MODELS[given.model].trained else 1
    workload = InferenceWorkload(files=given.files, items=items, trees=given.trees)
    machine, taken_at = describe(), commit()
    with tempfile.TemporaryDirectory(prefix="dmlpipe-bench-", dir=given.dir) as folder:
        measured, prepared = run_rounds(
            workload,
            contenders_for(given.slots, ray=given.ray is not None, only=given.only),
            given.rounds,
            Path(folder),
            console,
            model=given.model,
            data=given.data,
            ray=given.ray,
        )
    rows = report(workload, measured)
    result = {
        "benchmark": "inference",
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": taken_at,
        "machine": dataclasses.asdict(machine),
        "versions": versions(PACKAGES),
        "workload": dataclasses.asdict(workload)
        | {"model": given.model, "about": MODELS[given.model].about}
        | {"input_bytes": prepared.input_bytes, "result_hash": next(iter(measured.values()))[0].results},
        "rounds": given.rounds,
        "fsync": os.environ.get("DMLPIPE_FSYNC", "commit"),
        "put_s": round(prepared.put_s, 3),
        "contenders": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    # Imported here: matplotlib in the parent would change nothing, but takes half a second.
    from .chart import draw

    draw(result, out.with_suffix(".svg"))
    show(rows, workload, given.rounds, console, model=given.model)
    console.print(f"all {len(measured) * given.rounds} runs gave the same results; put took {prepared.put_s:.2f} s")
    console.print(f"figures: {out}\nplot:    {out.with_suffix('.svg')}", soft_wrap=True)


if __name__ == "__main__":
    main()
