"""The state as it will be once an entry stands that is being made, and the records that make it so."""

from __future__ import annotations

from ...storage.records import Record
from ...storage.state import State
from ..report import Report

__all__ = ["Draft"]


class Draft:
    """What one entry will say.

    Parameters
    ----------
    state
        As it is.
    swept
        Version of the registry of sweeps: what was looked at since is relied on.
    """

    def __init__(self, state: State, swept: int) -> None:
        self.swept = swept
        self.state = state.fork()
        self.records: list[Record] = []
        self.reports: list[Report] = []
        """For watchers, once the entry stands."""
        self._n = state.n + 1

    @property
    def unnamed_causes(self) -> bool:
        """Whether what was added is a cause, which has no hash before its entry stands."""
        return next(self.state.scan(f"cause/{self._n:012d}/".encode()), None) is not None

    def add(self, *records: Record) -> None:
        """Apply records as if they stood in the entry that is being made."""
        self.state.check_more(records, n=self._n)
        self.records.extend(records)
