"""Fixtures of the conformance suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """An empty store in memory."""
    return Lab(tmp_path)
