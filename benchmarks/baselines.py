"""Honest alternatives: what one would write without dmlpipe for the same files and the same model.

Each reads a folder of files and writes a folder of results. None of them keeps who made what, knows what is done when
it is started again, or survives a crash of the user's code; that is what they are compared for.

Each calls `begin` at the moment before the first file is handed to whoever labels it. Loading the model is part of
what follows: dmlpipe's slots load theirs after that moment, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .scoring import load_model, score

FILES_PER_CALL = 16
"""Files that one message carries where the alternative allows it; a tenth of a second of work."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a contender is given."""

    inputs: Path
    """Folder of the files to label."""
    model: Path
    """The persisted model."""
    out: Path
    """Folder for the results, empty."""
    slots: int
    """Files labelled at a time."""

    def paths(self) -> list[Path]:
        """Files to label, in order."""
        return sorted(self.inputs.iterdir())


Begin = Callable[[], None]
Baseline = Callable[[Work, Begin], None]


def run_loop(work: Work, begin: Begin) -> None:
    """Label in this process, one after the other."""
    begin()
    model = load_model(work.model)
    for path in work.paths():
        _write(work.out, path, score(model, path.read_bytes()))


_resident: Any = None
"""The model of a pool's process."""


def _load_resident(path: Path) -> None:
    global _resident
    _resident = load_model(path)


def _label_with_resident(path: Path, out: Path) -> None:
    _write(out, path, score(_resident, path.read_bytes()))


def run_pool(work: Work, begin: Begin) -> None:
    """Label in a pool of processes, each with its own model, several files a message."""
    paths = work.paths()
    with ProcessPoolExecutor(work.slots, initializer=_load_resident, initargs=(work.model,)) as pool:
        begin()
        for _ in pool.map(_label_with_resident, paths, [work.out] * len(paths), chunksize=FILES_PER_CALL):
            pass


@lru_cache(maxsize=1)
def _model_of_worker(path: Path) -> Any:
    return load_model(path)


def _label_one(path: Path, model: Path, out: Path) -> None:
    _write(out, path, score(_model_of_worker(model), path.read_bytes()))


def _label_several(paths: Sequence[Path], model: Path, out: Path) -> None:
    for path in paths:
        _label_one(path, model, out)


def run_client_map(work: Work, begin: Begin) -> None:
    """Label with `Client.map` on a LocalCluster as it comes: a task a file."""
    _run_dask(work, begin, _label_one, work.paths())


def run_client_map_batched(work: Work, begin: Begin) -> None:
    """Label with `Client.map`, a task for each `FILES_PER_CALL` files: what one does who knows what a task costs."""
    paths = work.paths()
    groups = [paths[at : at + FILES_PER_CALL] for at in range(0, len(paths), FILES_PER_CALL)]
    _run_dask(work, begin, _label_several, groups)


def _run_dask(work: Work, begin: Begin, label: Callable[..., None], groups: Sequence[object]) -> None:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(  # type: ignore[no-untyped-call]  # distributed annotates little
            n_workers=work.slots,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,  # pyright: ignore[reportArgumentType]  # its docstring allows None: no dashboard
        ) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        client.wait_for_workers(work.slots, timeout=60)
        begin()
        client.gather(client.map(label, groups, model=work.model, out=work.out, pure=False))


def _write(out: Path, source: Path, text: str) -> None:
    # As one that may be interrupted must: a result is there whole or not at all.
    target = out / f"{source.stem}.csv"
    partial = target.with_suffix(f".{os.getpid()}")
    partial.write_text(text)
    partial.replace(target)


BASELINES: Mapping[str, Baseline] = {
    "loop": run_loop,
    "ProcessPool": run_pool,
    "client.map": run_client_map,
    "client.map in 16s": run_client_map_batched,
}
