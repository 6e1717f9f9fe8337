from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmlpipe.storage import host
from dmlpipe.storage.gc import token
from dmlpipe.storage.host import has_ended, process_start


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as made:
        yield made
        made.kill()


def test_a_process_is_told_from_a_later_one_of_its_number(process: subprocess.Popen[bytes]) -> None:
    started = process_start(process.pid)
    assert started
    assert not has_ended(process.pid, started)
    assert has_ended(process.pid, f"{int(started) - 1}"), "another one had its number"
    assert not has_ended(process.pid, "")


def test_one_that_was_killed_has_ended_when_somebody_has_asked(process: subprocess.Popen[bytes]) -> None:
    started = process_start(process.pid) or ""
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert process_start(process.pid) is None
    assert not has_ended(process.pid, started)
    assert process.wait() == -signal.SIGKILL
    assert has_ended(process.pid, started)
    assert process_start(process.pid) is None


def test_a_process_that_the_system_hides_has_not_ended(
    process: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = token.make_token().rpartition("/")[0].rpartition("/")[0].rpartition("/")[0]
    started = process_start(process.pid)
    its = f"{sweep}/{process.pid}/{started}/0"
    machine = token._machine()
    # As /proc looks where it is mounted with hidepid, if the process is another user's.
    monkeypatch.setattr(host, "_PROC", tmp_path)
    monkeypatch.setattr(token, "_machine", lambda: machine)
    assert process_start(process.pid) == ""
    assert not has_ended(process.pid, started or "")
    assert not token.is_gone(its), "its sweep would be closed while it goes on"
    process.kill()
    process.wait()
    assert token.is_gone(its)
