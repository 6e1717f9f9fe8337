"""Folders put into a store and got from it by several processes at once: the storage benchmark at a point."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from dmlpipe.scheduler.store import Store
from dmlpipe.storage.errors import ErrorCode, InvalidInputError
from dmlpipe.storage.store import Store as DataStore

from .fleets import Crew, Fleet, GivenFleet
from .machine import describe_here
from .points import Point, Row
from .works import Work

MIN_BYTES, MAX_BYTES = 1024, 4096


class Share(NamedTuple):
    """What one process does."""

    url: str
    repo: str
    folder: str
    """New, on the process's own machine."""
    files: int
    seed: int


def write_share(share: Share) -> int:
    """Write the files of a share, and open the store once; return their bytes."""
    source = Path(share.folder) / "source"
    rng = random.Random(share.seed)
    total = 0
    for number in range(share.files):
        path = source / f"{number // 1000:03d}" / f"{number:07d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        total += path.write_bytes(rng.randbytes(rng.randint(MIN_BYTES, MAX_BYTES)))
    _open(share).ledger.refresh()
    return total


def put_share(share: Share) -> int:
    """Put it as one commit; return its files."""
    _open(share).put(share.repo, Path(share.folder) / "source", create=True)
    return share.files


def get_share(share: Share) -> int:
    """Get it into an empty folder; return how many files came."""
    target = Path(share.folder) / "got"
    _open(share)[share.repo].get("/", target)
    return sum(1 for path in target.rglob("*") if path.is_file())


def drop_share(share: Share) -> None:
    """Remove the folder."""
    shutil.rmtree(share.folder, ignore_errors=True)


def _open(share: Share) -> DataStore:
    return DataStore.open(share.url, cache_dir=Path(share.folder) / "cache")


Run = Callable[[Callable[[Share], Any], Sequence[Share]], list[Any]]


class StorageWork(Work):
    """Folders of small files, one a process, put at once and got at once."""

    name, unit = "storage", "files"

    def __init__(self, strong: int, weak: int) -> None:
        self.strong, self.weak = strong, weak

    def settings(self) -> dict[str, Any]:
        """See `Work`."""
        return {"strong": self.strong, "weak": self.weak, "bytes": [MIN_BYTES, MAX_BYTES]}

    def measure(self, point: Point, fleet: Fleet, store: Store, folder: Path) -> tuple[Row, Crew | None]:
        """Let processes of this machine, or workers of a Dask cluster, put and get."""
        each = max(1, self.strong // point.workers) if point.scaling == "strong" else self.weak
        tag = time.time_ns()
        shares = [
            Share(store.url, f"data-{tag}-{number}", str(folder / f"share-{number}"), each, tag + number)
            for number in range(point.workers)
        ]
        if fleet.kind == "local":
            with ProcessPoolExecutor(point.workers, mp_context=get_context("spawn")) as pool:
                row = _measure(point, shares, lambda step, given: list(pool.map(step, given)))
            return row, None
        if isinstance(fleet, GivenFleet):
            chosen, client = list(fleet.addresses(point.workers)), fleet.client

            def run(step: Callable[[Share], Any], given: Sequence[Share]) -> list[Any]:
                futures = [
                    client.submit(step, share, workers=[address], pure=False)
                    for share, address in zip(given, chosen, strict=True)
                ]
                found: list[Any] = client.gather(futures)
                return found

            return _measure(point, shares, run), None
        raise InvalidInputError(
            f"the storage benchmark does not run on {fleet.kind}",
            code=ErrorCode.UNSUPPORTED,
            hint="call it with --cluster local inside a job, or with the address of a Dask cluster",
        )

    def machine(self) -> dict[str, Any]:
        """Describe this machine."""
        return describe_here()


def _measure(point: Point, shares: Sequence[Share], run: Run) -> Row:
    try:
        began = time.monotonic()
        total = sum(run(write_share, shares))
        prepared = time.monotonic()
        files = sum(run(put_share, shares))
        put = time.monotonic()
        got = sum(run(get_share, shares))
        ended = time.monotonic()
    finally:
        run(drop_share, shares)
    if got != files:
        raise InvalidInputError(f"{files} files were put, {got} came back")
    return Row(
        scaling=point.scaling,
        workers=point.workers,
        round=point.round,
        slots=point.workers,
        items=files,
        seconds=put - prepared,
        wait_s=round(prepared - began, 3),
        origin_bytes=total,
        more={"get_s": ended - put, "got_per_s": got / (ended - put)},
    )
