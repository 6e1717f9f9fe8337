"""What `gc` does, in order: commits end, garbage goes, leftovers of writers that died are removed."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..archive import Archive
from ..backend import Backend
from ..backend.local import LocalBackend
from ..ledger.ledger import Ledger
from ..objects.content import Content
from ..objects.node import NodeStore
from ..records import CommitDrop, Record
from ..state import State
from .plan import Plan
from .retain import plan_retention
from .sweep import GRACE_S, Collector, Swept

TEMPORARIES_OLDER_S = 3600.0


class Parts(Protocol):
    """A store, as far as a collection needs one."""

    backend: Backend
    nodes: NodeStore
    ledger: Ledger
    archive: Archive

    @property
    def objects(self) -> Content:
        """Its content."""
        ...


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection did."""

    dropped: int
    """Commits that ended."""
    swept: Swept
    temporaries: int
    """Files of writers that died."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with stable keys."""
        return {"dropped": self.dropped, "temporaries": self.temporaries, **self.swept.to_dict()}


def collect(
    store: Parts,
    *,
    grace_s: float = GRACE_S,
    mark: str | None = None,
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
) -> Collected:
    """Collect garbage; see `Collector`.

    Parameters
    ----------
    grace_s
        Leave unpublished objects that were written less than so many seconds ago.
    mark
        Id of a list that `mark` kept: take nothing else, and end no commits.
    now
        For rules that count days.
    """
    collector = _collector(store, grace_s)
    only = collector.marked(mark) if mark is not None else None
    dropped = retain(store, now()) if mark is None else 0
    swept = collector.collect(only)
    temporaries = 0
    if isinstance(store.backend, LocalBackend):
        temporaries = store.backend.sweep_temporaries(max(grace_s, TEMPORARIES_OLDER_S))
    return Collected(dropped, swept, temporaries)


def retain(store: Parts, now: datetime.datetime) -> int:
    """End the commits that rules let go of; return how many."""

    def build(state: State) -> Sequence[Record]:
        return plan_retention(state, lambda commit: store.archive.body(commit).parents, now=now)[:1]

    count = 0
    while (entry := store.ledger.try_append(build)) is not None:
        count += sum(len(record.commits) for record in entry.recs if isinstance(record, CommitDrop))
    return count


def look(
    store: Parts,
    *,
    grace_s: float = GRACE_S,
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
) -> Plan:
    """Say what a collection would take, with the commits that rules would end."""

    def foresee(state: State) -> State:
        after = state.fork()
        for record in plan_retention(state, lambda commit: store.archive.body(commit).parents, now=now()):
            after.check_more([record], n=state.n + 1)
        return after

    return _collector(store, grace_s).plan(foresee=foresee)


def mark(store: Parts, *, grace_s: float = GRACE_S) -> tuple[str, Plan]:
    """Keep the list of what a collection would take; return its id and the plan."""
    return _collector(store, grace_s).mark()


def _collector(store: Parts, grace_s: float) -> Collector:
    return Collector(store.backend, store.nodes, store.objects, store.ledger, grace_s=grace_s)


__all__ = ["Collected", "Parts", "collect", "look", "mark", "retain"]
