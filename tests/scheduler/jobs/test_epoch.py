from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dmlpipe.scheduler.jobs import epoch
from dmlpipe.scheduler.jobs.epoch import HEARTBEAT_KEY, SILENCE_S, Beat, is_alive
from dmlpipe.storage import host
from dmlpipe.storage.actor import host_name
from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.host import boot_id, process_start
from dmlpipe.storage.records import ControllerState


class Time:
    """A clock that goes on while somebody pauses; the heart beats meanwhile, if it does."""

    def __init__(self, backend: MemoryBackend, *, beats: bool) -> None:
        self.now = 0.0
        self.backend = backend
        self.beats = beats

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds
        if self.beats:
            self.backend.put(HEARTBEAT_KEY, msgspec.json.encode(Beat(epoch=3, beat=int(self.now * 10))))


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as made:
        yield made
        made.kill()


def holder(pid: int, started: str) -> ControllerState:
    return ControllerState(
        epoch=3, host=host_name(), boot=boot_id(), pid=pid, started=started, kind="run", n=1, ended=False
    )


def test_a_controller_of_this_host_is_known_by_its_process_at_once(process: subprocess.Popen[bytes]) -> None:
    backend = MemoryBackend("epoch-process")
    time = Time(backend, beats=False)
    alive = holder(process.pid, process_start(process.pid) or "")
    assert is_alive(alive, backend, clock=time, pause=time.pause)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(alive, backend, clock=time, pause=time.pause)
    assert time.now == 0


@pytest.mark.parametrize("beats", [True, False])
def test_one_that_the_system_hides_lives_while_its_heart_beats(
    process: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beats: bool
) -> None:
    backend = MemoryBackend("epoch-hidden")
    time = Time(backend, beats=beats)
    hidden = holder(process.pid, process_start(process.pid) or "")
    boot = boot_id()
    # As /proc looks where it is mounted with hidepid, if the process is another user's.
    monkeypatch.setattr(host, "_PROC", tmp_path)
    monkeypatch.setattr(epoch, "boot_id", lambda: boot)
    assert is_alive(hidden, backend, clock=time, pause=time.pause) is beats
    assert time.now >= (0.1 if beats else SILENCE_S)
    process.kill()
    process.wait()
    before = time.now
    assert not is_alive(hidden, backend, clock=time, pause=time.pause)
    assert time.now == before, "that it has ended is told at once"
