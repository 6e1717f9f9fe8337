"""What a scaling benchmark measures, and what it found: points, rows, the result file. Pure but for that file."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from dmlpipe.storage.errors import InvalidInputError
from dmlpipe.storage.version import __version__

from .rounds import interleaved

Scaling = Literal["strong", "weak"]
SCALINGS: tuple[Scaling, ...] = ("strong", "weak")
FORMAT = 1


class Point(NamedTuple):
    """One thing to measure."""

    scaling: Scaling
    """strong: the same work for any number of workers; weak: the same work for each of them."""
    workers: int
    round: int

    def __str__(self) -> str:
        return f"{self.scaling}-{self.workers}-{self.round}"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What was found at a point."""

    scaling: Scaling
    workers: int
    round: int
    slots: int
    """Of all workers."""
    items: int
    """Done in `seconds`: what `rate` counts."""
    seconds: float
    """From the plan, with all slots waiting, to the commit."""
    wait_s: float
    """From asking for the workers to the last slot."""
    origin_bytes: int | None = None
    """Of files from 1 MiB on, by all hosts, from the store; None: not counted."""
    peer_bytes: int | None = None
    """The same, from each other."""
    more: dict[str, float] = {}
    """What only this benchmark has."""

    @property
    def point(self) -> Point:
        """Where it was found."""
        return Point(self.scaling, self.workers, self.round)

    @property
    def rate(self) -> float:
        """Items a second."""
        return self.items / self.seconds


class Result(msgspec.Struct, kw_only=True):
    """A result file."""

    benchmark: str
    unit: str
    """Of items: `files`, `datums`, `MiB`."""
    format: int = FORMAT
    taken: str = ""
    dmlpipe: str = __version__
    commit: str = ""
    cluster: dict[str, Any] = {}
    machine: dict[str, Any] = {}
    """Where the controller ran."""
    hosts: list[dict[str, Any]] = []
    """Where workers ran, as far as they say so."""
    versions: dict[str, str] = {}
    workload: dict[str, Any] = {}
    rows: list[Row] = []

    def missing(self, points: Iterable[Point]) -> list[Point]:
        """Points that have no row yet."""
        there = {row.point for row in self.rows}
        return [point for point in points if point not in there]


class Level(NamedTuple):
    """Rows of one number of workers, summarised."""

    scaling: Scaling
    workers: int
    slots: int
    rounds: int
    rate: float
    """Median."""
    low: float
    high: float
    efficiency: float
    """Rate of a slot / that of a slot of the smallest cluster."""
    origin_bytes: float | None
    peer_bytes: float | None


def all_points(workers: Sequence[int], scalings: Sequence[Scaling], rounds: int) -> list[Point]:
    """Return every point, round by round, each round in another order.

    Examples
    --------
    >>> sorted(all_points([1, 2], ["strong"], 1))
    [Point(scaling='strong', workers=1, round=0), Point(scaling='strong', workers=2, round=0)]
    """
    pairs: list[tuple[Scaling, int]] = [(scaling, count) for scaling in scalings for count in workers]
    return [Point(scaling, count, number) for number, (scaling, count) in interleaved(pairs, rounds)]


def levels(rows: Sequence[Row]) -> list[Level]:
    """Summarise rows by scaling and number of workers, smallest first.

    Examples
    --------
    >>> def row(workers, seconds):
    ...     return Row(scaling="strong", workers=workers, round=0, slots=workers, items=8, seconds=seconds, wait_s=0)
    >>> [(level.workers, level.rate, level.efficiency) for level in levels([row(1, 8.0), row(2, 5.0)])]
    [(1, 1.0, 1.0), (2, 1.6, 0.8)]
    """
    found: list[Level] = []
    for scaling in SCALINGS:
        base = 0.0
        for count in sorted({row.workers for row in rows if row.scaling == scaling}):
            mine = [row for row in rows if (row.scaling, row.workers) == (scaling, count)]
            rates = [row.rate for row in mine]
            slots = mine[0].slots
            rate = statistics.median(rates)
            base = base or rate / slots
            origin = [row.origin_bytes for row in mine if row.origin_bytes is not None]
            peers = [row.peer_bytes for row in mine if row.peer_bytes is not None]
            found.append(
                Level(
                    scaling,
                    count,
                    slots,
                    len(mine),
                    rate,
                    min(rates),
                    max(rates),
                    rate / slots / base,
                    statistics.median(origin) if origin else None,
                    statistics.median(peers) if peers else None,
                )
            )
    return found


def read_result(path: Path) -> Result:
    """Read a result file, or the only one in a folder.

    Raises
    ------
    InvalidInputError
        There is none, or it is something else.
    """
    if path.is_dir():
        inside = sorted(path.glob("*.json"))
        if len(inside) != 1:
            raise InvalidInputError(
                f"{path} holds {len(inside)} result files", hint="name the .json file that dmlpipe bench wrote"
            )
        path = inside[0]
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Result)
    except FileNotFoundError:
        raise InvalidInputError(f"there is no result file {path}") from None
    except msgspec.DecodeError as err:
        raise InvalidInputError(f"{path} is no result of dmlpipe bench: {err}") from err
    if found.format != FORMAT:
        raise InvalidInputError(f"{path} has format {found.format}, this dmlpipe reads {FORMAT}")
    return found


def resume(path: Path, new: Result) -> Result:
    """Return what `path` holds, if that is of the same benchmark, cluster and workload as `new`; else `new`.

    Raises
    ------
    InvalidInputError
        It holds something else: its figures must not be mixed with others.
    """
    if not path.exists():
        return new
    old = read_result(path)
    for name in ("benchmark", "dmlpipe", "cluster", "workload"):
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            raise InvalidInputError(
                f"{path} holds figures of another {name}: {before}, not {now}",
                hint="choose another --out, or the options of then to go on with it",
            )
    return old


def save(path: Path, result: Result) -> None:
    """Write a result file, whole or not at all."""
    result.taken = datetime.now(UTC).isoformat(timespec="seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    partial.replace(path)
