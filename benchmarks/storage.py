"""How fast a folder is put, put again, compared and got, beside cp and what else keeps versions.

``python -m benchmarks.storage``; README.md says what is measured and how.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console
from rich.table import Table

from .machine import RESULTS, commit, describe, versions
from .rounds import Spread, interleaved, ratios
from .storage_limits import judge
from .storage_parts import ledger_part, reading_part, tree_part
from .storage_peers import CP, DMLPIPE, Command, Peer, all_peers

STEPS = ("put", "again", "status", "get")
PACKAGES = ("blake3", "msgspec", "zstandard", "fsspec")
LIMIT_S = 900


@dataclass(frozen=True, slots=True)
class FolderWorkload:
    """Files of random bytes."""

    name: str
    files: int
    folders: int
    least_bytes: int
    most_bytes: int
    changed: int = 10

    def write(self, root: Path) -> int:
        """Make the files; return their bytes."""
        rng = random.Random(7)
        total = 0
        for number in range(self.files):
            folder = root / f"class_{number % self.folders:04d}"
            if number < self.folders:
                folder.mkdir(parents=True)
            size = rng.randint(self.least_bytes, self.most_bytes)
            with open(folder / f"img_{number:07d}.bin", "wb") as file:
                total += _write_random(file, rng, size)
        return total

    def change(self, root: Path, seed: int) -> None:
        """Write other bytes into some of the files."""
        rng = random.Random(seed)
        for number in rng.sample(range(self.files), min(self.changed, self.files)):
            file = root / f"class_{number % self.folders:04d}" / f"img_{number:07d}.bin"
            with open(file, "r+b") as out:
                _write_random(out, rng, self.least_bytes)


def _write_random(file: BinaryIO, rng: random.Random, size: int) -> int:
    """Write so many random bytes; `randbytes` itself ends before 256 MiB."""
    for start in range(0, size, 1 << 24):
        file.write(rng.randbytes(min(1 << 24, size - start)))
    return size


SMALL = FolderWorkload("small", 100_000, 100, 1024, 4096)
LARGE = FolderWorkload("large", 8, 8, 256 << 20, 256 << 20, changed=1)


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of one contender took."""

    seconds: float
    cpu_s: float
    """Of the processes it started, and of those that they waited for."""
    peak_mib: float


def run_commands(commands: Sequence[Command], peer: Peer, folder: Path) -> Step:
    """Run commands one after the other and measure them as whole processes.

    Raises
    ------
    RuntimeError
        One failed.
    """
    env = {**os.environ, "HOME": str(folder), **peer.env}
    # As for whoever installed it: bytecode is there from the second run on.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    cpu_s = peak = 0.0
    began = time.monotonic()
    for command in commands:
        with open(folder / "said", "wb") as said:
            child = subprocess.Popen(command, cwd=folder, env=env, stdout=said, stderr=said)
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}:\n{(folder / 'said').read_text()}")
        cpu_s += used.ru_utime + used.ru_stime
        peak = max(peak, used.ru_maxrss / 1024)
    return Step(time.monotonic() - began, cpu_s, peak)


def measure(peer: Peer, workload: FolderWorkload, source: Path, folder: Path, seed: int) -> Iterator[tuple[str, Step]]:
    """Take a contender through all of its steps, in a folder of its own, and compare what it gave back."""
    subprocess.run(["rm", "-rf", folder], check=True)
    folder.mkdir()
    subprocess.run(["cp", "-r", source, folder / "src"], check=True)
    time.sleep(0.1)  # nothing that follows is younger than a tick of the clock
    run_commands(peer.prepare, peer, folder)
    yield "put", run_commands(peer.put, peer, folder)
    workload.change(folder / "src", seed)
    if peer.again:
        yield "again", run_commands(peer.again, peer, folder)
    if peer.status:
        yield "status", run_commands(peer.status, peer, folder)
    expected = folder / "src"
    if peer.gets_in_place:
        expected = expected.rename(folder / "expected")
    yield "get", run_commands(peer.get, peer, folder)
    out = folder / "out"
    out = out if out.exists() else folder
    inner = out / "src" if (out / "src").exists() else out
    compare = subprocess.run(["diff", "-rq", expected, inner], capture_output=True, text=True, check=False)
    if compare.returncode:
        raise RuntimeError(f"{peer.name} gave back something else:\n{compare.stdout[:500]}")
    subprocess.run(["rm", "-rf", folder], check=True)


def run_rounds(
    peers: Sequence[Peer], workload: FolderWorkload, rounds: int, peer_rounds: int, folder: Path, console: Console
) -> dict[str, dict[str, list[Step]]]:
    """Measure every contender once a round; return steps by contender and name.

    Parameters
    ----------
    peer_rounds
        Others than cp and dmlpipe take part in so many rounds, the first ones.
    """
    source = folder / "source"
    size = workload.write(source)
    console.print(f"{workload.name}: {workload.files:,} files, {size >> 20:,} MiB", style="dim")
    found: dict[str, dict[str, list[Step]]] = {}
    for number, peer in interleaved([peer for peer in peers if peer.is_there()], rounds, seed=1):
        if number >= peer_rounds and peer.name not in (CP, DMLPIPE):
            continue
        for name, step in measure(peer, workload, source, folder / "run", number):
            found.setdefault(peer.name, {}).setdefault(name, []).append(step)
            console.print(
                f"round {number + 1}  {peer.name:12} {name:7} {step.seconds:7.2f} s  {step.cpu_s:7.2f} s CPU  "
                f"{step.peak_mib:6.0f} MiB",
                style="dim",
            )
    subprocess.run(["rm", "-rf", source], check=True)
    return found


def warm_up(peers: Sequence[Peer], folder: Path) -> None:
    """Let every contender do all of it once with a few files: what it keeps from its first run is there then."""
    few = FolderWorkload("few", 10, 2, 1024, 4096)
    few.write(folder / "source")
    for peer in peers:
        if peer.is_there():
            list(measure(peer, few, folder / "source", folder / "run", 0))
    shutil.rmtree(folder / "source")


def report(found: Mapping[str, Mapping[str, Sequence[Step]]], peers: Sequence[Peer]) -> list[dict[str, Any]]:
    """Return a row for each contender and step, ratios taken round by round; those that are absent say so."""
    rows: list[dict[str, Any]] = []
    own, copies = found[DMLPIPE], found[CP]
    for peer in peers:
        steps = found.get(peer.name)
        if steps is None:
            rows.append({"contender": peer.name, "absent": True})
            continue
        for name in STEPS:
            if name not in steps:
                continue
            seconds = [step.seconds for step in steps[name]]
            # Who took part in fewer rounds was there from the first.
            base = [step.seconds for step in copies["get" if name == "get" else "put"]][: len(seconds)]
            rows.append(
                {
                    "contender": peer.name,
                    "step": name,
                    "seconds": [round(value, 3) for value in seconds],
                    "cpu_s": [round(step.cpu_s, 3) for step in steps[name]],
                    "peak_mib": round(max(step.peak_mib for step in steps[name])),
                    "to_cp": _plain(ratios(seconds, base)),
                    "to_dmlpipe": _plain(ratios(seconds, [step.seconds for step in own[name]][: len(seconds)]))
                    if name in own
                    else None,
                    "to_first_put": _plain(ratios(seconds, [step.seconds for step in steps["put"]])),
                }
            )
    return rows


def _plain(values: Sequence[float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in dataclasses.asdict(Spread.of(values)).items()}


def show(name: str, rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print the table of one workload."""
    table = Table(title=name, title_justify="left")
    for column in ("contender", "step", "s", "CPU s", "peak MiB", "/ cp", "/ dmlpipe", "/ own first put"):
        table.add_column(column, justify="left" if column in ("contender", "step") else "right")
    for row in rows:
        if "absent" in row:
            table.add_row(row["contender"], "absent")
            continue
        table.add_row(
            row["contender"],
            row["step"],
            f"{Spread.of(row['seconds']):.2f}",
            f"{Spread.of(row['cpu_s']):.2f}",
            f"{row['peak_mib']}",
            f"{Spread(**row['to_cp']):.2f}",
            f"{Spread(**row['to_dmlpipe']):.2f}" if row["to_dmlpipe"] else "",
            f"{Spread(**row['to_first_put']):.2f}",
            style="bold" if row["contender"] == DMLPIPE else None,
        )
    console.print(table)


def show_limits(limits: Sequence[dict[str, Any]], console: Console) -> None:
    """Print what is to hold, and whether it does."""
    table = Table(title="limits", title_justify="left")
    for column in ("work", "must be", "is", ""):
        table.add_column(column, justify="left" if column == "work" else "right")
    for limit in limits:
        said = {True: "", False: "missed", None: "absent"}[limit["holds"]]
        measured = f"{limit['measured']:g}" if limit["measured"] is not None else ""
        table.add_row(limit["work"], limit["must"], measured, said)
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, print its tables, write its figures and its plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storage", description=__doc__)
    parser.add_argument("--files", type=int, default=SMALL.files, help="small files; default: %(default)s")
    parser.add_argument("--large-mib", type=int, default=2048, help="bytes in 8 large files; default: %(default)s")
    parser.add_argument("--entries", type=int, default=1_000_000, help="of a commit tree; default: %(default)s")
    parser.add_argument("--commits", type=int, default=100, help="of each of 8 processes; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="of cp and dmlpipe; default: %(default)s")
    parser.add_argument("--peer-rounds", type=int, default=1, help="of the others; default: %(default)s")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a hundredth of everything, one round: shows that it works, not how fast it is",
    )
    parser.add_argument("--peers", nargs="*", help="names of contenders; default: all. cp and dmlpipe always take part")
    parser.add_argument("--dvc", default="dvc", help="DVC's program; default: the one on the PATH")
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="where to work; default: %(default)s")
    parser.add_argument("--out", type=Path, help="JSON file; default: benchmarks/results/<date>-<commit>-storage.json")
    given = parser.parse_args(arguments)
    if given.quick:
        given.files, given.large_mib, given.entries, given.commits, given.rounds = 1000, 64, 10_000, 3, 1
    console = Console(width=None if sys.stdout.isatty() else 132)
    peers = all_peers(given.dvc)
    if given.peers is not None:
        peers = [peer for peer in peers if peer.name in {CP, DMLPIPE, *given.peers}]
    machine, taken_at = describe(), commit()
    small = dataclasses.replace(SMALL, files=given.files, folders=min(SMALL.folders, given.files))
    each = (given.large_mib << 20) // LARGE.files
    large = dataclasses.replace(LARGE, least_bytes=each, most_bytes=each)
    workloads: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="dmlpipe-bench-", dir=given.dir) as folder:
        warm_up(peers, Path(folder))
        for workload in (small, large):
            found = run_rounds(peers, workload, given.rounds, given.peer_rounds, Path(folder), console)
            rows = report(found, peers)
            workloads[workload.name] = {**dataclasses.asdict(workload), "rows": rows}
            show(workload.name, rows, console)
        parts = {
            "tree": tree_part(given.entries),
            "ledger": ledger_part(Path(folder), commits=given.commits),
            "reading": reading_part(Path(folder)),
        }
    console.print_json(data=parts)
    result = {
        "benchmark": "storage",
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": taken_at,
        "machine": dataclasses.asdict(machine),
        "versions": versions(PACKAGES) | {peer.name: peer.tell_version() for peer in peers},
        "rounds": given.rounds,
        "workloads": workloads,
        "parts": parts,
    }
    if not given.quick:
        result["limits"] = judge(result)
        show_limits(result["limits"], console)
    stem = f"{datetime.now(UTC).date().isoformat()}-{taken_at.rstrip('+')}-storage.json"
    out: Path = given.out or RESULTS / stem
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    from .storage_chart import draw

    draw(result, out.with_suffix(".svg"))
    console.print(f"figures: {out}\nplot:    {out.with_suffix('.svg')}", soft_wrap=True)


if __name__ == "__main__":
    main()
