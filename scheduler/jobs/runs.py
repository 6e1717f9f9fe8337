"""Which pipelines are due, and what a run does next: pure functions of the folded ledger.

Rules
-----
1. A run takes every cause that stands in the ledger when its first job starts, and pins what it sees of the branches
   that no pipeline writes (`run.start`). Runs follow one another; jobs of one run that do not depend on each other
   run together.
   Where a cause reaches a pipeline that has a job for every commit, the run takes the causes up to that one, and sees
   heads as of then. As long as more causes stand, such a run is for those pipelines and what they read; what does not
   care is left to the last.
2. A pipeline is due iff its identity or the commit of one of its input branches, as its run sees them, differs from
   what it *considered* last. Where its output branch stands is never asked: so a reverted pipeline does not undo the
   revert.
3. Inside a run a pipeline waits until everything above it is decided. A job that failed makes its consumers
   unrunnable in that run; later runs use the last good head.
   A new commit in a *quiet* input makes nothing due; the next job sees it.
4. A held or stopped pipeline is never due; what arrives meanwhile is not considered, so that it is due afterwards.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from ...storage.digest import digest
from ...storage.records import Cause, PipelineState, RunState
from ...storage.state import IDENTITY, State
from ..pipelines.topology import topological_order


@dataclasses.dataclass(frozen=True, slots=True)
class StartJob:
    """Every input is decided: the job can start."""

    job: str
    pipeline: str
    version: int
    heads: Mapping[str, str]
    """`repo@branch` to commit id."""
    why: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class SkipJob:
    """The job cannot run: a job above it did not succeed."""

    job: str
    pipeline: str
    version: int
    heads: Mapping[str, str]
    because: str
    """That job."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunStep:
    """What a run does next.

    Attributes
    ----------
    start
        Jobs to start now.
    skip
        Jobs to record as unrunnable now.
    running
        Jobs that have started and not ended.
    waiting
        Pipelines that wait for one of these.
    held
        Pipelines that would be due but are held.
    no_data
        Pipelines that cannot start because a branch has no commit, and that branch.
    """

    start: tuple[StartJob, ...]
    skip: tuple[SkipJob, ...]
    running: tuple[str, ...]
    waiting: tuple[str, ...]
    held: tuple[str, ...]
    no_data: Mapping[str, str]

    @property
    def done(self) -> bool:
        """Nothing is left to do."""
        return not (self.start or self.skip or self.running or self.waiting)


def job_id(run: str, pipeline: str, version: int) -> str:
    """Id of the job of a pipeline's version in a run: starting it again repeats it."""
    return digest(msgspec.msgpack.encode([run, pipeline, version]))[:8].hex()


def run_id(cause: Cause) -> str:
    """Id of the run that begins with `cause`."""
    return cause.hash[:16]


def topological(pipelines: Mapping[str, PipelineState]) -> list[str]:
    """Names in an order where each follows what it reads; by name where that leaves a choice."""
    return topological_order(
        {
            name: sorted(repo for repo, branch in pipelines[name].inputs if publishes(pipelines, repo, branch))
            for name in sorted(pipelines)
        }
    )


def publishes(pipelines: Mapping[str, PipelineState], repo: str, branch: str) -> bool:
    """Whether the branch is the one on which one of `pipelines` publishes."""
    return repo in pipelines and pipelines[repo].branch == branch


def working(state: State) -> dict[str, PipelineState]:
    """The pipelines that make jobs, by name; spouts and services stand instead."""
    return {name: pipeline for name, pipeline in state.pipelines() if not pipeline.standing}


def source_view(state: State, pipelines: Mapping[str, PipelineState], *, at: int | None = None) -> dict[str, str]:
    """Heads of the branches that some pipeline reads and none writes: after entry `at`; None: now."""
    view: dict[str, str] = {}
    for pipeline in pipelines.values():
        for repo, branch in pipeline.inputs:
            name = f"{repo}@{branch}"
            if name not in view and not publishes(pipelines, repo, branch):
                view[name] = (state.head(repo, branch) if at is None else state.head_at(repo, branch, at)) or ""
    return view


def next_step(
    state: State,
    run: str,
    taken: RunState,
    pipelines: Mapping[str, PipelineState],
    *,
    targets: Sequence[str] = (),
) -> RunStep:
    """Decide what `run` does next.

    Parameters
    ----------
    state
        The folded ledger.
    run, taken
        The run's id and what it pinned.
    pipelines
        All pipelines by name.
    targets
        Only these and what they need; empty: all.
    """
    jobs = {job.pipeline: (name, job) for name in taken.jobs if (job := state.job(name)) is not None}
    wanted = _needed(targets, pipelines)
    start: list[StartJob] = []
    skip: list[SkipJob] = []
    running: list[str] = []
    waiting: list[str] = []
    held: list[str] = []
    no_data: dict[str, str] = {}
    undecided: set[str] = set()
    bad: dict[str, str] = {}
    for name in topological(pipelines):
        version = taken.versions.get(name)
        if version is None or (wanted is not None and name not in wanted):
            continue
        pipeline = pipelines[name]
        above = [r for r, branch in pipeline.inputs if publishes(pipelines, r, branch)]
        if name in jobs:
            started, job = jobs[name]
            if job.state == "running":
                running.append(started)
                undecided.add(name)
            elif job.state != "done":
                bad[name] = job.because or started
            continue
        if any(upstream in undecided for upstream in above):
            if not (pipeline.hold or pipeline.stopped):
                waiting.append(name)
                undecided.add(name)
            continue
        heads = {
            f"{repo}@{branch}": (
                state.head(repo, branch) or ""
                if publishes(pipelines, repo, branch)
                else taken.view.get(f"{repo}@{branch}", "")
            )
            for repo, branch in pipeline.inputs
        }
        # A quiet input starts nothing: what failed there leaves its last good head, which the next job reads.
        loud = [repo for repo in above if (repo, pipelines[repo].branch) not in pipeline.quiet]
        failed = next((bad[upstream] for upstream in loud if upstream in bad), None)
        if failed is not None and not (pipeline.hold or pipeline.stopped):
            skip.append(SkipJob(job_id(run, name, version), name, version, heads, failed))
            bad[name] = failed
            undecided.add(name)
            continue
        why = why_due(state, name, pipeline, version, heads)
        if not why or pipeline.stopped:
            continue
        if pipeline.hold is not None:
            held.append(name)
            continue
        missing = next((branch for branch, commit in heads.items() if not commit), None)
        if missing is not None:
            no_data[name] = missing
            continue
        start.append(StartJob(job_id(run, name, version), name, version, heads, why))
        undecided.add(name)
    return RunStep(tuple(start), tuple(skip), tuple(running), tuple(waiting), tuple(held), no_data)


def why_due(
    state: State, name: str, pipeline: PipelineState, version: int, heads: Mapping[str, str]
) -> tuple[str, ...]:
    """Why a pipeline is due: one phrase per difference to what it considered last; empty if it is not."""
    recorded = state.version(name, version)
    identity = recorded.identity if recorded else pipeline.identity
    considered = pipeline.considered
    quiet = {f"{repo}@{branch}" for repo, branch in pipeline.quiet}
    if considered is None:
        return ("first run" if not pipeline.last_job else "tried again",)
    why = [
        f"input {branch.removesuffix('@master')} changed"
        for branch in heads
        if considered.get(branch) != heads[branch] and branch not in quiet
    ]
    if considered.get(IDENTITY) != identity:
        why.insert(0, "pipeline changed")
    return tuple(why)


def wants_retry(pipeline: PipelineState) -> bool:
    """Whether a `run` tries a pipeline again though nothing changed: its last job ended without a commit."""
    return (
        pipeline.last_state in ("failed", "stopped")
        and pipeline.considered is not None
        and not pipeline.stopped
        and pipeline.hold is None
    )


def plan_run(
    state: State, pipelines: Mapping[str, PipelineState], *, targets: Sequence[str] = ()
) -> tuple[str, RunState, RunStep] | None:
    """Begin a run from the causes that stand, if they make anything due.

    Returns
    -------
    tuple or None
        Run id, what it pins (`n` is not yet known and -1), its first step. None: nothing is due.
    """
    # Normally a cause stands behind whatever is due. A targeted run takes the causes and leaves the rest due.
    for at, wanted in _stretches(state, pipelines, targets):
        taken = _pinned(state, pipelines, at=at, only=wanted)
        step = next_step(state, "", taken, pipelines, targets=targets)
        if not step.start:
            continue
        causes = list(state.causes(taken.last))
        relevant = _relevant(causes, [job.pipeline for job in step.start], pipelines) or causes
        run = run_id(relevant[0]) if relevant else ""
        if not run or state.run(run) is not None:
            run = digest(f"run after {state.chain}, up to {taken.last}".encode()).hex()[:16]
        taken = msgspec.structs.replace(taken, first=relevant[0].n if relevant else state.n)
        return run, taken, next_step(state, run, taken, pipelines, targets=targets)
    return None


def commits_ahead(state: State, pipelines: Mapping[str, PipelineState], name: str) -> int:
    """How many runs the causes that stand may make for a pipeline that has a job for every commit."""
    readers = _Readers(pipelines)
    return len({cause.n for cause in state.causes() if name in _each(pipelines, readers, cause)})


def _stretches(
    state: State, pipelines: Mapping[str, PipelineState], targets: Sequence[str]
) -> Iterator[tuple[int | None, set[str] | None]]:
    """Yield what the next run may take, the least first: causes up to which entry, and for which pipelines.

    The last is everything: (None, None).
    """
    if any(pipeline.every_commit for pipeline in pipelines.values()):
        readers = _Readers(pipelines)
        wanted = _needed(targets, pipelines)
        last, each = 0, set[str]()
        for n, causes in itertools.groupby(state.causes(), key=lambda cause: cause.n):
            # Everything that stands is more than what stands up to its last entry: it is yielded below.
            if last:
                yield last, _needed(sorted(each), pipelines)
                last = 0
            each = {name for cause in causes for name in _each(pipelines, readers, cause)}
            if wanted is not None:
                each &= wanted
            if each:
                last = n
    yield None, None


class _Readers:
    """Who hears of what."""

    def __init__(self, pipelines: Mapping[str, PipelineState]) -> None:
        self._pipelines = pipelines
        self._of: dict[str, list[str]] = {}
        for name, pipeline in pipelines.items():
            for repo, branch in pipeline.inputs:
                if (repo, branch) not in pipeline.quiet:
                    self._of.setdefault(f"{repo}@{branch}", []).append(name)

    def below(self, subject: str) -> set[str]:
        """The pipelines that a cause reaches: of a branch its readers, of a pipeline itself, and what is below them."""
        found: set[str] = set()
        stack = list(self._of.get(subject, ())) if "@" in subject else [subject]
        while stack:
            name = stack.pop()
            if name not in found and name in self._pipelines:
                found.add(name)
                stack += self._of.get(f"{name}@{self._pipelines[name].branch}", ())
        return found


def _each(pipelines: Mapping[str, PipelineState], readers: _Readers, cause: Cause) -> set[str]:
    """The pipelines that have a job for every commit, and this one after what makes them consider everything anew."""
    return {
        name
        for name in readers.below(cause.subject)
        if (pipeline := pipelines[name]).every_commit
        and pipeline.since <= cause.n
        and not pipeline.stopped
        and pipeline.hold is None
    }


def without_data(
    state: State, pipelines: Mapping[str, PipelineState], *, targets: Sequence[str] = ()
) -> Mapping[str, str]:
    """Pipelines that are due but for a branch without a commit, and that branch."""
    return next_step(state, "", _pinned(state, pipelines), pipelines, targets=targets).no_data


def _pinned(
    state: State, pipelines: Mapping[str, PipelineState], *, at: int | None = None, only: set[str] | None = None
) -> RunState:
    """What a run sees that takes the causes up to entry `at` (None: all), for the pipelines `only` (None: all)."""
    last = state.n if at is None else at
    return RunState(
        n=-1,
        first=last,
        last=last,
        view=source_view(state, pipelines, at=at),
        versions={
            name: pipeline.version
            for name, pipeline in pipelines.items()
            if (only is None or name in only) and pipeline.since <= last
        },
        time="",
    )


def describe_cause(cause: Cause) -> str:
    """One line for people."""
    subject = cause.subject.removesuffix("@master")
    match cause.kind:
        case "ref":
            return f"commit to {subject}"
        case "pipeline":
            return f"new version of {subject}"
        case "revert":
            return f"revert of {subject}"
        case "release":
            return f"release of {subject}"
        case "retry":
            return f"retry of {subject}"
        case "tick":
            return f"tick of {subject}"
        case "trigger":
            return f"trigger of {subject}"
        case _:
            return f"{cause.kind} of {subject}"


def _needed(targets: Sequence[str], pipelines: Mapping[str, PipelineState]) -> set[str] | None:
    if not targets:
        return None
    needed: set[str] = set()
    stack = list(targets)
    while stack:
        name = stack.pop()
        if name in needed or name not in pipelines:
            continue
        needed.add(name)
        stack.extend(repo for repo, branch in pipelines[name].inputs if publishes(pipelines, repo, branch))
    return needed


def _relevant(causes: Iterable[Cause], due: Sequence[str], pipelines: Mapping[str, PipelineState]) -> list[Cause]:
    subjects = set(due)
    for name in due:
        subjects |= {f"{repo}@{branch}" for repo, branch in pipelines[name].inputs}
    return [cause for cause in causes if cause.subject in subjects]
