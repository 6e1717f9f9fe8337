"""One large file to every host of a cluster: `python -m benchmarks.broadcast`.

A model lies in an S3 server behind a proxy that lets so many bytes a second through. Every host wants it at once:
first one host alone, then all of them from the server, then all of them with peers. Hosts are network namespaces with
caches of their own; everything between them is encrypted.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import dmlpipe as dml
from dmlpipe.storage.objects.value import encode_value

from . import namespaces
from .cluster_key import make_key
from .fleets import scheduler_with
from .machine import commit, describe, versions
from .namespaces import Place
from .object_server import BUCKET, object_server
from .throttle import Throttle

ORIGIN_LIMIT = 1.05
"""Bytes that the store may be asked for, in models."""
FASTER_LIMIT = 5.0
"""At least so many times faster than all from the store."""
ONE_READ_LIMIT = 1.5
"""At most so many times the time of one read of the store."""


class Host:
    """A host's process."""

    def __init__(self, place: Place, arguments: Sequence[str], environment: dict[str, str], log: Path) -> None:
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [*place.command, sys.executable, "-m", "dmlpipe.benchmarks.broadcast_host", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )
        self.log = log

    def say(self, line: dict[str, Any]) -> None:
        """Send a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Read a line.

        Raises
        ------
        RuntimeError
            The host ended.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a host ended:\n{self.log.read_text()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def places(count: int, link_mbit: int, *, loopback: bool) -> Iterator[tuple[str, Sequence[Place]]]:
    """Yield an address that all hosts reach, and the hosts."""
    if loopback:
        yield "127.0.0.1", [Place("127.0.0.1", ())] * count
    else:
        with namespaces.hosts(count, link_mbit=link_mbit) as made:
            yield made


class Rounds:
    """Measures one broadcast after the other.

    Parameters
    ----------
    value
        Of the model, encoded, hex.
    """

    def __init__(self, hosts: Sequence[Host], throttle: Throttle, folder: Path, value: str) -> None:
        self.hosts, self.throttle, self.folder, self.value = hosts, throttle, folder, value
        self.number = 0

    def measure(self, name: str, count: int, *, peers: bool) -> dict[str, Any]:
        """Let `count` hosts fetch the model at once; return what that took."""
        self.number += 1
        taking = self.hosts[:count]
        for host in taking:
            host.say({"run": self.number, "value": self.value, "peers": peers})
        for host in taking:
            host.hear()
        before, began = self.throttle.answered_bytes, time.perf_counter()
        for host in taking:
            host.say({})
        answers = [host.hear() for host in taking]
        seconds = time.perf_counter() - began
        print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)
        for place in self.folder.glob(f"host-*/run-{self.number}"):
            shutil.rmtree(place)
        return {
            "name": name,
            "hosts": count,
            "seconds": round(seconds, 2),
            "host_seconds": sorted(round(answer["seconds"], 2) for answer in answers),
            "cpu_s": round(sum(answer["cpu_s"] for answer in answers), 2),
            "origin_bytes": self.throttle.answered_bytes - before,
            "from_peers": sum(answer["from_peers"] for answer in answers),
            "bytes": sum(answer["bytes"] for answer in answers),
        }


def run(given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Set everything up, measure, take it down."""
    for name in ("server", "logs"):
        (folder / name).mkdir()
    key = make_key(folder / "key")
    size = given.mib << 20
    with (
        places(given.hosts, given.link_mbit, loopback=given.loopback) as (address, where),
        object_server(folder / "server") as server,
        Throttle(address, ("127.0.0.1", server.port), given.origin_mib * 2**20) as throttle,
        scheduler_with(address, key, folder / "logs" / "scheduler") as cluster,
    ):
        os.environ.update(server.environment | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}"})
        url = f"s3://{BUCKET}/store"
        store = dml.init(url, cache_dir=folder / "cache")
        model = folder / "model"
        with model.open("wb") as file:
            for _ in range(given.mib):
                file.write(os.urandom(1 << 20))
        store.put("model", model)
        value = encode_value(store["model"].value("model")).hex()
        environment = os.environ | {"AWS_ENDPOINT_URL": throttle.endpoint, "DMLPIPE_FSYNC": "never"}
        hosts = []
        try:
            for number, place in enumerate(where):
                own = folder / f"host-{number}"
                own.mkdir()
                words = [cluster, f"host-{number}", place.address, url, str(own), str(key)]
                hosts.append(Host(place, words, environment, folder / "logs" / f"host-{number}"))
            for host in hosts:
                host.hear()
            rounds = Rounds(hosts, throttle, folder, value)
            rows = [rounds.measure("one host, from the store", 1, peers=False)]
            for _ in range(given.rounds):
                rows.append(rounds.measure("all hosts, with peers", given.hosts, peers=True))
            if not given.skip_all_from_store:
                rows.append(rounds.measure("all hosts, from the store", given.hosts, peers=False))
        finally:
            for host in hosts:
                host.process.kill()
                host.process.wait()
                for stream in (host.process.stdin, host.process.stdout):
                    assert stream is not None
                    stream.close()
    for row in rows:
        row["origin_models"] = round(row["origin_bytes"] / size, 3)
        row["of_one_read"] = round(row["seconds"] / rows[0]["seconds"], 2)
    return rows


def verdicts(rows: Sequence[dict[str, Any]], ideal_s: float) -> dict[str, float]:
    """The figures that have limits: of the best round with peers."""
    best = min((row for row in rows if row["name"] == "all hosts, with peers"), key=lambda row: row["seconds"])
    found = {
        "origin_models": best["origin_models"],
        "of_one_read": best["of_one_read"],
        "of_ideal": round(best["seconds"] / ideal_s, 2),
    }
    for row in rows:
        if row["name"] == "all hosts, from the store":
            found["faster_than_all_from_store"] = round(row["seconds"] / best["seconds"], 2)
    return found


def ideal_s(given: argparse.Namespace) -> float:
    """No schedule is faster: the store or a link carries the model once, the last part crosses log2(hosts) links."""
    link_bytes_s = given.link_mbit * 1e6 / 8 if given.link_mbit else float("inf")
    parts = 16 * 2**20 / link_bytes_s * max(0, given.hosts - 1).bit_length()
    return float(given.mib * 2**20 / min(given.origin_mib * 2**20, link_bytes_s) + parts)


def draw(result: dict[str, Any], target: Path) -> None:
    """Draw seconds and bytes of the store for each row."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "dmlpipe"
    rows = list(reversed(result["rows"]))
    figure = Figure(figsize=(9, 0.5 * len(rows) + 1.4), layout="constrained")
    for axes, key, label in zip(
        figure.subplots(1, 2, sharey=True),
        ("seconds", "origin_models"),
        ("seconds", "models read from the store"),
        strict=True,
    ):
        colors = ["tab:orange" if "peers" in row["name"] else "tab:blue" for row in rows]
        bars = axes.barh(range(len(rows)), [row[key] for row in rows], color=colors)
        axes.bar_label(bars, fmt="%.4g", padding=3, fontsize="small")
        axes.set_xlabel(label)
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    workload = result["workload"]
    figure.suptitle(
        f"{workload['mib']} MiB to {workload['hosts']} hosts, store at {workload['origin_mib']:g} MiB/s",
        fontsize="medium",
    )
    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table; exit with 1 if a limit is passed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.broadcast", description=__doc__)
    parser.add_argument("--mib", type=int, default=512, help="size of the model, default: %(default)s")
    parser.add_argument("--hosts", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--origin-mib", type=float, default=20.0, help="of the store, a second: %(default)s")
    parser.add_argument("--link-mbit", type=int, default=0, help="of each host's link; default: not limited")
    parser.add_argument("--rounds", type=int, default=2, help="with peers, default: %(default)s")
    parser.add_argument("--skip-all-from-store", action="store_true", help="leave out what takes longest")
    parser.add_argument("--loopback", action="store_true", help="no namespaces: needs no root")
    parser.add_argument("--dir", type=Path, help="where hosts have their caches; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, and a plot beside it as SVG")
    given = parser.parse_args(arguments)
    if given.mib < 1 or given.hosts < 1 or given.rounds < 1 or given.origin_mib <= 0:
        parser.error("--mib, --hosts, --rounds and --origin-mib take numbers above 0")
    if not given.loopback and not namespaces.available():
        parser.error("network namespaces need root and iproute2; --loopback does without")
    # What was set up is taken down when somebody ends it, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    machine = describe()
    with tempfile.TemporaryDirectory(prefix="dmlpipe-bench-", dir=given.dir) as folder:
        rows = run(given, Path(folder))
    found = verdicts(rows, ideal_s(given))
    table = Table(title=f"{given.mib} MiB to {given.hosts} hosts, store at {given.origin_mib:g} MiB/s")
    for column in ("", "s", "times one read", "models from the store", "CPU s"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['seconds']:.1f}",
            f"{row['of_one_read']:.2f}",
            f"{row['origin_models']:.3f}",
            f"{row['cpu_s']:.1f}",
        )
    console = Console(width=None if sys.stdout.isatty() else 132)
    console.print(table)
    console.print(found)
    if given.out:
        result = {
            "benchmark": "broadcast",
            "taken": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "machine": dataclasses.asdict(machine),
            "versions": versions(("dmlpipe", "distributed", "s3fs")),
            "workload": {
                "mib": given.mib,
                "hosts": given.hosts,
                "origin_mib": given.origin_mib,
                "link_mbit": given.link_mbit,
                "namespaces": not given.loopback,
                "ideal_s": round(ideal_s(given), 2),
            },
            "rows": rows,
            "found": found,
        }
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=1) + "\n")
        draw(result, given.out.with_suffix(".svg"))
    if found["origin_models"] > ORIGIN_LIMIT:
        console.print(f"the store was read {found['origin_models']} times, over {ORIGIN_LIMIT}")
        sys.exit(1)
    if found["of_one_read"] > ONE_READ_LIMIT or found.get("faster_than_all_from_store", FASTER_LIMIT) < FASTER_LIMIT:
        console.print(
            f"slower than {ONE_READ_LIMIT} reads of the store, or not {FASTER_LIMIT:g} times faster than all from it"
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
