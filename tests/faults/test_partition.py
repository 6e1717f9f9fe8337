"""A worker in a network namespace of its own, whose line to the scheduler is cut in the middle of its leases."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.faults.arena import stored_datums, wait_for
from tests.faults.case import Case

pytestmark = pytest.mark.slow


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@dataclass
class Line:
    """Two hosts and the line between them."""

    space: str
    here: str
    there: str
    link: str

    def cut(self) -> None:
        assert ip("link", "set", self.link, "down").returncode == 0


@pytest.fixture
def line() -> Iterator[Line]:
    number = os.getpid() % 200 + 20
    made = Line(f"dml-{number}", f"10.98.{number}.1", f"10.98.{number}.2", f"dml{number}a")
    far = f"dml{number}b"
    try:
        added = ip("netns", "add", made.space)
    except FileNotFoundError:
        pytest.skip("there is no ip command (apt-get install iproute2)")
    if added.returncode:
        pytest.skip(f"no network namespaces here: {added.stderr.strip()}")
    steps = [
        ("link", "add", made.link, "type", "veth", "peer", "name", far),
        ("link", "set", far, "netns", made.space),
        ("addr", "add", f"{made.here}/24", "dev", made.link),
        ("link", "set", made.link, "up"),
        ("-n", made.space, "addr", "add", f"{made.there}/24", "dev", far),
        ("-n", made.space, "link", "set", far, "up"),
        ("-n", made.space, "link", "set", "lo", "up"),
    ]
    try:
        for step in steps:
            done = ip(*step)
            if done.returncode:
                pytest.skip(f"ip {' '.join(step)}: {done.stderr.strip()}")
        yield made
    finally:
        ip("link", "del", made.link)
        ip("netns", "del", made.space)


def test_the_leases_of_a_worker_that_was_cut_off_go_to_others(case: Case, line: Line) -> None:
    case.arena.host = line.here
    case.arena.start_scheduler(options=["--insecure"])
    case.arena.start_worker(options=["--host", line.here, "--insecure"])
    far = case.arena.start_worker(
        before=["ip", "netns", "exec", line.space], options=["--host", line.there, "--insecure"]
    )
    case.arena.wait_for_slots(2)
    kept: set[str] = set()

    def strike() -> bool:
        line.cut()
        kept.update(stored_datums(case.store))
        return True

    executor = case.arena.executor(case.store)
    executor.strike = strike
    assert case.store.run(executor=executor).ok
    assert kept
    # It finds out by itself, stores what it had computed, and ends.
    wait_for(lambda: far.poll() is not None)
    assert far.returncode == 1
    case.check(kept)
