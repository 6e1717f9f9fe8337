"""What a worker of a cluster keeps in folders while it lives: the next one on its host clears it away."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.faults.arena import LIMIT_S, wait_for
from tests.faults.case import Case


def test_the_next_worker_clears_away_the_folders_of_a_killed_one(case: Case, tmp_path: Path) -> None:
    temporary, cache = tmp_path / "temporary", tmp_path / "shared"
    temporary.mkdir()
    places = {"TMPDIR": str(temporary), "DMLPIPE_CACHE_DIR": str(cache)}
    case.arena.start_scheduler()

    def folders(pid: int) -> list[Path]:
        return [path for path in cache.rglob(f"work/*-{pid}-*") if path.is_dir()]

    first = case.arena.start_worker(environment=places)
    case.arena.wait_for_slots(1)
    assert folders(first.pid)
    os.kill(first.pid, signal.SIGKILL)
    first.wait(LIMIT_S)
    second = case.arena.start_worker(environment=places)
    wait_for(lambda: folders(second.pid))
    assert folders(first.pid) == []
    case.arena.wait_for_slots(1)
    second.terminate()
    second.wait(LIMIT_S)
    assert list(cache.rglob("work/*")) == []
    assert list(temporary.iterdir()) == []
