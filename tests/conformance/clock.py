"""A clock that stands still until it is set, for a store and its ledger."""

from __future__ import annotations

import pytest

from dmlpipe.storage.store import Store


class Clock:
    """Says the time that was set last."""

    def __init__(self, time: str) -> None:
        self.time = time

    def __call__(self) -> str:
        return self.time

    def set(self, time: str) -> None:
        """Let it be `time`: RFC 3339."""
        self.time = time

    @classmethod
    def of(cls, store: Store, time: str, monkeypatch: pytest.MonkeyPatch) -> Clock:
        """Give a store this clock."""
        clock = cls(time)
        monkeypatch.setattr(store, "_clock", clock)
        monkeypatch.setattr(store.ledger, "_clock", clock)
        return clock
