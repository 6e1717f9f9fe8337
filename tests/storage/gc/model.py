"""Writers and collectors on one store in memory, and what must be true of it afterwards."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from dmlpipe.storage import records as r
from dmlpipe.storage.backend import Backend
from dmlpipe.storage.errors import ConflictError, ErrorCode, NotFoundError
from dmlpipe.storage.gc.sweep import Collector
from dmlpipe.storage.info import read_info
from dmlpipe.storage.state import State
from dmlpipe.storage.store import Store
from dmlpipe.storage.testing.schedule import Schedule, YieldingBackend

ALLOWED = {
    ErrorCode.NO_COMMIT,
    ErrorCode.COLLECTED,
    ErrorCode.NO_FILE,
    ErrorCode.NO_REPO,
    ErrorCode.NO_BRANCH,
    ErrorCode.NOT_FOUND,
    ErrorCode.CONFLICT,
}
"""What an actor may hear whose commit another one drops."""

BIG = 1 << 20
"""From here on a blob is an object of its own."""

CONTENTS = [b"%d" % i * 100 for i in range(8)] + [random.Random(i).randbytes(BIG) for i in range(2)]
"""So few that everybody finds what others stored, and what a collector is about to take."""


def new_store() -> Store:
    return Store.init(f"memory://gc-{uuid.uuid4().hex}")


def open_on(backend: Backend, cache: Path) -> Store:
    return Store(backend, read_info(backend), cache_dir=cache)


def collector(store: Store, grace_s: float = 0) -> Collector:
    return Collector(store.backend, store.nodes, store.objects, store.ledger, grace_s=grace_s)


def drop(store: Store, repo: str, why: str = "") -> int:
    """Drop every commit of a repo that nothing holds."""

    def build(state: State) -> Sequence[r.Record]:
        now = state
        held = {*now.branches(repo).values(), *now.tags(repo).values()}
        ids = [commit for commit in now.commits_by_prefix(repo, "") if commit not in held]
        found.extend(ids)
        dropped = tuple(r.Dropped(id=commit) for commit in ids)
        return [r.CommitDrop(repo=repo, commits=dropped, why=why)] if ids else []

    found: list[str] = []
    store.ledger.try_append(build)
    return len(found)


class World:
    """One store, its model (commit to files), and actors on it."""

    def __init__(self, seed: int, cache: Path) -> None:
        self.rng = random.Random(seed)
        self.first = new_store()
        self.schedule = Schedule(self.rng)
        self.cache = cache
        self.files: dict[tuple[str, str], dict[str, bytes]] = {}
        self.collected = 0
        self.retried = 0

    def open(self) -> Store:
        return open_on(YieldingBackend(self.first.backend, self.schedule), self.cache)

    def prepare(self) -> None:
        """Leave garbage of every kind: dropped commits, and what was never published."""
        for i in range(3):
            self.put(self.first, "shared", [self.rng.randrange(len(CONTENTS)) for _ in range(4)], mirror=bool(i % 2))
        drop(self.first, "shared")
        with_nothing = self.first.commit("shared")
        with_nothing.put([("lost.bin", CONTENTS[self.rng.randrange(len(CONTENTS))])])
        with_nothing.writer.flush()
        with_nothing.abort()

    def put(self, store: Store, repo: str, picks: list[int], *, mirror: bool) -> None:
        files: dict[str, bytes] = {f"{i}.bin": CONTENTS[i] for i in picks}
        for _ in range(10):
            try:
                view = store.put(repo, *files.items(), mirror=mirror)
            except ConflictError as error:
                if error.code is not ErrorCode.COLLECTED:
                    raise
                self.retried += 1
                continue
            there = {info.path[1:]: store.objects.read(info.value) for info in view.ls(recursive=True) if info.value}
            assert files.items() <= there.items()
            self.files[repo, view.id] = there
            return
        raise AssertionError("collected ten times in a row")

    def writer(self, repo: str, steps: int) -> Callable[[], None]:
        def act() -> None:
            store = self.open()
            for _ in range(steps):
                choice = self.rng.random()
                picks = [self.rng.randrange(len(CONTENTS)) for _ in range(2)]
                try:
                    if choice < 0.6:
                        self.put(store, repo, picks, mirror=choice < 0.3)
                    elif choice < 0.8:
                        drop(store, repo)
                    else:
                        with store.commit(repo) as session:
                            session.copy("shared@master:/", "/copied")
                except (NotFoundError, ConflictError) as error:
                    # A commit that another actor dropped, or content that was collected, under our hands: said so.
                    if error.code not in ALLOWED:
                        raise

        return act

    def collect(self, times: int = 1) -> Callable[[], None]:
        def act() -> None:
            store = self.open()
            for _ in range(times):
                try:
                    self.collected += collector(store).collect().objects
                except ConflictError:
                    continue

        return act

    def check(self) -> None:
        """Everything published is there, byte for byte; nothing that the ledger refers to is missing."""
        store = open_on(self.first.backend, self.cache)
        report = store.fsck()
        assert report.ok, report.problems
        for (repo, commit), files in self.files.items():
            if store.state.commit(repo, commit) is not None:
                view = store[f"{repo}@{commit}"]
                assert {info.path[1:]: view.read_bytes(info.path) for info in view.ls(recursive=True)} == files
