"""What stands in the ledger entry that makes a tree the head of a branch, and who may make one.

Pure but for one node: the commit's body is stored, since its name is the commit's.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..actor import user_name
from ..archive import Archive
from ..errors import ConflictError, ErrorCode, NotFoundError, ReadOnlyError
from ..objects.bodies import encode_body
from ..objects.writer import Written
from ..records import Commit, CommitMade, Record, RefSet, RepoCreate
from ..refs import nearest
from ..state import State
from ..trees.prolly import Tree
from .editing import Target


class Planned(msgspec.Struct, frozen=True):
    """A commit, and the records that publish it; no records: it is the branch's head already."""

    commit: str
    records: tuple[Record, ...] = ()


def plan_repo(state: State, target: Target) -> bool:
    """Return whether the repo must be made.

    Raises
    ------
    NotFoundError
        There is no such repo, and it may not be made.
    ReadOnlyError
        It is the output of a pipeline.
    """
    if state.repo(target.repo) is not None:
        refuse_output(state, target.repo)
        return False
    if target.create:
        return True
    near = nearest(target.repo, (name for name, _ in state.repos() if _differ_in_letters(name, target.repo)))
    if target.create is None and near is None:
        return True
    raise NotFoundError(
        f"no repo {target.repo!r}",
        code=ErrorCode.NO_REPO,
        hint=(f"did you mean {near}? " if near else "") + "else make it: --create",
    )


def refuse_output(state: State, repo: str) -> None:
    """Raise `ReadOnlyError` if a repo is the output of a pipeline; what a spout writes it commits itself."""
    found = state.repo(repo)
    pipeline = state.pipeline(found.pipeline) if found is not None and found.pipeline else None
    if found is not None and pipeline is not None and pipeline.standing != "spout":
        raise ReadOnlyError(
            f"repo {repo!r} is the output of pipeline {found.pipeline!r}: only its jobs write it",
            hint=f"put into one of its inputs, or go back: dmlpipe revert {found.pipeline} --to {repo}@master^ -m WHY",
        )


def head_to_follow(state: State, target: Target, *, creates_repo: bool) -> str | None:
    """Return the head that a commit would follow in `state`, None for a new branch.

    Raises
    ------
    NotFoundError
        The repo is gone.
    ReadOnlyError
        It has become the output of a pipeline.
    ConflictError
        The branch is not at the target's `if_head`.
    """
    if state.repo(target.repo) is None and not creates_repo:
        raise NotFoundError(f"repo {target.repo!r} was deleted meanwhile", code=ErrorCode.NO_REPO)
    refuse_output(state, target.repo)
    head = state.head(target.repo, target.branch)
    if target.if_head is not None and (head or "") != target.if_head:
        raise ConflictError(
            f"{target.repo}@{target.branch} is at {head[:12] if head else 'no commit'}, "
            f"expected {target.if_head[:12] or 'no commit'}",
            hint=f"look: dmlpipe log {target.repo}@{target.branch}",
        )
    return head


def plan_commit(
    archive: Archive,
    state: State,
    target: Target,
    tree: Tree,
    *,
    head: str | None,
    size_change: int,
    clock: Callable[[], str],
    merged: str = "",
    written: Written = Written(),
    session: str = "",
) -> Planned:
    """Plan the commit of `tree` on top of `head`; stores its body.

    Parameters
    ----------
    size_change
        Bytes of content by which `tree` is larger than the head's.
    merged
        Second parent, of a merge: makes a commit even where the tree is the head's.
    written
        What was stored for it.
    session
        Open commit that this publishes.
    """
    before = archive.body(head) if head else None
    if head and before is not None and before.tree == tree.root.hex() and not merged:
        return Planned(head)
    body = Commit(
        tree=tree.root.hex(),
        parents=tuple(parent for parent in (head, merged) if parent),
        message=target.message,
        author=target.author or user_name(),
        time=clock(),
        files=len(tree),
        size=(before.size if before else 0) + size_change,
    )
    commit = archive.nodes.put(encode_body(body)).hex()
    made = CommitMade(
        repo=target.repo,
        id=commit,
        tree=body.tree,
        files=body.files,
        size=body.size,
        packs=written.packs,
        index=written.index,
        session=session,
    )
    moved = RefSet(repo=target.repo, branch=target.branch, old=head or "", new=commit)
    missing = state.repo(target.repo) is None
    return Planned(commit, (RepoCreate(repo=target.repo), made, moved) if missing else (made, moved))


def _differ_in_letters(one: str, two: str) -> bool:
    """Whether more than digits differs: images1 and images2 are two repos, images and imagse are a slip."""
    return one.rstrip("0123456789") != two.rstrip("0123456789")
