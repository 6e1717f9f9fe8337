"""A store with work for it, and a cluster in the test's own hands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.case import Case, make_case


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    """A hundred datums in a folder of this machine."""
    monkeypatch.setenv("DMLPIPE_FLUSH_S", "0.1")
    monkeypatch.setenv("DMLPIPE_FOLD_SEGMENTS", "4")
    made = make_case(tmp_path, str(tmp_path / "store"), datums=100, seconds=0.02)
    with made.arena:
        yield made
