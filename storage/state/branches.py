"""What commits, refs and triggers do to the state: a branch that moves takes those along that follow it."""

from __future__ import annotations

import msgspec

from .. import records as r
from ..errors import ConflictError, ErrorCode, InvalidInputError, NotFoundError
from ..schedule import parse_time
from ..triggers import check_trigger, holds
from .needs import need_commit, need_repo
from .scratch import Scratch, add_branch_cause, add_content
from .view import down


def fold_commit(s: Scratch, record: r.CommitMade, entry: r.Entry) -> None:
    """A commit exists; what it packed can be found from here on."""
    need_repo(s, record.repo)
    if record.session:
        if s.session(record.session) is not None:
            raise ConflictError(f"open commit {record.session} was published already")
        s.put_text(f"session/{record.session}", f"{record.repo}/{record.id}")
    s.put(
        f"commit/{record.repo}/{record.id}",
        r.CommitState(n=entry.n, tree=record.tree, files=record.files, size=record.size, time=entry.ts, job=record.job),
    )
    add_content(s, entry, record.packs, record.index)


def fold_ref(s: Scratch, record: r.RefSet, entry: r.Entry, entry_hash: str) -> None:
    """A branch moves, begins or ends, if it is where the record says; those that follow it take its commit."""
    need_repo(s, record.repo)
    head = s.head(record.repo, record.branch) or ""
    if head != record.old:
        raise ConflictError(
            f"{record.repo}@{record.branch} is at {head[:12] or 'no commit'}, not at {record.old[:12] or 'no commit'}"
        )
    if record.new:
        need_commit(s, record.repo, record.new)
        _move(s, record.repo, record.branch, record.new, entry)
    else:
        s.drop(f"branch/{record.repo}/{record.branch}")
        s.drop(f"trigger/{record.repo}/{record.branch}")
    # What a job publishes belongs to its run; everything else that moves a branch somebody reads is a cause.
    if not any(isinstance(other, r.JobDone) for other in entry.recs):
        tells = {r.Hold: "revert", r.Tick: "tick"}
        kind = next((tells[type(other)] for other in entry.recs if type(other) in tells), "ref")
        add_branch_cause(s, entry, entry_hash, kind, record.repo, record.branch)
    # A commit is evaluated; a branch that is moved by hand is not.
    if any(isinstance(o, r.CommitMade) and (o.repo, o.id) == (record.repo, record.new) for o in entry.recs):
        _follow(s, record.repo, record.branch, entry, entry_hash)


def _move(s: Scratch, repo: str, branch: str, commit: str, entry: r.Entry) -> None:
    s.put_text(f"branch/{repo}/{branch}", commit)
    s.put(f"hist/{repo}/{branch}/{down(entry.n)}", r.HeadState(n=entry.n, commit=commit))


def _follow(s: Scratch, repo: str, on: str, entry: r.Entry, entry_hash: str) -> None:
    """Move the branches whose rule holds now that branch `on` has a new head, and those that follow them."""
    head = s.head(repo, on) or ""
    new = need_commit(s, repo, head)
    for branch, state in s.triggers(repo).items():
        if state.trigger.on != on:
            continue
        before = s.head(repo, branch) or ""
        old = s.commit(repo, before) if before else None
        if before != head and holds(
            state.trigger,
            grown=new.size - (old.size if old else 0),
            commits=_commits_since(s, repo, on, before, state.trigger.commits),
            since=old.time if old else state.since,
            now=entry.ts,
        ):
            _take_head(s, repo, branch, head, entry, entry_hash)


def _commits_since(s: Scratch, repo: str, branch: str, before: str, limit: int) -> int:
    """How many heads the branch had since `before`; no more than `limit` are counted."""
    found = 0
    for head in s.history(repo, branch) if limit else ():
        if head.commit == before or found == limit:
            break
        found += 1
    return found


def _take_head(s: Scratch, repo: str, branch: str, head: str, entry: r.Entry, entry_hash: str) -> None:
    _move(s, repo, branch, head, entry)
    add_branch_cause(s, entry, entry_hash, "trigger", repo, branch)
    _follow(s, repo, branch, entry, entry_hash)


def fold_trigger(s: Scratch, record: r.TriggerSet | r.TriggerTick, entry: r.Entry, entry_hash: str) -> None:
    """A branch follows another one from here on, or no longer; or a time of its schedule came."""
    key = f"trigger/{record.repo}/{record.branch}"
    if isinstance(record, r.TriggerSet):
        need_repo(s, record.repo)
        if record.trigger is None:
            s.drop(key)
            return
        publisher = s.publisher(record.repo, record.branch)
        if publisher is not None:
            raise InvalidInputError(
                f"{record.repo}@{record.branch} is published by pipeline {publisher!r}: it follows none"
            )
        others = {branch: state.trigger for branch, state in s.triggers(record.repo).items()}
        check_trigger(record.repo, record.branch, record.trigger, others)
        s.put(key, r.TriggerState(trigger=record.trigger, since=entry.ts))
        return
    state = s.trigger(record.repo, record.branch)
    if state is None or not state.trigger.cron:
        raise NotFoundError(f"{record.repo}@{record.branch} follows no schedule", code=ErrorCode.NO_BRANCH)
    if parse_time(record.time) <= parse_time(state.since):
        raise ConflictError(f"{record.repo}@{record.branch} has ticked at {state.since} already")
    s.put(key, msgspec.structs.replace(state, since=record.time))
    head = s.head(record.repo, state.trigger.on)
    if head is not None and head != s.head(record.repo, record.branch):
        _take_head(s, record.repo, record.branch, head, entry, entry_hash)
