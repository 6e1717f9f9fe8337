"""What a check found: problems, what each touches, and how much was read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Progress = Callable[[str, int], None]
"""Called with what is being read and how many objects of it were."""


class Touch(NamedTuple):
    """Something that cannot be read because an object is damaged."""

    what: str
    """`commit`, `file`, `files` (all below a damaged tree node), `open commit`, `datum`, `context`, `job`, `pipeline`
    or `checkpoint`."""
    name: str
    """Its name in the newest commit that has it: ``r@master:/a.png``."""
    others: tuple[str, ...] = ()
    """Its names in the other commits, newest first."""

    def __str__(self) -> str:
        if not self.others:
            return self.name
        plural = "s" if len(self.others) > 1 else ""
        return f"{self.name}, in {len(self.others)} other commit{plural} too: {', '.join(self.others)}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with stable keys."""
        return {"what": self.what, "name": self.name, "others": list(self.others)}


class Problem(NamedTuple):
    """Something that is not as it should be."""

    kind: str
    """`ledger`, `missing`, `damaged`, `unreadable`, `link` (a linked file is not what was put) or `derived` (can be
    made anew from the rest)."""
    object: str
    """Key of the object; of a link, its URL."""
    message: str
    touches: tuple[Touch, ...] = ()
    """All that cannot be read because of it; empty: nothing that the ledger or an open commit refers to."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with stable keys."""
        touches = [touch.to_dict() for touch in self.touches]
        return {"kind": self.kind, "object": self.object, "message": self.message, "touches": touches}


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found."""

    problems: tuple[Problem, ...]
    entries: int
    """Ledger entries read."""
    commits: int
    objects: int
    """Objects read and compared with their names."""
    size_bytes: int
    """Bytes of these."""
    orphans: int
    """Objects that nothing refers to; 0 where a sample was read, which does not tell."""
    ignored: tuple[str, ...] = ()
    """Ledger entries that every reader ignores, with the reason."""
    links: int = 0
    """Linked files that something refers to, whether or not they were looked at."""
    stored: int = 0
    """Objects that the store has; `objects` of them were read."""
    never: int = 0
    """After a sample: objects that this machine never checked so far."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with stable keys."""
        return {
            "ok": self.ok,
            "problems": [problem.to_dict() for problem in self.problems],
            "entries": self.entries,
            "commits": self.commits,
            "objects": self.objects,
            "size": self.size_bytes,
            "orphans": self.orphans,
            "ignored": list(self.ignored),
            "links": self.links,
            "stored": self.stored,
            "never_checked": self.never,
        }


@dataclass(slots=True)
class Findings:
    """Problems as they are found; of several about one object the first counts."""

    found: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Key to (kind, message)."""
    objects: int = 0
    size_bytes: int = 0
    progress: Progress = lambda what, count: None

    def __contains__(self, key: str) -> bool:
        return key in self.found

    def bad(self, kind: str, key: str, message: str) -> None:
        """Note a problem of the object `key`."""
        self.found.setdefault(key, (kind, message))

    def read(self, size_bytes: int) -> None:
        """Count an object that was read."""
        self.objects += 1
        self.size_bytes += size_bytes
