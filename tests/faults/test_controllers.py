"""Two controllers: started at once, or one frozen and woken after the other took over. One of them counts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter

import pytest

from dmlpipe.scheduler.store import Store
from dmlpipe.storage.records import JobDone
from tests.faults.arena import LIMIT_S, ROOT, stored_datums, trees
from tests.faults.case import Case


def begin(case: Case, point: str = "", **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.killed_run", case.arena.url, point],
        cwd=ROOT,
        env={**os.environ, "DMLPIPE_CACHE_DIR": str(case.folder / "cache"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    return out.strip()


def published(store: Store) -> Counter[str]:
    """How often each pipeline's job was recorded as done by the controller of the epoch that then held."""
    return Counter(job.pipeline for _, job in store.refresh().jobs() if job.state == "done")


def test_of_two_that_start_at_once_one_drives(case: Case) -> None:
    both = [begin(case), begin(case)]
    said = [end(process) for process in both]
    assert sorted(text.split(":")[0] for text in said) in (["HeldError", "ok"], ["ok", "ok"]), said
    assert published(case.store) == {"work": 1, "total": 1}
    # Nothing was computed by two.
    case.check(set(case.data["numbers"]))


@pytest.mark.parametrize(
    "point",
    [
        "before-the-entry",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("before-the-first-segment", "after-a-segment", "during-the-fold", "after-the-start")
        ),
    ],
)
def test_one_that_was_frozen_and_wakes_after_another_took_over_writes_nothing_that_counts(
    case: Case, point: str
) -> None:
    frozen = begin(case, point, STRIKE="STOP")
    try:
        assert frozen.stdout is not None
        assert frozen.stdout.readline() == "frozen\n"
        kept = stored_datums(case.store)
        # From another host: nobody can say whether the frozen one lives, its heartbeat has stopped.
        assert end(begin(case, OTHER_HOST="another-boot")) == "ok"
        before = trees(case.store)
        entries = case.store.refresh().n
        assert published(case.store) == {"work": 1, "total": 1}
        os.kill(frozen.pid, signal.SIGCONT)
        assert end(frozen).startswith(("HeldError", "ClusterError", "ok"))
    finally:
        if frozen.poll() is None:
            os.kill(frozen.pid, signal.SIGKILL)
        frozen.communicate(timeout=LIMIT_S)
    assert trees(case.store) == before
    assert published(case.store) == {"work": 1, "total": 1}
    late = [record for entry, _ in case.store.ledger.entries(entries + 1) for record in entry.recs]
    assert not any(isinstance(record, JobDone) for record in late)
    case.check(kept)
