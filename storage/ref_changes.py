"""Records that make, move and end repos, branches and tags: what may be done, decided on a folded state.

Pure. Each function returns the records of one ledger entry, none where nothing is to change, or raises what forbids
it; `Store` appends what they return, and calls them anew where the ledger has grown meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

from .errors import ConflictError, ErrorCode, InvalidInputError, NotFoundError, ReadOnlyError
from .records import Record, RefSet, RepoDelete, TagSet, Trigger, TriggerSet
from .refs import DEFAULT_BRANCH, Ref, nearest, need_repo
from .state import State


def end_repo(state: State, repo: str, *, force: bool = False) -> Sequence[Record]:
    """Delete a repo that no pipeline writes, nor reads unless `force`."""
    need_repo(state, repo)
    if state.pipeline(repo) is not None:
        raise InvalidInputError(
            f"repo {repo!r} is the output of pipeline {repo!r}", hint=f"first: dmlpipe pipeline delete {repo}"
        )
    branches = {DEFAULT_BRANCH, *state.branches(repo)}
    readers = sorted({reader for branch in branches for reader in state.readers(repo, branch)})
    if readers and not force:
        raise InvalidInputError(f"repo {repo!r} is read by {', '.join(readers)}")
    return [RepoDelete(repo=repo)]


def begin_branch(state: State, repo: str, branch: str, commit: str) -> Sequence[Record]:
    """Make a branch at a commit of its repo."""
    _refuse_published(state, repo, branch, commit)
    return [RefSet(repo=repo, branch=branch, old="", new=commit)]


def move_branch(state: State, repo: str, branch: str, commit: str, *, asked: str | Ref) -> Sequence[Record]:
    """Move a branch to a commit, which the user called `asked`, making the branch if need be."""
    _refuse_published(state, repo, branch, asked)
    head = state.head(repo, branch) or ""
    return [] if head == commit else [RefSet(repo=repo, branch=branch, old=head, new=commit)]


def follow(state: State, repo: str, branch: str, trigger: Trigger | None) -> Sequence[Record]:
    """Let a branch follow another one by a rule; None: no longer."""
    need_repo(state, repo)
    known = state.trigger(repo, branch)
    same = known.trigger == trigger if known is not None else trigger is None
    return [] if same else [TriggerSet(repo=repo, branch=branch, trigger=trigger)]


def end_branch(state: State, repo: str, branch: str) -> Sequence[Record]:
    """Delete a branch that no pipeline reads or publishes."""
    need_repo(state, repo)
    head = state.head(repo, branch)
    if head is None:
        near = nearest(branch, state.branches(repo))
        raise NotFoundError(
            f"no branch {branch!r} in repo {repo!r}",
            code=ErrorCode.NO_BRANCH,
            hint=(f"did you mean {near}? " if near else "") + f"list: dmlpipe branch list {repo}",
        )
    readers = state.readers(repo, branch)
    if readers:
        raise InvalidInputError(f"{repo}@{branch} is read by {', '.join(readers)}")
    publisher = state.publisher(repo, branch)
    if publisher is not None:
        raise ReadOnlyError(
            f"{repo}@{branch} is published by pipeline {publisher!r}",
            hint=f"delete that: dmlpipe pipeline delete {publisher}",
        )
    return [RefSet(repo=repo, branch=branch, old=head, new="")]


def begin_tag(state: State, repo: str, tag: str, commit: str, *, force: bool = False) -> Sequence[Record]:
    """Name a commit; a tag that is elsewhere moves only with `force`."""
    found = state.tag(repo, tag)
    if state.head(repo, tag) is not None:
        raise ConflictError(f"{repo}@{tag} is a branch", code=ErrorCode.EXISTS, hint="choose another name")
    if found is not None and found != commit and not force:
        raise ConflictError(
            f"tag {repo}@{tag} exists already: it is at {found[:12]}",
            code=ErrorCode.EXISTS,
            hint=f"move it: dmlpipe tag create {repo}@{tag} REF --force",
        )
    return [] if found == commit else [TagSet(repo=repo, tag=tag, commit=commit)]


def end_tag(state: State, repo: str, tag: str) -> Sequence[Record]:
    """Remove a tag."""
    need_repo(state, repo)
    if state.tag(repo, tag) is None:
        near = nearest(tag, state.tags(repo))
        raise NotFoundError(
            f"no tag {tag!r} in repo {repo!r}",
            hint=(f"did you mean {near}? " if near else "") + f"list: dmlpipe tag list {repo}",
        )
    return [TagSet(repo=repo, tag=tag, commit="")]


def _refuse_published(state: State, repo: str, branch: str, to: str | Ref) -> None:
    publisher = state.publisher(repo, branch)
    if publisher is not None:
        raise ReadOnlyError(
            f"{repo}@{branch} is published by pipeline {publisher!r}",
            hint=f"dmlpipe revert {publisher} --to {to} -m WHY",
        )
