"""kill -9 in the middle of clone, push and pull: the copy is whole at every moment, and the same command goes on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from dmlpipe.storage.backend import open_backend
from dmlpipe.storage.store import Store
from dmlpipe.storage.sync import Transfer, clone, pull, push

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

WAYS = ("clone", "push", "pull")


def carry_out(way: str, origin: Path, copy: Path, cache: Path) -> Transfer:
    if way == "clone":
        return clone(open_backend(str(origin)), str(copy), cache_dir=cache)
    if way == "push":
        return push(Store.open(origin, cache_dir=cache), str(copy))
    return pull(Store.open(copy, cache_dir=cache), str(origin))


def killed(way: str, origin: Path, copy: Path, cache: Path, after_s: float) -> bool:
    """Begin a transfer in a process and kill it; return whether it was still at it."""
    child = os.fork()
    if child == 0:
        try:
            carry_out(way, origin, copy, cache)
        finally:
            os._exit(0)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def more(store: Store, number: int, files: int) -> None:
    rng = random.Random(number)
    for commit in range(2):
        store.put(
            "r",
            *((f"{number}/{commit}/{file}", rng.randbytes(700_000 + 900_000 * (file % 2))) for file in range(files)),
        )


def check(origin: Store, copy: Path, cache: Path, *, whole: bool) -> None:
    """The copy is the original as of some entry; `whole`: as of the last."""
    seen = Store.open(copy, cache_dir=cache)
    state = seen.refresh()
    chain = [entry_hash for _, entry_hash in origin.ledger.entries()]
    assert state.n == -1 or state.chain == chain[state.n]
    report = seen.fsck()
    assert report.ok, report.problems
    if whole:
        assert state.n == len(chain) - 1
        for info in origin["r"].ls(recursive=True):
            assert seen["r"].value(info.path) == origin["r"].value(info.path)
    for head in list(state.history("r"))[-1:] if state.repo("r") is not None else []:
        files = [info.path for info in seen[f"r@{head.commit}"].ls(recursive=True) if not info.is_folder]
        for path in files[:2]:
            assert seen[f"r@{head.commit}"].read_bytes(path) == origin[f"r@{head.commit}"].read_bytes(path)


def loop(tmp_path: Path, kills: int, files: int) -> Counter[str]:
    """Kill so many transfers, check, finish each; return what happened how often."""
    rng = random.Random(kills)
    place, cache = tmp_path / "origin", tmp_path / "cache"
    origin = Store.init(place, cache_dir=cache)
    more(origin, 0, files)
    began = time.monotonic()
    carry_out("clone", place, tmp_path / "copy", cache)
    takes_s = time.monotonic() - began
    counts: Counter[str] = Counter()
    for number in range(1, kills + 1):
        way = WAYS[number % 3]
        copy = tmp_path / (f"new-{number}" if way == "clone" else "copy")
        more(origin, number, files if way != "clone" else 1)
        counts["killed"] += killed(way, place, copy, cache, rng.random() * takes_s)
        if (copy / "dmlpipe.json").exists():
            check(origin, copy, cache, whole=False)
        done = carry_out(way, place, copy, cache)
        counts["found"] += done.found
        counts["resumed"] += bool(done.found)
        check(origin, copy, cache, whole=True)
        if way == "clone":
            shutil.rmtree(copy)
    return counts


def test_transfers_that_are_killed_are_whole_and_go_on(tmp_path: Path) -> None:
    counts = loop(tmp_path, 9, files=4)
    assert counts["killed"] > 3


@pytest.mark.slow
def test_two_hundred_transfers_that_are_killed_are_whole_and_go_on(tmp_path: Path) -> None:
    counts = loop(tmp_path, 201, files=2)
    assert counts["killed"] > 80
    assert counts["resumed"] > 20, "what one had copied before it died, the next one found"
