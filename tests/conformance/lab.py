"""A store, pipeline specs as Pachyderm's users write them, and a run that computes everything in this process.

Everything but the cluster is real: specs are read from files, commands are processes, results go through segments.
What only a cluster has (timeouts, captured logs, killed processes) is shown by `tests/integration`.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dmlpipe.scheduler.jobs.preview import Plans
from dmlpipe.scheduler.leases.inline import InlineExecutor
from dmlpipe.scheduler.pipelines.dag import DAG
from dmlpipe.scheduler.report import JobEnded, RunSummary, Submitted
from dmlpipe.scheduler.store import Store
from dmlpipe.storage.records import JobState

Spec = dict[str, Any]

COPY = 'for f in /pfs/*/*; do case "$f" in /pfs/out/*) ;; *) cp "$f" /pfs/out/ ;; esac; done'
"""A line of shell: every file at the top of every input, under its own name."""


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a run did."""

    summary: RunSummary
    computed: int
    """Datums that user code was run for, tries that failed at last included."""

    def job(self, pipeline: str) -> JobEnded:
        """The one job of a pipeline."""
        (found,) = [job for job in self.summary.jobs if job.pipeline == pipeline]
        return found

    def each(self, pipeline: str) -> list[tuple[int, int]]:
        """Datums (run, skipped) of every job of a pipeline, in order."""
        return [(job.counters.run, job.counters.skipped) for job in self.summary.jobs if job.pipeline == pipeline]

    @property
    def states(self) -> dict[str, str]:
        """Pipeline to the state of its last job."""
        return {job.pipeline: job.state for job in self.summary.jobs}

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Pipeline to datums (run, skipped) of its last job."""
        return {job.pipeline: (job.counters.run, job.counters.skipped) for job in self.summary.jobs}


class Lab:
    """A store in memory and a folder for spec files.

    Parameters
    ----------
    folder
        An empty folder.
    """

    _numbers = itertools.count()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store.init(f"memory://conformance-{next(self._numbers)}", cache_dir=folder / "cache")
        self._files = itertools.count()

    # --- data

    def put(self, repo: str, files: Mapping[str, str | bytes], *, branch: str = "master") -> str:
        """Commit files (path to content) to a repo, made if need be; return the commit's id."""
        with self.store.commit(repo, branch, create=True) as session:
            for path, content in files.items():
                session.write(path, content)
        return self.head(repo, branch)

    def remove(self, repo: str, *paths: str) -> str:
        """Commit the removal of files or folders."""
        with self.store.commit(repo) as session:
            for path in paths:
                session.delete(path)
        return self.head(repo)

    def head(self, repo: str, branch: str = "master") -> str:
        """Commit that a branch points to; empty if there is none."""
        return self.store.refresh().head(repo, branch) or ""

    def move(self, repo: str, to: str, *, branch: str = "master") -> None:
        """Point a branch at a commit, as `branch set` does."""
        self.store.set_branch(repo, branch, f"{repo}@{to}")

    def files(self, ref: str) -> dict[str, str]:
        """Path to content of every file of a commit."""
        view = self.store[ref]
        return {f"/{path.decode()}": view.read_bytes(path.decode()).decode() for path, _ in view.tree.scan()}

    def tree(self, ref: str) -> str:
        """Id of a commit's tree: equal for equal files."""
        return self.store[ref].tree.root.hex()

    # --- pipelines

    def spec(self, name: str, input: Spec, *lines: str, transform: Spec | None = None, **fields: Any) -> Spec:
        """A pipeline's spec: `lines` of shell, more of `transform`, more top-level fields."""
        shell = {"cmd": ["sh", "-e"], "stdin": list(lines or (COPY,))}
        return {"pipeline": {"name": name}, "transform": shell | (transform or {}), "input": input, **fields}

    def submit(self, *specs: Spec, **options: Any) -> list[Submitted]:
        """Submit specs, all in one file."""
        path = self.folder / f"specs-{next(self._files)}.json"
        path.write_text("\n".join(json.dumps(spec) for spec in specs))
        return self.store.submit(path, **options)

    def submit_into_empty_repo(self, repo: str, *specs: Spec) -> None:
        """Make a repo without a commit, and submit."""
        self.store.create_repo(repo)
        self.submit(*specs)

    def run(self, *targets: str, dag: DAG | Sequence[DAG] = ()) -> Ran:
        """Bring everything up to date; pipelines of `dag` are called as they are."""
        dags = [dag] if isinstance(dag, DAG) else list(dag)
        functions = {name: each.transform for one in dags for name, each in one.pipelines.items()}
        executor = InlineExecutor(self.store, targets=functions)
        try:
            summary = self.store.run(executor=executor, targets=targets, check=False)
        finally:
            executor.close()
        return Ran(summary, len(executor.rows))

    def plan(self) -> Plans:
        """What a run would do."""
        return self.store.plan()

    def jobs(self, pipeline: str | None = None) -> list[JobState]:
        """Jobs, newest first."""
        return [job for _, job in self.store.refresh().jobs(pipeline)]


def pfs(repo: str, glob: str = "/*", **fields: Any) -> Spec:
    """A `pfs` input."""
    return {"pfs": {"repo": repo, "glob": glob, **fields}}


def cross(*inputs: Spec) -> Spec:
    """A `cross` of inputs."""
    return {"cross": list(inputs)}


def union(*inputs: Spec) -> Spec:
    """A `union` of inputs."""
    return {"union": list(inputs)}


def join(*inputs: Spec) -> Spec:
    """A `join` of inputs."""
    return {"join": list(inputs)}


def group(*inputs: Spec) -> Spec:
    """A `group` of inputs."""
    return {"group": list(inputs)}
