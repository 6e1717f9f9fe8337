"""What is given to a put, listed: the same by one process or several."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dmlpipe.storage import listing
from dmlpipe.storage.errors import InvalidInputError
from dmlpipe.storage.sources import SourcePlan, plan_sources


def fill(folder: Path) -> None:
    """Make folders in folders, with names that are no ASCII, and no UTF-8."""
    for number in range(12):
        for below in (f"{number:02d}", f"{number:02d}/deep/er", f"{number:02d}/é"):
            (folder / below).mkdir(parents=True, exist_ok=True)
            for name in ("a", "ö", "out", f"{number}.bin"):
                (folder / below / name).write_bytes(b"")
    (folder / "top").write_bytes(b"")


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let three processes list as soon as that can be; return how many folders were shared each time."""
    asked: list[int] = []

    def process_count(most: int) -> int:
        asked.append(most)
        return 3

    monkeypatch.setattr(listing, "process_count", process_count)
    monkeypatch.setattr(listing, "_SHARE_FROM_FILES", 3)
    monkeypatch.setattr(listing, "_SHARE_FROM_FOLDERS", 4)
    return asked


def lists(plan: SourcePlan) -> list[object]:
    return [(found.root, found.inside, found.device, found.names, found.keys) for found in plan.folders]


def test_several_processes_list_what_one_does(
    tmp_path: Path, shared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "in")
    (tmp_path / "in/linked").symlink_to(tmp_path / "in/03/deep")
    given = {"exclude": ["out", "07/**"], "skip": tmp_path / "in/05"}
    together = plan_sources([str(tmp_path / "in")], b"to", **given)  # type: ignore[arg-type]  # as they are called
    assert shared == [11], "all but the first folder and the one that is passed over; what is below them is not"
    monkeypatch.setattr(listing, "_SHARE_FROM_FILES", 1 << 30)
    alone = plan_sources([str(tmp_path / "in")], b"to", **given)  # type: ignore[arg-type]
    assert len(shared) == 1
    assert lists(together) == lists(alone)
    assert together.paths == alone.paths
    assert len(alone) > 90


def test_many_folders_are_shared_in_groups(tmp_path: Path, shared: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "in")
    monkeypatch.setattr(listing, "MAX_UNITS", 4)
    together = plan_sources([str(tmp_path / "in")], b"")
    assert shared == [4]
    assert together.paths == sorted(together.paths)
    assert len(together) == 12 * 3 * 4 + 1


def test_what_another_process_finds_wrong_is_told(tmp_path: Path, shared: list[int]) -> None:
    fill(tmp_path / "in")
    os.mkfifo(tmp_path / "in/09/deep/pipe")
    with pytest.raises(InvalidInputError, match="deep/pipe is a FIFO"):
        plan_sources([str(tmp_path / "in")], b"")
    os.unlink(tmp_path / "in/09/deep/pipe")
    (tmp_path / "in/08/é/up").symlink_to(tmp_path / "in")
    with pytest.raises(InvalidInputError, match="links to a folder above itself"):
        plan_sources([str(tmp_path / "in")], b"")
    (tmp_path / "in/08/é/up").unlink()
    (tmp_path / "in/11/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/zz").symlink_to(tmp_path / "in")
    with pytest.raises(InvalidInputError, match="zz links to a folder above itself"):
        plan_sources([str(tmp_path / "in")], b"")
    assert len(shared) == 2
