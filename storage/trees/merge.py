"""Three-way merge of trees, and where two commits part.

Rules
-----
1. A path that one side changed, compared with the base, gets that side's value; one that both changed alike, too.
2. A path that both changed differently is a conflict. So is a name that one side made a file and the other a folder.
3. `Prefer` settles all conflicts for one side; paths that do not conflict are merged all the same.

Where commits have several bases (two branches that were merged into each other), a path on which these disagree counts
as changed by both sides.

Pure but for the nodes of the merged tree. Reads the nodes in which the trees differ, not those that they share.
"""

from __future__ import annotations

import enum
import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..objects.cache import content_name
from ..objects.node import OverlayNodes
from ..objects.value import Value, decode_value
from ..paths import folders_of, show_path
from .prolly import Tree

_DISPUTED = b""
"""Stands in a merged base for what its bases disagree on: no side has it, since no value is empty."""


class Prefer(enum.StrEnum):
    """Who wins where both sides changed a path."""

    REFUSE = "refuse"
    """Nobody: conflicts are reported and nothing is merged."""
    OURS = "ours"
    THEIRS = "theirs"


@dataclass(frozen=True, slots=True)
class Conflict:
    """A path on which the sides disagree. Values are None where there is no file."""

    path: str
    """With leading slash."""
    base: Value | None
    ours: Value | None
    theirs: Value | None
    folder: str = ""
    """``ours`` or ``theirs``: that side has a folder of this name, the other a file."""

    @property
    def reason(self) -> str:
        """What the sides did, in words."""
        if self.folder:
            return f"a folder in {self.folder}, a file in {'theirs' if self.folder == 'ours' else 'ours'}"
        if self.ours is None or self.theirs is None:
            gone, kept = ("ours", "theirs") if self.ours is None else ("theirs", "ours")
            return f"deleted in {gone}, changed in {kept}"
        return "added in both, differently" if self.base is None else "changed in both, differently"

    def to_dict(self) -> dict[str, object]:
        """Return plain data with stable keys."""
        return {
            "path": self.path,
            "reason": self.reason,
            "base": _plain(self.base),
            "ours": _plain(self.ours),
            "theirs": _plain(self.theirs),
        }


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of a merge."""

    tree: Tree | None
    """The merged tree; None if conflicts stand in the way."""
    conflicts: tuple[Conflict, ...]
    """All that there were, settled or not, sorted by path."""
    size_change: int = 0
    """Bytes of content that `tree` has more than ours."""
    taken: int = 0
    """Paths that differ from ours."""


def merge3(base: Tree, ours: Tree, theirs: Tree, *, prefer: Prefer = Prefer.REFUSE) -> Merged:
    """Merge what `theirs` changed since `base` into `ours`.

    Parameters
    ----------
    base
        What both sides began from.
    ours, theirs
        The sides; the merged tree's nodes go to where those of `ours` are.
    prefer
        Who wins a conflict.

    Notes
    -----
    Memory is in proportion to what changed since `base`.
    """
    merging = _Merging(base, ours, theirs)
    conflicts = merging.settle(prefer)
    if conflicts and prefer is Prefer.REFUSE:
        return Merged(None, conflicts)
    edits = merging.edits()
    return Merged(ours.update(edits), conflicts, merging.size_change(edits), len(edits))


def _plain(value: Value | None) -> dict[str, object] | None:
    if value is None:
        return None
    return {"size": value.size, "content": content_name(value).hex()}


_Change = tuple[bytes | None, bytes | None]
"""Value before and after; None: no file."""


class _Merging:
    """The changes of both sides, and what the merge makes of them."""

    def __init__(self, base: Tree, ours: Tree, theirs: Tree) -> None:
        self._ours: dict[bytes, _Change] = _changes(base, ours)
        self._theirs: dict[bytes, _Change] = _changes(base, theirs)
        self._result: dict[bytes, bytes | None] = {}
        """What ours gets: path to its new value."""

    def settle(self, prefer: Prefer) -> tuple[Conflict, ...]:
        """Decide on every path that theirs changed; return the conflicts."""
        found: dict[bytes, Conflict] = {}
        from_theirs: set[bytes] = set()
        lost_by_ours: set[bytes] = set()
        for path, (before, after) in self._theirs.items():
            mine = self._ours.get(path)
            if mine is None or mine[1] != after:
                if mine is not None:
                    found[path] = _conflict(path, before, mine[1], after)
                    if prefer is not Prefer.THEIRS:
                        continue
                    lost_by_ours.add(path)
                self._result[path] = after
                if after is not None:
                    from_theirs.add(path)
        settled = found.keys() if prefer is Prefer.REFUSE else lost_by_ours
        from_ours = {path for path, (_, after) in self._ours.items() if after is not None and path not in settled}
        self._settle_folders(prefer, from_ours, from_theirs, found)
        return tuple(found[path] for path in sorted(found))

    def _settle_folders(
        self, prefer: Prefer, from_ours: set[bytes], from_theirs: set[bytes], found: dict[bytes, Conflict]
    ) -> None:
        """Find what one side made a file and the other a folder: both must have made it, or it would be no clash."""
        for file, below in _clashes(files=from_ours, others=from_theirs):
            found.setdefault(file, _conflict(file, None, self._ours[file][1], None, folder="theirs"))
            if prefer is Prefer.THEIRS:
                self._result[file] = None
            else:
                for path in below:
                    self._result.pop(path, None)
        for file, below in _clashes(files=from_theirs, others=from_ours):
            found.setdefault(file, _conflict(file, None, None, self._theirs[file][1], folder="ours"))
            if prefer is Prefer.THEIRS:
                self._result.update(dict.fromkeys(below))
            else:
                self._result.pop(file, None)

    def edits(self) -> list[tuple[bytes, bytes | None]]:
        """Return the edits of ours, sorted."""
        return sorted(self._result.items())

    def size_change(self, edits: Sequence[tuple[bytes, bytes | None]]) -> int:
        """Return by how many bytes of content `edits` make ours larger."""
        total = 0
        for path, new in edits:
            mine = self._ours.get(path)
            old = mine[1] if mine is not None else self._theirs[path][0]
            total += _size(new) - _size(old)
        return total


def _changes(base: Tree, side: Tree) -> dict[bytes, _Change]:
    return {path: (before, after) for path, before, after in base.diff(side)}


def _size(value: bytes | None) -> int:
    return decode_value(value).size if value else 0


def _conflict(path: bytes, base: bytes | None, ours: bytes | None, theirs: bytes | None, folder: str = "") -> Conflict:
    first, second, third = (decode_value(value) if value else None for value in (base, ours, theirs))
    return Conflict(show_path(path), first, second, third, folder)


def _clashes(*, files: set[bytes], others: set[bytes]) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yield each of `files` that has some of `others` below it, with these."""
    folders = {folder for path in others for folder in folders_of(path)}
    clashing = sorted(files & folders)
    if not clashing:
        return
    ordered = sorted(others)
    for file in clashing:
        start = bisect_left(ordered, file + b"/")
        yield file, ordered[start : bisect_left(ordered, file + b"0")]


# --- where commits part -------------------------------------------------------------------------------------------

Parents = Callable[[str], Sequence[str]]
"""Parents of a commit id."""

_OURS, _THEIRS, _COMMON = 1, 2, 4


def is_ancestor(parents: Parents, age: Callable[[str], int], old: str, new: str) -> bool:
    """Whether `old` is `new` or one of the commits that it followed; see `merge_bases`."""
    return merge_bases(parents, age, old, new) == [old]


def merge_bases(parents: Parents, age: Callable[[str], int], ours: str, theirs: str) -> list[str]:
    """Return the common ancestors that are above no other one, sorted; none if the histories have nothing in common.

    Parameters
    ----------
    parents
        Of a commit, none for the first.
    age
        A number that is no larger for an ancestor than for its descendants (the ledger's). Decides what is read, not
        what is found.
    ours, theirs
        Commits; either may be an ancestor of the other, and then is the base.

    Notes
    -----
    Reads the commits that are younger than the base, and few others.

    References
    ----------
    git's ``paint_down_to_common`` (commit-reach.c).
    """
    if ours == theirs:
        return [ours]
    found = _paint(parents, age, {ours: _OURS, theirs: _THEIRS})
    # One that another one follows is no best base; painting finds it only where ages are equal or wrong.
    return sorted(
        commit
        for commit in found
        if not any(other != commit and _reaches(parents, age, other, commit) for other in found)
    )


def _paint(parents: Parents, age: Callable[[str], int], start: Mapping[str, int]) -> list[str]:
    marks = dict(start)
    queue = [(-age(commit), commit) for commit in marks]
    heapq.heapify(queue)
    queued = set(marks)
    open_ = set(marks)
    """Queued, and not known to be above a common ancestor: only from these can a new one be found."""
    found: dict[str, None] = {}
    while open_:
        _, commit = heapq.heappop(queue)
        queued.discard(commit)
        open_.discard(commit)
        mark = marks[commit]
        if mark == _OURS | _THEIRS:
            found[commit] = None
            mark |= _COMMON
        for parent in parents(commit):
            old = marks.get(parent, 0)
            if old | mark == old:
                continue
            marks[parent] = old | mark
            if parent not in queued:
                queued.add(parent)
                heapq.heappush(queue, (-age(parent), parent))
            if marks[parent] & _COMMON:
                open_.discard(parent)
            else:
                open_.add(parent)
    return [commit for commit in found if not marks[commit] & _COMMON]


def _reaches(parents: Parents, age: Callable[[str], int], new: str, old: str) -> bool:
    """Whether `old` is among the ancestors of `new`."""
    oldest = age(old)
    seen = {new}
    stack = [new]
    while stack:
        commit = stack.pop()
        if commit == old:
            return True
        for parent in parents(commit):
            if parent not in seen and age(parent) >= oldest:
                seen.add(parent)
                stack.append(parent)
    return False


def join_bases(bases: Sequence[Tree]) -> Tree | None:
    """Return the tree that a merge of commits with these bases begins from; None if there are none.

    Notes
    -----
    For one base that base. What several disagree on gets a value that nobody has; its nodes stay in memory.
    """
    if not bases:
        return None
    joined = bases[0]
    for other in bases[1:]:
        disputed = [(path, _DISPUTED) for path, _, _ in joined.diff(other)]
        joined = Tree(OverlayNodes(joined.nodes), joined.root).update(disputed)
    return joined
