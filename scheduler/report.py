"""What the controller tells whoever watches, and what its callers get back: plain frozen data.

The terminal table, `--json`, notebooks and the tests all read these; nothing here does anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from ..storage.objects.segment import Failure
from ..storage.records import Counters
from .pipelines.spec import PipelineSpec


class RunBegan(msgspec.Struct, frozen=True, kw_only=True, tag="run-began"):
    """A run took its causes."""

    run: str
    causes: tuple[str, ...]
    """`put to images@master`, `pipeline model v2`, `revert of model`: one line each."""
    pipelines: tuple[str, ...]
    """Due, or downstream of one that is, in topological order."""


class JobPlanned(msgspec.Struct, frozen=True, kw_only=True, tag="job-planned"):
    """A job is about to offer its datums."""

    job: str
    run: str
    pipeline: str
    version: int
    total: int
    """Datums of its inputs; -1: not known to who only watches."""
    resumed: int = 0
    """Datums found finished in the segments of an interrupted controller."""
    why: tuple[str, ...] = ()
    """Why it runs: `first run`, `input images changed`, `code changed: model(), dag.py:14`."""


class JobAdvanced(msgspec.Struct, frozen=True, kw_only=True, tag="job-advanced"):
    """Numbers of a running job; at most ten a second."""

    job: str
    pipeline: str
    total: int
    run: int
    """Datums computed in this job so far."""
    skipped: int
    """Datums known to be skipped so far."""
    failed: int
    rate: float
    """Datums computed a second, over the last seconds."""
    left_s: float | None
    """Seconds left by that rate; None: unknown."""
    from_store: int = 0
    """Bytes of files from 1 MiB on that the cluster's hosts took from the store since the job began, for this job and
    those beside it."""
    from_peers: int = 0
    """The same, from each other."""
    lacks: str = ""
    """What it waits for, of a cluster that may grow: `gpu: 1 (the most that a worker has is 0)`."""


class JobEnded(msgspec.Struct, frozen=True, kw_only=True, tag="job-ended"):
    """A job ended, with or without a commit."""

    job: str
    run: str
    pipeline: str
    state: str
    """`done`, `failed`, `stopped`, `unrunnable`."""
    counters: Counters
    seconds: float
    commit: str = ""
    head: str = ""
    """Where the output branch stands now (the old head if nothing was published)."""
    reason: str = ""
    failures: tuple[FailureGroup, ...] = ()
    from_store: int = 0
    """As of `JobAdvanced`; 0 to who only watches."""
    from_peers: int = 0


class FailureGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Failures of one cause."""

    failure: Failure
    count: int
    datum: str
    """Id of the first one: 12 hex digits of its fingerprint."""
    path: str
    """Its input, for people: `images:/cam3/0932.jpg`."""


class PipelineHeld(msgspec.Struct, frozen=True, kw_only=True, tag="held"):
    """A pipeline would be due but is held by a revert."""

    pipeline: str
    commit: str
    by: str
    why: str


class RunEnded(msgspec.Struct, frozen=True, kw_only=True, tag="run-ended"):
    """Nothing of the run is left to do."""

    run: str
    ok: bool
    seconds: float


class ClusterChanged(msgspec.Struct, frozen=True, kw_only=True, tag="cluster"):
    """Slots that can take datums now."""

    workers: int
    slots: int


class Notice(msgspec.Struct, frozen=True, kw_only=True, tag="notice"):
    """A sentence that somebody should read."""

    text: str


Report = RunBegan | JobPlanned | JobAdvanced | JobEnded | PipelineHeld | RunEnded | ClusterChanged | Notice


class Observer(Protocol):
    """Whoever watches a controller."""

    def __call__(self, report: Report, /) -> None:
        """Take one report; called from the controller's thread, must return soon."""


def ignore(report: Report, /) -> None:
    """Observe nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunSummary:
    """What `Store.run` did.

    Attributes
    ----------
    runs
        Ids of the runs, in order; empty if there was nothing to do.
    jobs
        How each job ended, in order of ending.
    waiting
        Pipelines that could not start, and why (`no data in images@master`).
    egress_failures
        Pipelines whose newest commit did not arrive where their egress leads, and why.
    """

    runs: tuple[str, ...] = ()
    jobs: tuple[JobEnded, ...] = ()
    waiting: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    egress_failures: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """No job failed, was stopped or could not run, and what was to be sent was."""
        return all(job.state == "done" for job in self.jobs) and not self.egress_failures

    @property
    def counters(self) -> Counters:
        """Sums over the jobs."""
        return Counters(
            **{
                name: sum(getattr(job.counters, name) for job in self.jobs)
                for name in ("total", "run", "skipped", "failed", "recovered", "removed")
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        return {
            "ok": self.ok,
            "runs": list(self.runs),
            "jobs": [msgspec.to_builtins(job) for job in self.jobs],
            "waiting": dict(self.waiting),
            "egress_failures": dict(self.egress_failures),
            "seconds": round(self.seconds, 3),
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Submitted:
    """What became of one pipeline of a `submit`."""

    name: str
    version: int
    status: str
    """`new`, `changed`, `cosmetic` (a new version that starts no job), `claimed` (one whose code is said to make the
    same: it starts none, either), `same`, `orphan`, `pruned`."""
    why: tuple[str, ...] = ()
    """`code changed: model(), dag.py:14`, `parameter C: 1.0 -> 0.5`."""
    inputs: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    spec: PipelineSpec | None = None
    """What was recorded, or would be; None of an orphan."""


@dataclasses.dataclass(frozen=True, slots=True)
class PipelineStatus:
    """One line of `status`."""

    name: str
    version: int
    state: str
    """`idle`, `running`, `due`, `failed`, `held`, `stopped`, `waits for data`, `behind`;
    of spouts and services `stands` or `waits for up`."""
    head: str
    """Commit id, empty if none."""
    files: int
    job: str = ""
    counters: Counters | None = None
    detail: str = ""
    """`held at 7d02b1 by ada: accuracy fell (1 commit behind)`, `model failed in job 20ce`."""
    ended: str = ""
    progress: JobAdvanced | None = None
    """Of a running job: as of its controller's last heartbeat, a second or three ago."""


@dataclasses.dataclass(frozen=True, slots=True)
class StoreStatus:
    """What `status` shows."""

    url: str
    entries: int
    controller: str
    """`none`, `run by ada@host (pid 12)`, `up since ...`."""
    run: str
    pipelines: tuple[PipelineStatus, ...]
    cluster: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain
