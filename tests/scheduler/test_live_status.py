"""`status` says where a job stands that another process drives."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import dmlpipe as dml
from dmlpipe.scheduler.jobs import epoch
from dmlpipe.scheduler.report import JobAdvanced
from dmlpipe.storage.records import ControllerTake

DAG = """
import time
from pathlib import Path
import dmlpipe as dml

dag = dml.DAG("live")


@dag.pipeline(dml.files("texts", "/{stem}.txt"))
def slow(texts: bytes, stem: str) -> dml.Files:
    gate = Path(GATE)
    while stem != "0" and not gate.exists():
        time.sleep(0.01)
    return {stem: texts}
"""


def test_status_elsewhere_shows_the_numbers_of_a_running_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch, "LOCAL_BEAT_S", 0.05)
    gate = tmp_path / "gate"
    (tmp_path / "dag.py").write_text(DAG.replace("GATE", repr(str(gate))))
    store = dml.init(tmp_path / ".dmlpipe", cache_dir=tmp_path / "cache")
    store.put("texts", *((f"{number}.txt", b"%d" % number) for number in range(5)))
    store.submit(tmp_path / "dag.py")
    running = threading.Thread(
        target=lambda: dml.open(tmp_path / ".dmlpipe", cache_dir=tmp_path / "cache").run(slots=1)
    )
    running.start()
    try:
        seen = None
        for _ in range(1200):
            (each,) = store.status().pipelines
            seen = each.progress
            if seen is not None and seen.run == 1:
                break
            gate.parent.stat()
            threading.Event().wait(0.05)
        assert seen is not None
        assert (seen.pipeline, seen.total, seen.run, seen.failed) == ("slow", 5, 1, 0)
        plain = store.status().to_dict()["pipelines"][0]
        assert plain["progress"]["total"] == 5
    finally:
        gate.touch()
        running.join(60)
    (each,) = store.status().pipelines
    assert (each.state, each.progress) == ("idle", None)


def test_numbers_of_an_earlier_controller_are_not_shown(tmp_path: Path) -> None:
    store = dml.init(tmp_path / ".dmlpipe", cache_dir=tmp_path / "cache")
    advanced = JobAdvanced(job="j", pipeline="p", total=2, run=1, skipped=0, failed=0, rate=1.0, left_s=1.0)
    import msgspec

    store.backend.put(epoch.HEARTBEAT_KEY, msgspec.json.encode(epoch.Beat(epoch=1, beat=1, jobs=(advanced,))))
    assert epoch.progress_of(store.backend, 1) == {"j": advanced}
    assert epoch.progress_of(store.backend, 2) == {}
    # A heartbeat as it was before jobs stood in it.
    store.backend.put(epoch.HEARTBEAT_KEY, b'{"epoch":3,"beat":7}')
    assert epoch.progress_of(store.backend, 3) == {}
    assert isinstance(epoch.take(None, "run"), ControllerTake)
