from __future__ import annotations

import itertools
import pickle

import pytest

from dmlpipe.storage.errors import ConflictError, InvalidInputError, NotFoundError, ReadOnlyError
from dmlpipe.storage.records import PipelineSet, RepoCreate
from dmlpipe.storage.sessions.branch_merge import MergeConflictError, MergeKind
from dmlpipe.storage.store import Store

_count = itertools.count()


@pytest.fixture
def store() -> Store:
    """A store whose branch `side` of `r` parted from master."""
    made = Store.init(f"memory://branch-merge-{next(_count)}")
    made.put("r", ("a", "base"), ("b", "base"))
    made.create_branch("r", "side")
    return made


def read(store: Store, ref: str = "r") -> dict[str, str]:
    return {info.path: store[ref].read_text(info.path) for info in store[ref].ls(recursive=True)}


def test_a_merge_has_two_parents_and_what_both_changed(store: Store) -> None:
    ours = store.put("r", ("a", "ours, longer"))
    theirs = store.put("r", ("b", "theirs"), ("n/c", "new"), branch="side")
    result = store.merge("r", "side", message="bring it in")
    assert (result.kind, result.taken, result.conflicts) == (MergeKind.MERGED, 2, ())
    assert result.commit == store["r"]
    assert result.commit.parents == (ours.id, theirs.id)
    assert result.commit.message == "bring it in"
    assert read(store) == {"/a": "ours, longer", "/b": "theirs", "/n/c": "new"}
    assert (result.commit.files, result.commit.size) == (3, sum(len(text) for text in read(store).values()))


def test_the_commits_of_either_side_are_a_base_afterwards(store: Store) -> None:
    store.put("r", ("a", "ours"))
    store.put("r", ("b", "theirs"), branch="side")
    store.merge("r", "side")
    assert store.merge("r", "side").kind is MergeKind.UP_TO_DATE
    store.put("r", ("b", "theirs again"), branch="side")
    assert store.merge("r", "side").kind is MergeKind.MERGED
    assert read(store) == {"/a": "ours", "/b": "theirs again"}
    assert store.merge("r", "master", into="side").kind is MergeKind.FAST_FORWARD
    assert store["r@side"] == store["r"]


def test_a_source_that_follows_the_head_moves_the_branch(store: Store) -> None:
    new = store.put("r", ("c", "new"), branch="side")
    assert store.merge("r", "side", dry_run=True).taken == 1
    result = store.merge("r", "side")
    assert (result.kind, result.commit, result.taken) == (MergeKind.FAST_FORWARD, new, 1)


def test_a_merge_may_always_be_a_commit(store: Store) -> None:
    head, new = store["r"], store.put("r", ("c", "new"), branch="side")
    result = store.merge("r", "side", fast_forward=False)
    assert result.kind is MergeKind.MERGED
    assert result.commit.parents == (head.id, new.id)
    assert result.commit.tree == new.tree


def test_a_conflict_names_its_paths_and_writes_nothing(store: Store) -> None:
    store.put("r", ("a", "ours"), ("x", "file"))
    store.put("r", ("a", "theirs"), ("x/y", "folder"), ("d", "new"), branch="side")
    before, objects = store.refresh().n, sorted(store.backend.list())
    with pytest.raises(MergeConflictError, match="conflict in /a, /x") as caught:
        store.merge("r", "side")
    assert [each.path for each in caught.value.conflicts] == ["/a", "/x"]
    assert pickle.loads(pickle.dumps(caught.value)).conflicts == caught.value.conflicts
    assert (store.refresh().n, sorted(store.backend.list())) == (before, objects)


@pytest.mark.parametrize(("strategy", "a", "x"), [("ours", "ours", "/x"), ("theirs", "theirs", "/x/y")])
def test_one_side_may_be_preferred(store: Store, strategy: str, a: str, x: str) -> None:
    store.put("r", ("a", "ours"), ("x", "file"))
    store.put("r", ("a", "theirs"), ("x/y", "folder"), ("d", "new"), branch="side")
    result = store.merge("r", "side", strategy=strategy)
    assert [each.path for each in result.conflicts] == ["/a", "/x"]
    found = read(store)
    assert (found["/a"], found["/d"]) == (a, "new")
    assert {path for path in found if path.startswith("/x")} == {x}
    assert result.commit.size == sum(len(text) for text in found.values())


def test_histories_merged_into_each_other_have_two_bases(store: Store) -> None:
    store.put("r", ("a", "ours"))
    store.put("r", ("b", "theirs"), branch="side")
    ours, theirs = store["r"].id, store["r@side"].id
    store.merge("r", theirs)
    store.merge("r", ours, into="side")
    store.put("r", ("c", "1"))
    store.put("r", ("d", "1"), branch="side")
    assert store.merge("r", "side").kind is MergeKind.MERGED
    assert read(store) == {"/a": "ours", "/b": "theirs", "/c": "1", "/d": "1"}


def test_histories_with_nothing_in_common_merge_from_nothing(store: Store) -> None:
    store.put("r", ("other", "1"), branch="alone")
    assert store["r@alone"].parents == ()
    assert store.merge("r", "alone").kind is MergeKind.MERGED
    assert sorted(read(store)) == ["/a", "/b", "/other"]


def test_a_dry_run_writes_nothing(store: Store) -> None:
    store.put("r", ("a", "ours"))
    store.put("r", ("b", "theirs"), branch="side")
    before = sorted(store.backend.list())
    result = store.merge("r", "side", dry_run=True)
    assert (result.kind, result.taken, result.commit) == (MergeKind.MERGED, 1, store["r"])
    assert sorted(store.backend.list()) == before


def test_a_head_that_moves_meanwhile_is_merged_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("r", ("a", "ours"))
    store.put("r", ("b", "theirs"), branch="side")
    store.refresh()
    other = Store.open(store.url)
    other.put("r", ("late", "1"))
    result = store.merge("r", "side")
    assert sorted(read(store)) == ["/a", "/b", "/late"]
    assert result.commit.parents[0] == other["r@master^"].id


def test_what_cannot_be_merged_says_why(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no branch 'sid'"):
        store.merge("r", "sid")
    with pytest.raises(NotFoundError, match="no branch 'mastr'"):
        store.merge("r", "side", into="mastr")
    with pytest.raises(InvalidInputError, match="no commit of repo"):
        store.merge("r", "q@side")
    with pytest.raises(ConflictError, match="expected"):
        store.merge("r", "side", if_head="0" * 64)
    with pytest.raises(ValueError, match="both"):
        store.merge("r", "side", strategy="both")
    with pytest.raises(ReadOnlyError):
        Store.open(store.url, read_only=True).merge("r", "side")


def test_the_output_of_a_pipeline_is_not_merged_into(store: Store) -> None:
    store.publish([RepoCreate(repo="out", pipeline="out")])
    store.put("out", ("a", "1"))
    store.create_branch("out", "side")
    store.publish([PipelineSet(name="out", version=1, spec="0" * 64, identity="i", inputs=(("r", "master"),))])
    with pytest.raises(ReadOnlyError, match="output of pipeline"):
        store.merge("out", "side")
