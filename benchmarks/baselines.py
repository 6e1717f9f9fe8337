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

from .models import MODELS

FILES_PER_CALL = 16
"""Files that one message carries where the alternative allows it; a tenth of a second of work."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a contender is given."""

    inputs: Path
    """Folder of the files to label."""
    model: Path
    """Folder of the persisted model."""
    out: Path
    """Folder for the results, empty."""
    slots: int
    """Files labelled at a time."""
    scorer: str = "forest"
    """Name in `MODELS`: whose `load_model` and `score` are called."""

    def paths(self) -> list[Path]:
        """Files to label, in order."""
        return sorted(self.inputs.iterdir())


Begin = Callable[[], None]
Baseline = Callable[[Work, Begin], None]


def run_loop(work: Work, begin: Begin) -> None:
    """Label in this process, one after the other."""
    begin()
    scorer = MODELS[work.scorer].module()
    model = scorer.load_model(work.model)
    for path in work.paths():
        _write(work.out, path, scorer.score(model, path.read_bytes()))


_resident: tuple[Any, Any] | None = None
"""Scorer and model of a pool's process."""


def _load_resident(path: Path, scorer: str) -> None:
    global _resident
    module = MODELS[scorer].module()
    _resident = module, module.load_model(path)


def _label_with_resident(path: Path, out: Path) -> None:
    assert _resident is not None
    scorer, model = _resident
    _write(out, path, scorer.score(model, path.read_bytes()))


def run_pool(work: Work, begin: Begin) -> None:
    """Label in a pool of processes, each with its own model, several files a message."""
    paths = work.paths()
    with ProcessPoolExecutor(work.slots, initializer=_load_resident, initargs=(work.model, work.scorer)) as pool:
        begin()
        for _ in pool.map(_label_with_resident, paths, [work.out] * len(paths), chunksize=FILES_PER_CALL):
            pass


@lru_cache(maxsize=1)
def _model_of_worker(path: Path, scorer: str) -> tuple[Any, Any]:
    module = MODELS[scorer].module()
    return module, module.load_model(path)


def _label_one(path: Path, model: Path, out: Path, scorer: str) -> None:
    module, loaded = _model_of_worker(model, scorer)
    _write(out, path, module.score(loaded, path.read_bytes()))


def _label_several(paths: Sequence[Path], model: Path, out: Path, scorer: str) -> None:
    for path in paths:
        _label_one(path, model, out, scorer)


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
        client.gather(client.map(label, groups, model=work.model, out=work.out, scorer=work.scorer, pure=False))


def run_bag(work: Work, begin: Begin) -> None:
    """Label with `dask.bag` on its own pool of processes, a partition for `FILES_PER_CALL` files."""
    import dask.bag

    # Each process is there before the clock starts, as everybody else's.
    dask.bag.range(work.slots, work.slots).compute(scheduler="processes", num_workers=work.slots)  # type: ignore[no-untyped-call]
    begin()
    bag = dask.bag.from_sequence(work.paths(), partition_size=FILES_PER_CALL)  # type: ignore[no-untyped-call]
    bag.map(_label_one, model=work.model, out=work.out, scorer=work.scorer).compute(
        scheduler="processes", num_workers=work.slots
    )


def run_ray_data(work: Work, begin: Begin) -> None:
    """Label with Ray Data: an actor a slot, `FILES_PER_CALL` files a batch."""
    import ray  # type: ignore[import-not-found, unused-ignore]  # pyright: ignore[reportMissingImports]

    class Labeller:
        def __call__(self, batch: Any) -> Any:
            for path in batch["path"]:
                _label_one(Path(path), work.model, work.out, work.scorer)
            return batch

    ray.init(num_cpus=work.slots, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    begin()
    rows = ray.data.from_items([{"path": str(path)} for path in work.paths()])
    rows.map_batches(Labeller, batch_size=FILES_PER_CALL, concurrency=work.slots).materialize()
    ray.shutdown()


def _write(out: Path, source: Path, text: str) -> None:
    # As one that may be interrupted must: a result is there whole or not at all.
    target = out / f"{source.name}.txt"
    partial = target.with_suffix(f".{os.getpid()}")
    partial.write_text(text)
    partial.replace(target)


BASELINES: Mapping[str, Baseline] = {
    "loop": run_loop,
    "ProcessPool": run_pool,
    "client.map": run_client_map,
    "client.map in 16s": run_client_map_batched,
    "dask.bag": run_bag,
    "ray data": run_ray_data,
}
