"""Threads that do not keep their process from ending."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from dmlpipe.worker.threads import DaemonThreads

LIMIT_S = 30.0


def test_calls_wait_for_a_free_thread_and_their_errors_are_told() -> None:
    opened, names = threading.Event(), set()

    def call(number: int) -> int:
        names.add(threading.current_thread().name)
        assert opened.wait(LIMIT_S)
        if number == 3:
            raise ValueError("three")
        return number

    with DaemonThreads(2, "some") as threads:
        futures = [threads.submit(call, number) for number in range(6)]
        opened.set()
        assert [future.result(LIMIT_S) for future in futures if future is not futures[3]] == [0, 1, 2, 4, 5]
        with pytest.raises(ValueError, match="three"):
            futures[3].result(LIMIT_S)
    assert names <= {"some_0", "some_1"}
    with pytest.raises(RuntimeError, match="shutdown"):
        threads.submit(call, 0)


def test_a_call_that_never_returns_does_not_hold_up_the_end() -> None:
    script = """
import threading
from dmlpipe.worker.threads import DaemonThreads
begun = threading.Event()
DaemonThreads(1).submit(lambda: (begun.set(), threading.Event().wait()))
begun.wait()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=LIMIT_S)
