"""Every command, dying at every one of its writes: afterwards the store is as before it or as after it, and whole.

Dying right after a write leaves what dying right before the next one does: one of the two is enumerated.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dmlpipe.storage.backend import Backend
from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.errors import DmlpipeError
from dmlpipe.storage.gc.retain import plan_delete, plan_squash
from dmlpipe.storage.gc.run import collect
from dmlpipe.storage.layout import kind_of
from dmlpipe.storage.records import KeepSet
from dmlpipe.storage.state import State
from dmlpipe.storage.store import Store
from dmlpipe.storage.sync import clone, pull, push, transfer
from dmlpipe.storage.testing import Stopped, StoppingBackend

_names = itertools.count()
Command = Callable[[Store], object]


def noise(seed: int, size: int = 300) -> bytes:
    return random.Random(seed).randbytes(size)


def copy_of(backend: Backend) -> MemoryBackend:
    """An independent copy of what is stored."""
    copy = MemoryBackend(f"every-write-{next(_names)}")
    for key, _ in backend.list():
        copy.put(key, backend.get(key))
    return copy


def on(backend: Backend, like: Store) -> Store:
    return Store(backend, like.info, cache_dir=like.cache_dir)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Some history, with a checkpoint due among the next writes, and something to collect."""
    store = Store.init(f"memory://every-write-{next(_names)}", cache_dir=tmp_path_factory.mktemp("cache"))
    for number in range(24):
        store.put("r", (f"f/{number}", noise(number)))
    store.create_branch("r", "side", store["r@master^3"].id)
    store.put("r", ("side/1", noise(100)), branch="side")
    store.put("r", ("big", noise(101, 1 << 20)))
    store.create_tag("r", "v1", "side")
    store.put("gone", ("x", noise(102)))
    store.delete_repo("gone")
    assert store.refresh().n == 29
    return store


def parents(store: Store) -> Callable[[str], tuple[str, ...]]:
    return lambda commit: store.body(commit).parents


def transaction(store: Store) -> None:
    with store.transaction() as both:
        both.commit("r").write("t", noise(1))
        both.commit("new", create=True).write("t", noise(2))


def open_commit(store: Store) -> None:
    opened = store.open_commit("r")
    for number in range(2):
        with opened.writer() as writer:
            writer.write(f"o/{number}", noise(200 + number))
    opened.commit()


def aborted(store: Store) -> None:
    opened = store.open_commit("r")
    with opened.writer() as writer:
        writer.write("o", noise(300))
    opened.abort()


def edits(store: Store) -> None:
    with store.commit("r") as session:
        session.delete("/f/3")
        session.copy("/f/4", "/copied")
        session.write("/f/5", b"more", append=True)


def kept(store: Store) -> None:
    store.publish([KeepSet(repo="r", last=3)])
    collect(store, grace_s=0)


COMMANDS: dict[str, Command] = {
    "put": lambda store: store.put("r", ("new/small", noise(1)), ("new/big", noise(2, 1 << 20)), ("tiny", b"t")),
    "put-new-repo": lambda store: store.put("fresh", ("a", noise(3)), create=True),
    "edits": edits,
    "merge": lambda store: store.merge("r", "side"),
    "create-branch": lambda store: store.create_branch("r", "more", store["r@master^2"].id),
    "set-branch": lambda store: store.set_branch("r", "side", store["r@master^2"].id),
    "delete-branch": lambda store: store.delete_branch("r", "side"),
    "create-tag": lambda store: store.create_tag("r", "v2", "master"),
    "move-tag": lambda store: store.create_tag("r", "v1", "master", force=True),
    "delete-tag": lambda store: store.delete_tag("r", "v1"),
    "squash": lambda s: s.publish(lambda state: plan_squash(state, "r", s["r@master^2"].id, parents(s))),
    "delete-commit": lambda s: s.publish(lambda state: plan_delete(state, "r", s["r"].id, parents(s))),
    "create-repo": lambda store: store.create_repo("empty"),
    "delete-repo": lambda store: store.delete_repo("r"),
    "transaction": transaction,
    "open-commit": open_commit,
    "aborted": aborted,
    "gc": lambda store: collect(store, grace_s=0),
    "retention": kept,
}


def snapshot(state: State, store: Store) -> dict[str, Any]:
    """What people see; commits by their trees, since ids hold times."""
    found: dict[str, Any] = {}
    for repo, _ in state.repos():
        trees = {name: store.body(commit).tree for name, commit in state.branches(repo).items()}
        tags = {name: store.body(commit).tree for name, commit in state.tags(repo).items()}
        commits = sorted(store.body(commit).tree for commit in state.commits_by_prefix(repo, ""))
        found[repo] = (trees, tags, commits)
    return found


def states_on_the_way(backend: Backend, like: Store, since: int) -> Iterator[dict[str, Any]]:
    """What people see after each entry from `since` on; a command may have several."""
    store = on(backend, like)
    state = State()
    for entry, entry_hash in store.ledger.entries():
        state.apply(entry, entry_hash)
        if entry.n >= since:
            try:
                yield snapshot(state, store)
            except DmlpipeError:
                continue  # what it dropped since is collected: nobody sees that state again


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_may_die_at_any_write(base: Store, command: str) -> None:
    whole = copy_of(base.backend)
    COMMANDS[command](on(whole, base))
    assert [key for key, _ in whole.list() if kind_of(key) is None] == [], "say in storage/layout.py what it is"
    allowed = list(states_on_the_way(whole, base, base.state.n))
    first, last = snapshot(base.state, base), allowed[-1]
    for writes in itertools.count():
        backend = copy_of(base.backend)
        stopping = StoppingBackend(backend, writes)
        try:
            COMMANDS[command](on(stopping, base))
        except Stopped:
            pass
        seen = on(backend, base)
        now = snapshot(seen.refresh(), seen)
        assert now in (first, *allowed), writes
        report = seen.fsck()
        assert report.ok, (writes, report.problems)
        # The next command works, and so does the same one again where it was not done.
        if now == first != last:
            COMMANDS[command](on(backend, base))
            assert snapshot(on(backend, base).refresh(), seen) == last
        final = on(backend, base)
        made = final.put("next", ("x", noise(writes)), create=True)
        assert made.read_bytes("x") == noise(writes)
        collect(on(backend, base), grace_s=0)
        assert on(backend, base).fsck().ok
        if not stopping.dead:
            assert now == last
            return


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # a probe's threads die too
@pytest.mark.parametrize("way", ["clone", "push", "pull"])
def test_a_transfer_may_die_at_any_write_and_goes_on(base: Store, tmp_path: Path, way: str) -> None:
    """The copy is at every moment a whole store as of some entry of the original."""
    started = MemoryBackend(f"every-write-{next(_names)}")
    if way != "clone":
        behind = copy_of(base.backend)
        clone(behind, started.url, cache_dir=tmp_path)
    newer = on(copy_of(base.backend), base)
    if way == "clone":
        newer = Store.init(f"memory://every-write-{next(_names)}", cache_dir=tmp_path)
        newer.put("r", ("first", noise(1)))
    for number in range(3):
        newer.put("r", (f"late/{number}", noise(400 + number)), ("huge", noise(number, 1 << 20)))
    chain = [entry_hash for _, entry_hash in newer.ledger.entries()]
    for writes in itertools.count():
        backend = copy_of(started)
        stopping = StoppingBackend(backend, writes)
        with pytest.MonkeyPatch.context() as patch:
            places: dict[str, Backend] = {"memory://stopping": stopping, newer.url: newer.backend}
            patch.setattr(transfer, "open_backend", lambda url, options=None, places=places: places[url])
            try:
                if way == "clone":
                    clone(newer.backend, "memory://stopping", cache_dir=tmp_path)
                elif way == "push":
                    push(newer, "memory://stopping")
                else:
                    pull(Store(stopping, base.info, cache_dir=tmp_path), newer.url)
            except Stopped:
                pass
        if backend.size("dmlpipe.json") is not None:
            seen = on(backend, base)
            n = seen.refresh().n
            assert n == -1 or seen.state.chain == chain[n]
            assert seen.fsck().ok
        if way == "clone":
            clone(newer.backend, backend.url, cache_dir=tmp_path)
        else:
            push(newer, backend.url)
        done = on(backend, base)
        assert done.refresh().chain == chain[-1]
        assert done["r"].read_bytes("huge") == noise(2, 1 << 20)
        assert done.fsck().ok
        if not stopping.dead:
            return
