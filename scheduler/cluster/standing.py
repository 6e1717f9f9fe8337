"""Spouts and services: processes that stand while a cluster is up.

A keeper follows the ledger and keeps one process for each pipeline that stands and is not stopped. One that ends is
started again, after a pause that doubles while it keeps ending quickly. It is ended and started anew when its version
changes and, of a service, when an input has a new commit: so what is served is the newest. The keeper is a thread of
the controller's process, and works only while that holds the store: of two clusters one runs the spouts.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from ...storage.digest import digest, from_hex
from ...storage.errors import DmlpipeError
from ...storage.records import PipelineState
from ...storage.state import State
from ...storage.store import Store
from ...worker.job import JobInput, JobSpec, encode_spec
from ..inputs.expression import Files
from ..inputs.walk import followed
from ..pipelines.spec import PipelineSpec, decode_pipeline
from .local import child_environment
from .supervise import ChildSpec, ProcessId, Supervisor

__all__ = ["Keeper", "Stood", "read_standing"]

logger = logging.getLogger(__name__)

LOOK_LOCAL_S = 0.3
LOOK_REMOTE_S = 2.0
GRACE_S = 5.0


class Stood(msgspec.Struct, frozen=True, kw_only=True):
    """A process that stands."""

    pid: int
    started: str
    restarts: int
    log: str

    def alive(self) -> bool:
        """Whether it still runs."""
        return ProcessId(self.pid, self.started).alive()


def _state_file(cache_dir: Path, repo_id: str) -> Path:
    return cache_dir / "cluster" / f"{repo_id}.standing.json"


def read_standing(cache_dir: Path, repo_id: str) -> dict[str, Stood]:
    """Return the spouts and services of a store that run on this host, by name."""
    try:
        found = msgspec.json.decode(_state_file(cache_dir, repo_id).read_bytes(), type=dict[str, Stood])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}
    return {name: each for name, each in found.items() if each.alive()}


def wanted(state: State, spec_of: Callable[[PipelineState], PipelineSpec]) -> Iterator[tuple[PipelineSpec, JobSpec]]:
    """Yield what is to stand now: each pipeline that stands, is not stopped, and whose inputs have commits."""
    for name, pipeline in state.pipelines():
        if not pipeline.standing or pipeline.stopped:
            continue
        spec = spec_of(pipeline)
        inputs = []
        for label, leaf in followed(spec.input).items():
            head = state.head(leaf.repo, leaf.branch)
            known = state.commit(leaf.repo, head) if head else None
            if not head or known is None or not isinstance(leaf, Files):
                break
            inputs.append(
                JobInput(name=label, kind="files", constant=True, repo=leaf.repo, commit=head, tree=known.tree)
            )
        else:
            body = msgspec.msgpack.encode([name, pipeline.version, inputs])
            yield (
                spec,
                JobSpec(
                    job=digest(body)[:8].hex(),
                    run="",
                    pipeline=name,
                    version=pipeline.version,
                    context="",
                    transform=spec.transform,
                    parameters=spec.parameters,
                    inputs=tuple(inputs),
                    cpus=spec.options.cpus,
                    secrets=spec.options.secrets,
                ),
            )


class Keeper:
    """Keeps the spouts and services of a store running. `run` blocks; `stop` ends it from elsewhere.

    Parameters
    ----------
    store
        Opened for this alone.
    folder
        Holds logs and what is laid out.
    holds
        Whether this process drives the store, by a state of its ledger.
    """

    def __init__(self, store: Store, folder: Path, *, holds: Callable[[State], bool]) -> None:
        self._store = store
        self._folder = folder
        self._holds = holds
        self._specs: dict[str, PipelineSpec] = {}
        self._look_at = 0.0
        self._every_s = LOOK_REMOTE_S if store.backend.properties.remote else LOOK_LOCAL_S
        env = child_environment(store.cache_dir)
        self._supervisor = Supervisor([], on_change=self._write, env=env, cwd=folder)

    def run(self) -> None:
        """Keep them running until `stop`, then end them."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob("*.spec"):
            left.unlink()
        _state_file(self._store.cache_dir, self._store.repo_id).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._supervisor.run(each=self._look)
        finally:
            _state_file(self._store.cache_dir, self._store.repo_id).unlink(missing_ok=True)

    def stop(self) -> None:
        """End them all; `run` returns."""
        self._supervisor.stop()

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + self._every_s
        try:
            state = self._store.refresh()
            found = list(wanted(state, self._spec)) if self._holds(state) else []
            children = [self._child(spec, job) for spec, job in found]
        except DmlpipeError as err:
            logger.warning("spouts and services cannot be looked after: %s", err)
            return
        self._supervisor.adapt(children)

    def _spec(self, pipeline: PipelineState) -> PipelineSpec:
        if pipeline.spec not in self._specs:
            self._specs[pipeline.spec] = decode_pipeline(self._store.nodes.get(from_hex(pipeline.spec)))
        return self._specs[pipeline.spec]

    def _child(self, spec: PipelineSpec, job: JobSpec) -> ChildSpec:
        path = self._folder / f"{spec.name}-{job.job}.spec"
        if not path.exists():
            path.write_bytes(encode_spec(job))
        arguments = ["--store", self._store.url, "--spec", str(path), "--folder", str(self._folder / spec.name)]
        if spec.standing is not None and spec.standing.kind == "spout":
            arguments.append("--spout")
        return ChildSpec(
            name=spec.name,
            module="dmlpipe.worker.standing",
            args=tuple(arguments),
            log=self._folder / f"{spec.name}.log",
            grace_s=GRACE_S,
        )

    def _write(self) -> None:
        restarts = self._supervisor.restarts()
        found = {
            name: Stood(
                pid=process.pid,
                started=process.started,
                restarts=restarts[name],
                log=str(self._folder / f"{name}.log"),
            )
            for name, process in self._supervisor.processes().items()
        }
        path = _state_file(self._store.cache_dir, self._store.repo_id)
        fresh = path.with_suffix(f".{os.getpid()}.new")
        fresh.write_bytes(msgspec.json.encode(found))
        fresh.replace(path)
