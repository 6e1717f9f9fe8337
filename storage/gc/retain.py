"""Which commits end: by a repo's rule, by name, or because their repo was deleted.

A commit that ends is dropped from the ledger's state; what only it refers to is garbage from then on. Commits hold
whole trees, so dropping one changes no other. Never dropped: heads, tagged and held commits, and what an open run sees.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence

from ..errors import ConflictError, ErrorCode, InvalidInputError, NotFoundError
from ..records import CommitDrop, Dropped, Record, RefSet
from ..state import State

Parents = Callable[[str], Sequence[str]]
"""Parents of a commit id, from its body."""

MAX_DROPPED = 1000
"""Commits that one record names at most."""


def plan_retention(state: State, parents: Parents, *, now: datetime.datetime) -> list[CommitDrop]:
    """Return what the repos' rules, and deleted repos, let go of as of `now`."""
    pinned = state.pinned()
    found: list[CommitDrop] = []
    for repo in _repos_with_commits(state):
        alive = state.repo(repo) is not None
        rule = state.keep(repo) if alive else None
        if alive and rule is None:
            continue
        kept = {commit for name, commit in pinned if name == repo}
        why = "its repo was deleted"
        if rule is not None:
            kept |= {*state.branches(repo).values(), *state.tags(repo).values()}
            for branch in state.branches(repo):
                heads = list(dict.fromkeys(head.commit for head in state.history(repo, branch)))
                kept |= set(heads[: rule.last])
            why = " and ".join(
                [f"the last {rule.last}"] * bool(rule.last) + [f"those of {rule.days:g} days"] * bool(rule.days)
            )
            why = f"{repo} keeps {why}"
        gone = []
        for key, _ in state.scan(f"commit/{repo}/".encode()):
            commit = key.decode().rpartition("/")[2]
            known = state.commit(repo, commit)
            young = rule is not None and rule.days and known is not None and _days(known.time, now) < rule.days
            if commit not in kept and not young:
                gone.append(commit)
        found += drops(repo, gone, parents, why)
    return found


def drops(repo: str, commits: Sequence[str], parents: Parents, why: str) -> list[CommitDrop]:
    """Return the records that drop commits."""
    return [
        CommitDrop(
            repo=repo,
            commits=tuple(
                Dropped(id=commit, parents=tuple(parents(commit))) for commit in commits[start : start + MAX_DROPPED]
            ),
            why=why,
        )
        for start in range(0, len(commits), MAX_DROPPED)
    ]


def plan_squash(state: State, repo: str, commit: str, parents: Parents) -> list[Record]:
    """Return the records that end a commit which others followed: what it brought stays in those.

    Raises
    ------
    InvalidInputError
        It is the head of a branch.
    ConflictError
        It is tagged, held, or a run uses it.
    """
    heads = sorted(branch for branch, head in state.branches(repo).items() if head == commit)
    if heads:
        raise InvalidInputError(
            f"{repo}@{commit[:6]} is the head of {', '.join(heads)}: no commit follows it",
            hint=f"take it back instead: dmlpipe commit delete {repo}@{commit[:6]}",
        )
    _refuse_used(state, repo, commit)
    return list(drops(repo, [commit], parents, "squashed"))


def plan_delete(state: State, repo: str, commit: str, parents: Parents) -> list[Record]:
    """Return the records that take a commit back: branches at it go to its parent.

    Raises
    ------
    InvalidInputError
        It is not the head of a branch, or it has no parent.
    ConflictError
        It is tagged, held, or a run uses it.
    """
    heads = sorted(branch for branch, head in state.branches(repo).items() if head == commit)
    if not heads:
        raise InvalidInputError(
            f"{repo}@{commit[:6]} is not the head of a branch",
            hint=f"to let what followed it stand alone: dmlpipe commit squash {repo}@{commit[:6]}",
        )
    _refuse_used(state, repo, commit)
    above = next(iter(state.live_parents(repo, parents(commit))), "")
    if above and state.commit(repo, above) is None:
        raise NotFoundError(f"the parent of {repo}@{commit[:6]} is not there", code=ErrorCode.NO_COMMIT)
    moves: list[Record] = [RefSet(repo=repo, branch=branch, old=commit, new=above) for branch in heads]
    return [*moves, *drops(repo, [commit], parents, "deleted")]


def _refuse_used(state: State, repo: str, commit: str) -> None:
    tags = sorted(tag for tag, at in state.tags(repo).items() if at == commit)
    if tags:
        raise ConflictError(f"{repo}@{commit[:6]} is tagged {', '.join(tags)}", hint="delete the tag first")
    if (repo, commit) in state.pinned():
        raise ConflictError(f"{repo}@{commit[:6]} is held, or a run under way uses it", hint="wait: dmlpipe wait")


def _repos_with_commits(state: State) -> Iterable[str]:
    last = ""
    for key, _ in state.scan(b"commit/"):
        repo = key.decode().split("/", 2)[1]
        if repo != last:
            last = repo
            yield repo


def _days(time: str, now: datetime.datetime) -> float:
    return (now - datetime.datetime.fromisoformat(time)).total_seconds() / 86400
