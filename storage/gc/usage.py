"""What holds the bytes: of each repo and branch, what it alone refers to and what it shares.

Sizes are those of stored objects: nodes and loose objects as they lie, packed blobs by the bytes they take in their
pack.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from ..backend import Backend
from ..digest import Digest, from_hex
from ..objects.condemned import plain_key
from ..objects.node import NodeStore
from ..state import State
from .mark import Marker
from .plan import read_contents


@dataclass(frozen=True, slots=True)
class Held:
    """What something refers to."""

    name: str
    """`repo`, or `repo@branch`."""
    unique: int
    """Bytes that no other repo (of a branch: no other branch or repo) refers to."""
    shared: int
    """Bytes that others refer to as well."""
    commits: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with stable keys."""
        return {"name": self.name, "unique": self.unique, "shared": self.shared, "commits": self.commits}


@dataclass(frozen=True, slots=True)
class Usage:
    """What a store's bytes are."""

    total: int
    """Bytes of all objects."""
    repos: tuple[Held, ...]
    branches: tuple[Held, ...]
    """By the commits that a branch had; several branches may have had one."""
    content: int
    """Bytes that commits refer to."""
    other: int
    """The ledger, checkpoints, memo, code, results' rows and logs; and garbage."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with stable keys."""
        return {
            "total": self.total,
            "content": self.content,
            "other": self.other,
            "repos": [held.to_dict() for held in self.repos],
            "branches": [held.to_dict() for held in self.branches],
        }


def measure(backend: Backend, nodes: NodeStore, state: State) -> Usage:
    """Measure a store.

    Notes
    -----
    Lists all objects, reads all indexes and every distinct tree node of every commit; holds a set of hashes per branch.
    """
    sizes: dict[Digest, int] = {}
    total = 0
    for key, size in backend.list(""):
        total += size
        kind, _, name_ = plain_key(key).partition("/")
        if kind in ("nodes", "objects"):
            try:
                sizes[from_hex(name_.replace("/", ""))] = size
            except ValueError:
                continue
    for name, at in read_contents(backend, state).entries():
        sizes.setdefault(name, at.stored)
    held: dict[str, set[Digest]] = {}
    counts: dict[str, int] = {}
    rest: dict[str, set[str]] = {}
    for repo, _ in state.repos():
        everything = set(state.commits_by_prefix(repo, ""))
        for branch in state.branches(repo):
            commits = {head.commit for head in state.history(repo, branch)} & everything
            held[f"{repo}@{branch}"] = _reach(backend, nodes, commits)
            counts[f"{repo}@{branch}"] = len(commits)
        rest[repo] = everything
    by_repo = {repo: _reach(backend, nodes, commits) for repo, commits in rest.items()}
    named = {repo: len(commits) for repo, commits in rest.items()}
    content: set[Digest] = set().union(*by_repo.values())
    known = sum(sizes.get(name, 0) for name in content)
    return Usage(
        total=total,
        repos=_split(by_repo, named, sizes),
        branches=_split(held, counts, sizes),
        content=known,
        other=total - known,
    )


def _reach(backend: Backend, nodes: NodeStore, commits: set[str]) -> set[Digest]:
    marker = Marker(backend, nodes)
    for commit in sorted(commits):
        marker.mark_commit(commit)
    return marker.marked.nodes | marker.marked.blobs


def _split(held: dict[str, set[Digest]], commits: dict[str, int], sizes: dict[Digest, int]) -> tuple[Held, ...]:
    counted = Counter(name for names in held.values() for name in names)
    found = []
    for label, names in held.items():
        unique = sum(sizes.get(name, 0) for name in names if counted[name] == 1)
        found.append(Held(label, unique, sum(sizes.get(name, 0) for name in names) - unique, commits[label]))
    return tuple(sorted(found, key=lambda item: (-item.unique - item.shared, item.name)))
