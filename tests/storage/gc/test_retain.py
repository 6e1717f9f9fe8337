from __future__ import annotations

import datetime
import os
import random
from pathlib import Path

import pytest

from dmlpipe.storage import records as r
from dmlpipe.storage.errors import ConflictError, InvalidInputError
from dmlpipe.storage.gc.retain import plan_delete, plan_retention, plan_squash
from dmlpipe.storage.gc.run import collect, look
from dmlpipe.storage.gc.usage import measure
from dmlpipe.storage.store import Store

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")


def noise(seed: int, size: int = 1000) -> bytes:
    """Content that does not compress."""
    return random.Random(seed).randbytes(size)


def puts(store: Store, count: int, repo: str = "images") -> list[str]:
    return [store.put(repo, ("a", noise(i)), ("same", noise(99))).id for i in range(count)]


def planned(store: Store, now: datetime.datetime = NOW) -> set[str]:
    records = plan_retention(store.refresh(), lambda commit: store.body(commit).parents, now=now)
    return {commit.id for record in records for commit in record.commits}


def test_without_a_rule_everything_is_kept(store: Store) -> None:
    puts(store, 3)
    assert planned(store, NOW + datetime.timedelta(days=10_000)) == set()


def test_the_last_of_each_branch_and_whatever_is_named_are_kept(store: Store) -> None:
    ids = puts(store, 6)
    store.publish([r.TagSet(repo="images", tag="v1", commit=ids[0])])
    store.create_branch("images", "old", f"images@{ids[1]}")
    store.publish([r.KeepSet(repo="images", last=2)])
    assert planned(store) == {ids[2], ids[3]}


def test_what_is_young_is_kept(store: Store) -> None:
    ids = puts(store, 3)
    store.publish([r.KeepSet(repo="images", days=7)])
    assert planned(store) == set()
    assert planned(store, NOW + datetime.timedelta(days=8)) == set(ids[:2])


def test_a_deleted_repo_goes_with_the_next_collection(store: Store) -> None:
    puts(store, 3)
    other = puts(store, 1, "other")
    store.delete_repo("images")
    foreseen = look(store, grace_s=0)
    done = collect(store, grace_s=0)
    assert done.dropped == 3
    assert done.swept.freed_bytes == foreseen.freed_bytes > 3000
    assert store.fsck().ok
    assert store[f"other@{other[0]}"].read_bytes("same") == noise(99)


def test_a_squashed_commit_leaves_those_that_followed_as_they_were(store: Store) -> None:
    ids = puts(store, 3)
    parents = lambda commit: store.body(commit).parents  # noqa: E731
    store.publish(lambda state: plan_squash(state, "images", ids[1], parents))
    assert store["images@master^"].id == ids[0]
    assert store["images"].read_bytes("a") == noise(2)
    with pytest.raises(InvalidInputError, match="is the head of master"):
        store.publish(lambda state: plan_squash(state, "images", ids[2], parents))
    collect(store, grace_s=0)
    assert store.fsck().ok


def test_deleting_takes_the_newest_commit_back(store: Store) -> None:
    ids = puts(store, 3)
    parents = lambda commit: store.body(commit).parents  # noqa: E731
    with pytest.raises(InvalidInputError, match="not the head"):
        store.publish(lambda state: plan_delete(state, "images", ids[1], parents))
    store.publish(lambda state: plan_squash(state, "images", ids[1], parents))
    store.publish(lambda state: plan_delete(state, "images", ids[2], parents))
    assert store["images"].id == ids[0]
    store.publish([r.TagSet(repo="images", tag="v1", commit=ids[0])])
    with pytest.raises(ConflictError, match="is tagged v1"):
        store.publish(lambda state: plan_delete(state, "images", ids[0], parents))


def test_leftovers_of_writers_that_died_are_removed_when_they_are_old(store: Store, tmp_path: Path) -> None:

    puts(store, 1)
    old, young = tmp_path / "store" / "nodes" / ".tmp-1-old", tmp_path / "store" / "nodes" / ".tmp-1-young"
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (1, 1))
    assert collect(store, grace_s=0).temporaries == 1
    assert (old.exists(), young.exists()) == (False, True)


def test_usage_tells_what_a_repo_alone_holds_from_what_it_shares(store: Store) -> None:
    store.put("one", ("shared", noise(1, 5000)), ("own", noise(2, 3000)))
    store.put("two", ("shared", noise(1, 5000)))
    store.create_branch("one", "dev")
    usage = measure(store.backend, store.nodes, store.refresh())
    repos = {held.name: held for held in usage.repos}
    assert repos["one"].unique >= 3000
    assert repos["one"].shared == repos["two"].shared == 5000
    branches = {held.name: held for held in usage.branches}
    assert branches["one@dev"].unique == 0
    assert usage.total == sum(size for _, size in store.backend.list("")) == usage.content + usage.other
    assert usage.total == sum(usage.parts.values())
    assert (usage.memory, usage.garbage) == (0, 0)


def test_usage_tells_what_only_the_past_needs_and_what_nothing_does(store: Store) -> None:
    store.put("one", ("big", noise(1, 5000)), ("kept", noise(2, 3000)))
    store.put("one", ("big", noise(3, 4000)))
    session = store.commit("one")
    session.write("aborted", noise(4, 2 << 20))
    session.abort()
    heard: dict[str, int] = {}

    def progress(what: str, count: int, size_bytes: int) -> None:
        heard[what] = heard.get(what, 0) + count

    usage = measure(store.backend, store.nodes, store.refresh(), progress=progress)
    (one,) = usage.repos
    assert (one.commits, one.files, one.size) == (2, 2, 7000)
    assert 5000 <= one.stored - one.heads < 6500
    assert usage.garbage == 2 << 20
    assert heard["objects"] == len(list(store.backend.list("")))
    assert heard["commits"] > 2
    assert next(iter(usage.parts)) == "objects"
