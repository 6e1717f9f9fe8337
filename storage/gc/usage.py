"""What holds the bytes: of each repo and branch, what it alone refers to and what it shares; and what the rest is.

Sizes are those of stored objects: nodes and loose objects as they lie, packed blobs by the bytes they take in their
pack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ..backend import Backend
from ..digest import Digest, from_hex
from ..layout import Kind, kind_of
from ..objects.condemned import plain_key
from ..objects.node import NodeStore
from ..state import State
from .mark import Marker
from .plan import read_contents

Progress = Callable[[str, int, int], None]
"""Called with what was looked at, how many of it, and their bytes."""

_TOLD_EACH = 1000

_PARTS = {
    Kind.NODE: "nodes",
    Kind.OBJECT: "objects",
    Kind.PACK: "packs",
    Kind.SEGMENT: "results",
    Kind.FOLD: "results",
    Kind.INDEX: "indexes",
    Kind.ENTRY: "ledger",
    Kind.CHECKPOINT: "checkpoints",
    Kind.QUARANTINE: "quarantine",
}


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
    heads: int
    """Bytes that the heads of its branches refer to: the rest is of earlier commits alone."""
    files: int
    """In the head of its default branch; of a repo without one, in its newest commit."""
    size: int
    """Bytes of content of those files, as they were put."""

    @property
    def stored(self) -> int:
        """All bytes that it refers to."""
        return self.unique + self.shared

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with stable keys."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a store's bytes are."""

    total: int
    """Bytes of all objects: `content`, `memory`, `history` and `garbage`."""
    repos: tuple[Held, ...]
    branches: tuple[Held, ...]
    """By the commits that a branch had; several branches may have had one."""
    content: int
    """Bytes that commits refer to: files and trees."""
    memory: int
    """Bytes of nodes, objects and blobs that pipelines refer to besides: code, what was computed, logs."""
    history: int
    """The ledger, checkpoints, indexes, and what surrounds packed blobs."""
    garbage: int
    """Bytes that nothing refers to: `gc` gives them back, or another process writes them just now."""
    parts: dict[str, int]
    """The total once more, by the kind of object."""

    @property
    def other(self) -> int:
        """Everything but `content`."""
        return self.total - self.content

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with stable keys."""
        return {
            "total": self.total,
            "content": self.content,
            "other": self.other,
            "memory": self.memory,
            "history": self.history,
            "garbage": self.garbage,
            "parts": self.parts,
            "repos": [held.to_dict() for held in self.repos],
            "branches": [held.to_dict() for held in self.branches],
        }


def measure(backend: Backend, nodes: NodeStore, state: State, *, progress: Progress | None = None) -> Usage:
    """Measure a store.

    Parameters
    ----------
    progress
        Hears how far it is.

    Notes
    -----
    Lists all objects, reads all indexes and every distinct tree node of every commit; holds a set of hashes per branch.
    """
    return _Measuring(backend, nodes, state, progress or _silent).measure()


class _Measuring:
    def __init__(self, backend: Backend, nodes: NodeStore, state: State, progress: Progress) -> None:
        self._backend = backend
        self._nodes = nodes
        self._state = state
        self._progress = progress
        self._sizes: dict[Digest, int] = {}
        """Of nodes, loose objects and packed blobs."""

    def measure(self) -> Usage:
        state = self._state
        parts, total = self._list()
        held: dict[str, set[Digest]] = {}
        by_repo: dict[str, set[Digest]] = {}
        about: dict[str, tuple[int, int, int, int]] = {}
        for repo, _ in state.repos():
            everything = set(state.commits_by_prefix(repo, ""))
            heads = state.branches(repo)
            for branch, head in heads.items():
                commits = {entry.commit for entry in state.history(repo, branch)} & everything
                held[f"{repo}@{branch}"] = self._reach(commits)
                about[f"{repo}@{branch}"] = (len(commits), self._bytes(self._reach([head])), *self._put(repo, head))
            by_repo[repo] = self._reach(everything)
            newest = heads.get("master") or max(everything, key=lambda commit: self._number(repo, commit), default="")
            at_heads = self._bytes(self._reach(set(heads.values())))
            about[repo] = (len(everything), at_heads, *self._put(repo, newest))
        content: set[Digest] = set().union(*by_repo.values())
        marked = Marker(self._backend, self._nodes).mark(state)
        alive = content | marked.nodes | marked.blobs
        known = self._bytes(content)
        garbage = self._bytes(self._sizes.keys() - alive)
        memory = self._bytes(alive - content)
        return Usage(
            total=total,
            repos=_split(by_repo, about, self._sizes),
            branches=_split(held, about, self._sizes),
            content=known,
            memory=memory,
            history=total - known - memory - garbage,
            garbage=garbage,
            parts=parts,
        )

    def _list(self) -> tuple[dict[str, int], int]:
        """List all objects; return bytes by part, and of all."""
        parts: Counter[str] = Counter()
        count = told = 0
        for count, (key, size) in enumerate(self._backend.list(""), 1):
            kind = kind_of(key)
            parts[_PARTS.get(kind, "other") if kind is not None else "other"] += size
            if kind in (Kind.NODE, Kind.OBJECT):
                name = from_hex(plain_key(key).partition("/")[2].replace("/", ""))
                self._sizes[name] = self._sizes.get(name, 0) + size
            if count % _TOLD_EACH == 0:
                self._progress("objects", _TOLD_EACH, parts.total() - told)
                told = parts.total()
        self._progress("objects", count % _TOLD_EACH, parts.total() - told)
        for name, at in read_contents(self._backend, self._state).entries():
            self._sizes.setdefault(name, at.stored)
        return dict(sorted(parts.items(), key=lambda item: -item[1])), parts.total()

    def _reach(self, commits: Iterable[str]) -> set[Digest]:
        marker = Marker(self._backend, self._nodes)
        for commit in sorted(commits):
            marker.mark_commit(commit)
            self._progress("commits", 1, 0)
        return marker.marked.nodes | marker.marked.blobs

    def _bytes(self, names: Iterable[Digest]) -> int:
        return sum(self._sizes.get(name, 0) for name in names)

    def _put(self, repo: str, commit: str) -> tuple[int, int]:
        """Return how many files a commit has, and the bytes of their content."""
        known = self._state.commit(repo, commit) if commit else None
        return (known.files, known.size) if known is not None else (0, 0)

    def _number(self, repo: str, commit: str) -> int:
        known = self._state.commit(repo, commit)
        return known.n if known is not None else -1


def _split(
    held: dict[str, set[Digest]], about: dict[str, tuple[int, int, int, int]], sizes: dict[Digest, int]
) -> tuple[Held, ...]:
    counted = Counter(name for names in held.values() for name in names)
    found = []
    for label, names in held.items():
        unique = sum(sizes.get(name, 0) for name in names if counted[name] == 1)
        commits, heads, files, size = about[label]
        shared = sum(sizes.get(name, 0) for name in names) - unique
        found.append(Held(label, unique, shared, commits, heads, files, size))
    return tuple(sorted(found, key=lambda item: (-item.stored, item.name)))


def _silent(what: str, count: int, size_bytes: int) -> None:
    del what, count, size_bytes
