"""kill -9 of real processes at any moment, again and again, on one store: what was finished is there, no more."""

from __future__ import annotations

import gc
import os
import random
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dmlpipe.storage.gc.run import collect
from dmlpipe.storage.leftovers import TEMPORARY
from dmlpipe.storage.store import Store

_STUCK_S = 60.0

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@dataclass(frozen=True)
class Step:
    """One command of the process that will be killed."""

    kind: str
    number: int

    def carry_out(self, store: Store) -> None:
        name = f"{self.number:06}"
        match self.kind:
            case "put":
                store.put(
                    "r", (name, content(self.number)), (f"large/{self.number % 3}", content(self.number, 1 << 20))
                )
            case "merge":
                store.create_branch("r", f"b{name}", "master")
                store.put("r", (f"merged/{name}", content(self.number)), branch=f"b{name}")
                store.merge("r", f"b{name}")
                store.delete_branch("r", f"b{name}")
            case "delete":
                with store.commit("r") as session:
                    session.delete(f"/{self.number - 5:06}", missing_ok=True)
            case "open":
                opened = store.open_commit("r")
                for writer_number in range(2):
                    with opened.writer() as writer:
                        writer.write(f"open/{name}-{writer_number}", content(self.number))
                opened.commit()
            case "gc":
                collect(store, grace_s=0)
            case _:
                store.create_tag("r", "t", "master", force=True)

    def apply(self, files: dict[str, bytes]) -> dict[str, bytes]:
        """What the head holds after it."""
        name, after = f"{self.number:06}", dict(files)
        match self.kind:
            case "put":
                after[name] = content(self.number)
                after[f"large/{self.number % 3}"] = content(self.number, 1 << 20)
            case "merge":
                after[f"merged/{name}"] = content(self.number)
            case "delete":
                after.pop(f"{self.number - 5:06}", None)
            case "open":
                after |= {f"open/{name}-{writer}": content(self.number) for writer in range(2)}
        return after


def content(number: int, size: int = 500) -> bytes:
    return random.Random(number).randbytes(size)


def steps(start: int) -> Iterator[Step]:
    rng = random.Random(start)
    for number in range(start, start + 1000):
        yield Step(rng.choice(["put", "put", "put", "merge", "delete", "open", "gc", "tag"]), number)


@dataclass
class Victim:
    """A process that carries out steps until it is killed, and tells which it began and which it finished."""

    root: Path
    cache: Path
    start: int
    done: list[Step] = field(default_factory=list)
    pending: Step | None = None

    def run(self, after: int, linger_s: float) -> None:
        """Kill it so many seconds after it finished so many steps."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            try:
                store = Store.open(self.root, cache_dir=self.cache)
                for step in steps(self.start):
                    os.write(writing, b"b")
                    step.carry_out(store)
                    os.write(writing, b"d")
            finally:
                os._exit(1)
        os.close(writing)
        heard = b""
        try:
            deadline = time.monotonic() + _STUCK_S
            while heard.count(b"d") < after and select.select([reading], [], [], deadline - time.monotonic())[0]:
                part = os.read(reading, 4096)
                assert part, f"the process ended by itself after {heard!r}"
                heard += part
            select.select([], [], [], linger_s)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        while part := os.read(reading, 4096):
            heard += part
        os.close(reading)
        planned = list(steps(self.start))
        self.done = planned[: heard.count(b"d")]
        self.pending = planned[len(self.done)] if heard.endswith(b"b") else None


def loop(tmp_path: Path, kills: int) -> int:
    """Kill so many processes, check after each; return how many steps they finished."""
    rng = random.Random(kills)
    root, cache = tmp_path / "store", tmp_path / "cache"
    store = Store.init(root, cache_dir=cache)
    store.put("r", ("first", b"1"))
    files: dict[str, bytes] = {"first": b"1"}
    finished = 0
    for kill in range(kills):
        victim = Victim(root, cache, start=kill * 1000 + 10)
        victim.run(after=rng.randrange(3), linger_s=rng.random() * 0.03)
        for step in victim.done:
            files = step.apply(files)
        finished += len(victim.done)
        seen = Store.open(root, cache_dir=cache)
        head = seen["r"]
        now = {info.path[1:]: head.read_bytes(info.path) for info in head.ls(recursive=True)}
        if now != files and victim.pending is not None:
            files = victim.pending.apply(files)
        assert now == files, (kill, victim.pending)
        if kill % 20 == 19 or kill == kills - 1:
            report = seen.fsck()
            assert report.ok, (kill, report.problems)
            collect(seen, grace_s=0)
            gc.collect()  # of the stores that were opened here: each keeps some files open
            assert {info.path[1:]: seen["r"].read_bytes(info.path) for info in seen["r"].ls(recursive=True)} == files
        assert seen.put("next", ("n", str(kill)), create=True).read_text("n") == str(kill)
        assert list(root.glob(f"{TEMPORARY}*")) == []
    return finished


def test_processes_that_are_killed_lose_nothing_that_they_finished(tmp_path: Path) -> None:
    assert loop(tmp_path, 25) > 10


@pytest.mark.slow
def test_hundreds_of_killed_processes_lose_nothing(tmp_path: Path) -> None:
    assert loop(tmp_path, 220) > 100
