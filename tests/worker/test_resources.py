"""What a worker says that it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmlpipe.storage.errors import InvalidInputError
from dmlpipe.worker.resources import found_resources, memory_bytes


@pytest.mark.parametrize("word", ["licence", "licence=", "licence=x", "=2", "li cence=1", "licence=-1", "licence=inf"])
def test_what_is_no_resource_is_refused(word: str) -> None:
    with pytest.raises(InvalidInputError, match="NAME=NUMBER"):
        found_resources([], [word])


def test_a_control_group_bounds_the_memory(tmp_path: Path) -> None:
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    limit = tmp_path / "sys/fs/cgroup/memory.max"
    assert memory_bytes(tmp_path) > 1 << 20
    limit.write_text("1048576\n")
    assert memory_bytes(tmp_path) == 1 << 20
    limit.write_text("max\n")
    assert memory_bytes(tmp_path) > 1 << 20
