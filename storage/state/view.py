"""What exists, as it stands in the state's keys: a map of byte keys to msgpack values.

A checkpoint is one prolly tree of it, and reading a key of a million-commit store costs two nodes. In memory stands
only what changed since that checkpoint. Numbers that are listed newest first stand in keys as their complement, since
trees scan upwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

import msgspec

from .. import records as r

_T = TypeVar("_T")

ZERO_HASH = "0" * 64
IDENTITY = "identity"
"""Key in `PipelineState.considered` beside the input branches."""
LAST = 999_999_999_999
"""The largest number that a key holds."""


class Base(Protocol):
    """A checkpoint's tree, as the state reads it."""

    def get(self, key: bytes) -> bytes | None:
        """Value of `key`."""
        ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs whose key begins with `prefix`, sorted."""
        ...


def up(n: int) -> str:
    """Return a number as it stands in keys that are listed oldest first."""
    return f"{n:012d}"


def down(n: int) -> str:
    """Return a number as it stands in keys that are listed newest first."""
    return f"{LAST - n:012d}"


class StateView:
    """What exists after entry `n`.

    Parameters
    ----------
    base
        Tree of the checkpoint that this state begins from; None: empty.
    n
        Number of the last entry folded, -1 for none.
    chain
        Hash of that entry.
    """

    def __init__(self, base: Base | None = None, n: int = -1, chain: str = ZERO_HASH) -> None:
        self._base = base
        self._edits: dict[bytes, bytes | None] = {}
        self.n = n
        self.chain = chain

    # --- raw access -----------------------------------------------------------------------------------------

    def get(self, key: bytes) -> bytes | None:
        """Value of a raw key."""
        if key in self._edits:
            return self._edits[key]
        return self._base.get(key) if self._base is not None else None

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs whose raw key begins with `prefix`, sorted."""
        return merge_edits(self._base, self._edits, prefix)

    def _value(self, key: str, kind: type[_T]) -> _T | None:
        raw = self.get(key.encode())
        return None if raw is None else msgspec.msgpack.decode(raw, type=kind)

    def _text(self, key: str) -> str | None:
        raw = self.get(key.encode())
        return None if raw is None else raw.decode()

    def _names(self, prefix: str, kind: type[_T]) -> Iterator[tuple[str, _T]]:
        skip = len(prefix.encode())
        for key, raw in self.scan(prefix.encode()):
            yield key[skip:].decode(), msgspec.msgpack.decode(raw, type=kind)

    # --- repos -----------------------------------------------------------------------------------------

    def repo(self, name: str) -> r.RepoState | None:
        """The repo, or None."""
        return self._value(f"repo/{name}", r.RepoState)

    def repos(self) -> Iterator[tuple[str, r.RepoState]]:
        """All repos by name."""
        return self._names("repo/", r.RepoState)

    def head(self, repo: str, branch: str = "master") -> str | None:
        """Commit id that the branch points to, hex; None if there is no such branch."""
        return self._text(f"branch/{repo}/{branch}")

    def output(self, pipeline: str) -> str | None:
        """Head of the branch that a pipeline publishes on; None if it published nothing, or there is none."""
        found = self.pipeline(pipeline)
        return self.head(pipeline, found.branch) if found is not None else None

    def publisher(self, repo: str, branch: str) -> str | None:
        """Name of the pipeline that publishes on the branch, or None."""
        found = self.repo(repo)
        pipeline = self.pipeline(found.pipeline) if found is not None and found.pipeline else None
        return found.pipeline if found is not None and pipeline is not None and pipeline.branch == branch else None

    def branches(self, repo: str) -> dict[str, str]:
        """Branch name to commit id."""
        prefix = f"branch/{repo}/".encode()
        return {key[len(prefix) :].decode(): raw.decode() for key, raw in self.scan(prefix)}

    def history(self, repo: str, branch: str = "master") -> Iterator[r.HeadState]:
        """Every head that the ledger ever gave the branch, newest first."""
        for _, head in self._names(f"hist/{repo}/{branch}/", r.HeadState):
            yield head

    def egress(self, pipeline: str) -> r.EgressState | None:
        """The last commit that arrived where a pipeline's egress leads, or None."""
        return self._value(f"egress/{pipeline}", r.EgressState)

    def trigger(self, repo: str, branch: str) -> r.TriggerState | None:
        """The rule that a branch follows, or None."""
        return self._value(f"trigger/{repo}/{branch}", r.TriggerState)

    def triggers(self, repo: str) -> dict[str, r.TriggerState]:
        """Branch to the rule that it follows."""
        return dict(self._names(f"trigger/{repo}/", r.TriggerState))

    def all_triggers(self) -> Iterator[tuple[str, str, r.TriggerState]]:
        """(repo, branch, rule) of every branch that follows one."""
        for name, trigger in self._names("trigger/", r.TriggerState):
            repo, _, branch = name.partition("/")
            yield repo, branch, trigger

    def tag(self, repo: str, tag: str) -> str | None:
        """Commit id of a tag."""
        return self._text(f"tag/{repo}/{tag}")

    def tags(self, repo: str) -> dict[str, str]:
        """Tag name to commit id."""
        prefix = f"tag/{repo}/".encode()
        return {key[len(prefix) :].decode(): raw.decode() for key, raw in self.scan(prefix)}

    def commit(self, repo: str, commit: str) -> r.CommitState | None:
        """What the ledger says of a commit."""
        return self._value(f"commit/{repo}/{commit}", r.CommitState)

    def session(self, session: str) -> tuple[str, str] | None:
        """Return (repo, commit) that an open commit was published as; None if it was not."""
        found = self._text(f"session/{session}")
        if found is None:
            return None
        repo, _, commit = found.partition("/")
        return repo, commit

    def commits_by_prefix(self, repo: str, prefix: str) -> list[str]:
        """Ids of the repo's commits that begin with `prefix`."""
        skip = len(f"commit/{repo}/")
        return [key[skip:].decode() for key, _ in self.scan(f"commit/{repo}/{prefix}".encode())]

    # --- pipelines and work -----------------------------------------------------------------------------------------

    def pipeline(self, name: str) -> r.PipelineState | None:
        """The pipeline, or None."""
        return self._value(f"pipe/{name}", r.PipelineState)

    def pipelines(self) -> Iterator[tuple[str, r.PipelineState]]:
        """All pipelines by name."""
        return self._names("pipe/", r.PipelineState)

    def version(self, name: str, version: int) -> r.VersionState | None:
        """One recorded version of a pipeline."""
        return self._value(f"ver/{name}/{down(version)}", r.VersionState)

    def versions(self, name: str) -> Iterator[tuple[int, r.VersionState]]:
        """Versions of a pipeline, newest first."""
        for key, value in self._names(f"ver/{name}/", r.VersionState):
            yield LAST - int(key), value

    def readers(self, repo: str, branch: str) -> list[str]:
        """Pipelines that read the branch."""
        prefix = f"reads/{repo}/{branch}/".encode()
        return [key[len(prefix) :].decode() for key, _ in self.scan(prefix)]

    def cron(self, pipeline: str, input: str) -> r.CronState | None:
        """A cron input of a pipeline, or None."""
        return self._value(f"cron/{pipeline}/{input}", r.CronState)

    def crons(self, pipeline: str | None = None) -> Iterator[tuple[str, str, r.CronState]]:
        """(pipeline, input, cron) of every cron input; of one pipeline if named."""
        for name, cron in self._names("cron/", r.CronState):
            owner, _, input = name.partition("/")
            if pipeline in (None, owner):
                yield owner, input, cron

    def context(self, key: str) -> r.Context | None:
        """The context record of K (hex)."""
        return self._value(f"ctx/{key}", r.Context)

    def contexts(self) -> Iterator[tuple[str, r.Context]]:
        """All context records by K."""
        return self._names("ctx/", r.Context)

    def replaced_contexts(self) -> Iterator[tuple[str, r.Context]]:
        """Records that were replaced while another job of the same context runs, which goes by them."""
        for key, context in self._names("ctxold/", r.Context):
            yield key.partition("/")[0], context

    def job(self, job: str) -> r.JobState | None:
        """A job, or None."""
        return self._value(f"job/{job}", r.JobState)

    def jobs(self, pipeline: str | None = None) -> Iterator[tuple[str, r.JobState]]:
        """Jobs, newest first; of one pipeline if named."""
        prefix = "jobn/" if pipeline is None else f"jobp/{pipeline}/"
        for _, raw in self.scan(prefix.encode()):
            name = raw.decode()
            job = self.job(name)
            if job is not None:
                yield name, job

    def jobs_by_prefix(self, prefix: str) -> list[str]:
        """Ids of jobs that begin with `prefix`."""
        return [key[4:].decode() for key, _ in self.scan(f"job/{prefix}".encode())]

    def run(self, run: str) -> r.RunState | None:
        """A run, or None."""
        return self._value(f"run/{run}", r.RunState)

    def runs(self) -> Iterator[tuple[str, r.RunState]]:
        """Runs, newest first."""
        for _, raw in self.scan(b"runn/"):
            name = raw.decode()
            run = self.run(name)
            if run is not None:
                yield name, run

    def open_run(self) -> tuple[str, r.RunState] | None:
        """The run that is under way: runs follow each other, so only the newest can be."""
        for name, run in self.runs():
            return None if run.done else (name, run)
        return None

    def head_at(self, repo: str, branch: str, n: int) -> str | None:
        """Commit that a branch which is there now pointed to after entry `n`; None if it was not there yet."""
        if self.head(repo, branch) is None:
            return None
        return next((head.commit for head in self.history(repo, branch) if head.n <= n), None)

    def causes(self, last: int | None = None) -> Iterator[r.Cause]:
        """Causes that no run has taken yet, in order; up to those of entry `last` if it is given."""
        for _, cause in self._names("cause/", r.Cause):
            if last is not None and cause.n > last:
                return
            yield cause

    def controller(self) -> r.ControllerState | None:
        """The last controller that took the store."""
        return self._value("controller", r.ControllerState)

    # --- content -----------------------------------------------------------------------------------------

    def indexes(self) -> Iterator[str]:
        """Keys of the index objects, newest first."""
        for _, raw in self.scan(b"index/"):
            yield raw.decode()

    def named_indexes(self) -> Iterator[tuple[int, str]]:
        """(entry that named it, key) of the index objects, newest first."""
        for key, raw in self.scan(b"index/"):
            yield LAST - int(key.split(b"/", 2)[1]), raw.decode()

    def packs(self) -> Iterator[str]:
        """Keys of the packs that records name and no sweep dropped, newest first."""
        dead = {key[5:].decode() for key, _ in self.scan(b"dead/")}
        for _, raw in self.scan(b"packs/"):
            yield from (pack for pack in msgspec.msgpack.decode(raw, type=list[str]) if pack not in dead)

    # --- space -----------------------------------------------------------------------------------------

    def dropped(self, repo: str, commit: str) -> r.DropState | None:
        """When and why a commit was dropped; None if it was not."""
        return self._value(f"drop/{repo}/{commit}", r.DropState)

    def live_parents(self, repo: str, parents: Sequence[str]) -> tuple[str, ...]:
        """Return `parents` with those that were dropped replaced by what they followed."""
        found: list[str] = []
        open_ = list(parents)
        while open_:
            commit = open_.pop(0)
            gone = self.dropped(repo, commit) if self.commit(repo, commit) is None else None
            if gone is not None:
                open_[:0] = gone.parents
            elif commit not in found:
                found.append(commit)
        return tuple(found)

    def damaged(self) -> dict[str, int]:
        """Keys of objects that were found damaged or missing and not mended since, to the entry that says so."""
        return {key[len(b"damage/") :].decode(): int(raw) for key, raw in self.scan(b"damage/")}

    def keep(self, repo: str) -> r.KeepSet | None:
        """How long the repo's commits are kept; None: for ever."""
        return self._value(f"keep/{repo}", r.KeepSet)

    def sweeps(self, after: int = -1) -> Iterator[tuple[int, r.SweepState]]:
        """Sweeps of entries after `after`, oldest first."""
        for key, sweep in self._names("sweep/", r.SweepState):
            if int(key) > after:
                yield int(key), sweep

    def pinned(self) -> set[tuple[str, str]]:
        """(repo, commit) of what an open run sees, its jobs use, or a hold names: these cannot be dropped."""
        found = {(name, p.hold.commit) for name, p in self.pipelines() if p.hold is not None}
        current = self.open_run()
        if current is None:
            return found
        _, run = current
        found |= {(branch.rpartition("@")[0], commit) for branch, commit in run.view.items() if commit}
        for name in run.jobs:
            job = self.job(name)
            if job is not None and job.state == "running":
                found |= {(bound.repo, bound.commit) for bound in job.inputs if bound.commit}
                found |= {(job.pipeline, job.base)} if job.base else set()
        return found

    def running_jobs(self) -> Iterator[tuple[str, r.JobState]]:
        """Jobs that began and did not end."""
        current = self.open_run()
        for name in current[1].jobs if current is not None else ():
            job = self.job(name)
            if job is not None and job.state == "running":
                yield name, job


def merge_edits(base: Base | None, edits: dict[bytes, bytes | None], prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the pairs below a prefix, those of `edits` in the place of the base's; None drops one."""
    mine = sorted(key for key in edits if key.startswith(prefix))
    position = 0
    if base is not None:
        for key, value in base.scan(prefix):
            while position < len(mine) and mine[position] < key:
                new = edits[mine[position]]
                if new is not None:
                    yield mine[position], new
                position += 1
            if position < len(mine) and mine[position] == key:
                new = edits[key]
                position += 1
                if new is not None:
                    yield key, new
            else:
                yield key, value
    for key in mine[position:]:
        new = edits[key]
        if new is not None:
            yield key, new
