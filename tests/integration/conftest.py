"""Fixtures of tests that use everything together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.terminal import Terminal


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """An empty folder to type in; no process that was started there outlives the test."""
    folder = tmp_path / "work"
    folder.mkdir()
    made = Terminal(folder, tmp_path / "cache")
    yield made
    made.leave()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to type in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DMLPIPE_STORE", raising=False)
    return tmp_path
