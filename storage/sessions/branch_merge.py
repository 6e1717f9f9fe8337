"""Merging a commit into a branch: the base, the trees, and one ledger entry with a commit of two parents."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..archive import Archive
from ..commits import CommitView
from ..errors import ConflictError, ErrorCode, NotFoundError
from ..ledger.ledger import Ledger
from ..objects.node import OverlayNodes
from ..records import CommitState, Record, RefSet
from ..refs import nearest, need_repo, show_commit
from ..state import State
from ..trees.merge import Conflict, Prefer, join_bases, merge3, merge_bases
from ..trees.prolly import Tree
from .editing import Target
from .publish import Planned, plan_commit, refuse_output

_CONFLICTS_SHOWN = 3


class MergeConflictError(ConflictError):
    """Both sides changed the same paths; nothing was written.

    Parameters
    ----------
    message, code, hint
        See `DmlpipeError`.
    conflicts
        All of them.
    """

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode | None = None,
        hint: str | None = None,
        conflicts: tuple[Conflict, ...] = (),
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.conflicts = conflicts

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self.message, self.code, self.hint, self.conflicts))


def _rebuild(message: str, code: ErrorCode, hint: str | None, conflicts: tuple[Conflict, ...]) -> MergeConflictError:
    return MergeConflictError(message, code=code, hint=hint, conflicts=conflicts)


class MergeKind(enum.StrEnum):
    """How a merge went."""

    UP_TO_DATE = "up-to-date"
    """The branch has all of the source already."""
    FAST_FORWARD = "fast-forward"
    """The source follows the branch's head: the branch moved to it."""
    MERGED = "merged"


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a merge did."""

    kind: MergeKind
    commit: CommitView
    """The branch's head afterwards; of a dry run, what it was."""
    source: CommitView
    taken: int
    """Paths of the branch that the merge changed."""
    conflicts: tuple[Conflict, ...]
    """Those that the preferred side won."""


@dataclass(frozen=True, slots=True)
class _Plan:
    kind: MergeKind
    head: str
    taken: int
    conflicts: tuple[Conflict, ...]
    tree: Tree | None = None
    size_change: int = 0


def merge_branch(
    archive: Archive,
    ledger: Ledger,
    target: Target,
    source: str,
    *,
    prefer: Prefer = Prefer.REFUSE,
    fast_forward: bool = True,
    dry_run: bool = False,
    clock: Callable[[], str],
) -> MergeResult:
    """Merge the commit `source` into the target's branch; see `Store.merge`."""
    planned: tuple[_Plan, str] | None = None

    def build(state: State) -> Sequence[Record]:
        nonlocal planned
        plan = _plan(archive, state, target, source, prefer, fast_forward, dry_run)
        made = _records(archive, state, target, source, plan, clock) if not dry_run else Planned(plan.head)
        planned = plan, made.commit
        return made.records

    if dry_run:
        build(ledger.refresh())
    else:
        ledger.try_append(build)
    assert planned is not None
    plan, commit = planned
    return MergeResult(
        plan.kind,
        CommitView(archive, target.repo, commit),
        CommitView(archive, target.repo, source),
        plan.taken,
        plan.conflicts,
    )


def _plan(
    archive: Archive,
    state: State,
    target: Target,
    source: str,
    prefer: Prefer,
    fast_forward: bool,
    dry_run: bool,
) -> _Plan:
    repo = target.repo
    head = _head(state, target)
    _commit(state, repo, source)

    def parents(commit: str) -> Sequence[str]:
        return state.live_parents(repo, archive.body(commit).parents)

    def tree(commit: str) -> Tree:
        return archive.tree(archive.body(commit).tree)

    bases = merge_bases(parents, lambda commit: _commit(state, repo, commit).n, head, source)
    if bases == [source]:
        return _Plan(MergeKind.UP_TO_DATE, head, 0, ())
    if bases == [head] and fast_forward:
        return _Plan(MergeKind.FAST_FORWARD, head, sum(1 for _ in tree(head).diff(tree(source))), ())
    ours = tree(head)
    if dry_run:
        ours = Tree(OverlayNodes(archive.nodes), ours.root)
    base = join_bases([tree(commit) for commit in bases])
    merged = merge3(base if base is not None else archive.tree(), ours, tree(source), prefer=prefer)
    if merged.tree is None:
        raise _refusal(target, source, merged.conflicts)
    return _Plan(MergeKind.MERGED, head, merged.taken, merged.conflicts, merged.tree, merged.size_change)


def _records(
    archive: Archive, state: State, target: Target, source: str, plan: _Plan, clock: Callable[[], str]
) -> Planned:
    if plan.kind is MergeKind.UP_TO_DATE:
        return Planned(plan.head)
    if plan.tree is None:
        return Planned(source, (RefSet(repo=target.repo, branch=target.branch, old=plan.head, new=source),))
    return plan_commit(
        archive,
        state,
        target,
        plan.tree,
        head=plan.head,
        size_change=plan.size_change,
        merged=source,
        clock=clock,
    )


def _head(state: State, target: Target) -> str:
    need_repo(state, target.repo)
    refuse_output(state, target.repo)
    head = state.head(target.repo, target.branch)
    if head is None:
        near = nearest(target.branch, state.branches(target.repo))
        raise NotFoundError(
            f"no branch {target.branch!r} in repo {target.repo!r}",
            code=ErrorCode.NO_BRANCH,
            hint=(f"did you mean {near}? " if near else "") + f"list: dmlpipe branch list {target.repo}",
        )
    if target.if_head is not None and head != target.if_head:
        raise ConflictError(f"{target.repo}@{target.branch} is at {head[:12]}, expected {target.if_head[:12]}")
    return head


def _commit(state: State, repo: str, commit: str) -> CommitState:
    found = state.commit(repo, commit)
    if found is None:
        raise NotFoundError(f"no commit {commit[:12]} in repo {repo!r}", code=ErrorCode.NO_COMMIT)
    return found


def _refusal(target: Target, source: str, conflicts: tuple[Conflict, ...]) -> MergeConflictError:
    shown = ", ".join(conflict.path for conflict in conflicts[:_CONFLICTS_SHOWN])
    more = f" and {len(conflicts) - _CONFLICTS_SHOWN:,} more" if len(conflicts) > _CONFLICTS_SHOWN else ""
    return MergeConflictError(
        f"{show_commit(target.repo, source)} and {target.repo}@{target.branch} conflict in {shown}{more}",
        hint="nothing was written; settle them for one side: --prefer ours, or --prefer theirs",
        conflicts=conflicts,
    )
