"""How soon `up` starts a job: from the moment that `put` has returned until `job.start` is in the ledger.

Everything is real: a cluster that `up` started, another process that puts, the ledger read by it as anybody would.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import dmlpipe as dml
from dmlpipe.scheduler.cluster.daemon import down, up

from .object_server import BUCKET, object_server

LIMIT_S = 60.0
LOOK_LOCAL_S = 0.002
LOOK_REMOTE_S = 0.02
PIPELINE = "sizes"


def reactions(url: str, cache: Path, dag: Path, rounds: int) -> list[float]:
    """Return seconds from commit to job of each round, on a new store at `url`.

    Parameters
    ----------
    dag
        File with the pipeline `sizes` over the repo `texts`.

    Raises
    ------
    RuntimeError
        A job did not start, or did not succeed, in a minute.
    """
    store = dml.init(url, cache_dir=cache)
    look_s = LOOK_REMOTE_S if store.backend.properties.remote else LOOK_LOCAL_S
    store.put("texts", ("a.txt", b"first"))
    store.submit(dag)
    up(store.url, 1, repo_id=store.repo_id, cache_dir=cache)
    found = []
    rng = random.Random(rounds)
    try:
        _settle(store)
        for number in range(rounds):
            # At any moment of the controller's looking.
            time.sleep(rng.uniform(0.0, 1.0))
            before = {job for job, _ in store.refresh().jobs(PIPELINE)}
            store.put("texts", ("a.txt", b"x" * (number + 10)))
            began = time.perf_counter()
            while {job for job, _ in store.refresh().jobs(PIPELINE)} == before:
                if time.perf_counter() - began > LIMIT_S:
                    raise RuntimeError(f"no job started within {LIMIT_S:.0f} s of a commit to {url}")
                time.sleep(look_s)
            found.append(time.perf_counter() - began)
            _settle(store)
    finally:
        down(cache, store.repo_id)
    return found


def _settle(store: dml.Store) -> None:
    if not store.wait(timeout_s=LIMIT_S):
        raise RuntimeError(f"the jobs of {store.url} did not end within {LIMIT_S:.0f} s")
    bad = [name for name, job in store.state.jobs(PIPELINE) if job.state != "done"]
    if bad:
        raise RuntimeError(f"jobs {', '.join(bad)} of {store.url} did not succeed")


def measure(folder: Path, dag: Path, rounds: int, *, bucket: bool) -> dict[str, list[float]]:
    """Seconds by kind of store: a folder, and a bucket of a server on this machine if it is asked for."""
    found = {"a folder": reactions(str(folder / "reaction"), folder / "reaction-cache", dag, rounds)}
    if bucket:
        (folder / "server").mkdir()
        with object_server(folder / "server") as server:
            given = {**server.environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}"}
            with _variables(given):
                found["a bucket"] = reactions(f"s3://{BUCKET}/reaction", folder / "s3-cache", dag, rounds)
    return found


@contextlib.contextmanager
def _variables(given: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
