"""Strong and weak scaling: measure the points that a result file lacks, one after the other, and draw what is there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

import dmlpipe
from dmlpipe.scheduler.errors import ClusterError
from dmlpipe.scheduler.store import Store
from dmlpipe.storage.errors import FormatError

from .fleets import Fleet
from .machine import commit, describe
from .points import Point, Result, Row, resume, save
from .scaling_chart import draw
from .works import Work

PACKAGES = ("dmlpipe", "distributed", "msgspec", "s3fs", "numpy", "scikit-learn", "onnxruntime", "magika")

Say = Callable[[str], None]


def scale(
    work: Work,
    fleet: Fleet,
    points: Sequence[Point],
    *,
    out: Path,
    store_url: str | None,
    folder: Path,
    keep: bool,
    plot: bool,
    say: Say,
) -> Result:
    """Measure what is missing.

    Parameters
    ----------
    out
        The result file; a plot goes beside it as SVG. What it holds already is not measured again.
    store_url
        Below it a store is made for the benchmark; None: in `folder`.
    folder
        For stores, caches and logs; all nodes must share it where the fleet is of several.
    plot
        Draw what is there after each point.
    keep
        Leave the store at the end.

    Raises
    ------
    InvalidInputError
        `out` holds other figures.
    ClusterError
        No point could be measured.
    """
    result = resume(out, _new(work, fleet))
    missing = result.missing(points)
    if len(missing) < len(points):
        say(f"{out} holds {len(points) - len(missing)} of {len(points)} points already")
    if not missing:
        return result
    store = _store(work, store_url, folder)
    problems: list[str] = []
    for number, point in enumerate(missing):
        place = folder / "points" / str(point)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            row, crew = work.measure(point, fleet, store, place)
        except ClusterError as err:
            # Fewer workers than asked for: the others can be measured.
            problems.append(f"{point}: {err}")
            say(f"{number + 1}/{len(missing)}  {point} was left out: {err}")
            continue
        finally:
            shutil.rmtree(place, ignore_errors=True)
        result.rows.append(row)
        for host in crew.hosts if crew is not None else []:
            if host not in result.hosts:
                result.hosts.append(host)
        save(out, result)
        if plot:
            draw(result, out.with_suffix(".svg"))
        say(f"{number + 1}/{len(missing)}  {_told(row, result.unit)}")
    if not result.rows:
        raise ClusterError(f"no point could be measured: {problems[0]}")
    shutil.rmtree(folder / "points", ignore_errors=True)
    if not problems and not keep:
        _delete(store)
        shutil.rmtree(folder / "own-cache", ignore_errors=True)
    return result


def _told(row: Row, unit: str) -> str:
    text = f"{row.scaling:6} x{row.workers:<4} {row.items:,} {unit} in {row.seconds:.2f} s: {row.rate:,.0f}/s"
    return text + (f", {row.origin_bytes / 2**20:,.1f} MiB from the store" if row.origin_bytes else "")


def _new(work: Work, fleet: Fleet) -> Result:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return Result(
        benchmark=work.name,
        unit=work.unit,
        commit=commit(),
        cluster=fleet.settings(),
        machine=dataclasses.asdict(describe()),
        versions=versions,
        workload=work.settings(),
    )


def _store(work: Work, url: str | None, folder: Path) -> Store:
    # Not by the point: what is put for one is there for the others, and after an interruption.
    told = json.dumps(work.settings(), sort_keys=True).encode()
    name = f"dmlpipe-bench-{work.name}-{hashlib.blake2b(told, digest_size=4).hexdigest()}"
    base = (url or str(folder.absolute())).rstrip("/")
    place = f"{base}/{name}"
    try:
        return dmlpipe.open(place, cache_dir=folder / "own-cache")
    except FormatError:
        return dmlpipe.init(place, cache_dir=folder / "own-cache")


def _delete(store: Store) -> None:
    """Remove a store that this benchmark made, and nothing else."""
    if urlsplit(store.url).scheme in ("", "file"):
        shutil.rmtree(urlsplit(store.url).path)
        return
    store.backend.delete_many([key for key, _ in store.backend.list("")])
