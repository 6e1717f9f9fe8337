from __future__ import annotations

import itertools

import pytest

from dmlpipe.storage.errors import ConflictError, InvalidInputError, ReadOnlyError
from dmlpipe.storage.records import PipelineSet, RepoCreate
from dmlpipe.storage.store import Store

_count = itertools.count()


@pytest.fixture
def store() -> Store:
    return Store.init(f"memory://transaction-{next(_count)}")


def test_commits_to_several_repos_are_one_entry(store: Store) -> None:
    with store.transaction() as both:
        both.commit("a", message="first").write("x", "1" * 500)
        both.commit("b", "dev").put(("y", b"2" * 500))
        assert store.refresh().n == -1
    assert store.refresh().n == 0
    assert [(each.repo, each.message, each.files) for each in both.results] == [("a", "first", 1), ("b", "", 1)]
    fresh = Store.open(store.url)
    assert (fresh["a"].read_text("x"), fresh["b@dev"].read_text("y")) == ("1" * 500, "2" * 500)


def test_two_branches_of_a_new_repo(store: Store) -> None:
    with store.transaction() as both:
        both.commit("a").write("x", "1")
        both.commit("a", "dev").write("x", "2")
    assert (store["a"].read_text("x"), store["a@dev"].read_text("x")) == ("1", "2")


def test_pipelines_see_all_of_it_at_once(store: Store) -> None:
    store.put("a", ("x", "1"))
    store.put("b", ("x", "1"))
    for name in ("p", "q"):
        inputs = (("a", "master"), ("b", "master"))
        spec = PipelineSet(name=name, version=1, spec="0" * 64, identity="i", inputs=inputs)
        store.publish([RepoCreate(repo=name, pipeline=name), spec])
    with store.transaction() as both:
        both.commit("a").write("x", "2")
        both.commit("b").write("x", "2")
    entry = store.refresh().n
    causes = [cause for cause in store.state.causes() if cause.kind == "ref"]
    assert {(cause.n, cause.subject) for cause in causes} == {(entry, "a@master"), (entry, "b@master")}


def test_one_that_cannot_be_published_keeps_all_back(store: Store) -> None:
    store.put("a", ("log", "1"))
    other = Store.open(store.url)
    with pytest.raises(ConflictError, match="/log"):
        with store.transaction() as both:
            both.commit("b").write("x", "1")
            both.commit("a").write("log", "2", append=True)
            other.put("a", ("log", "changed"))
    assert store.refresh().repo("b") is None
    assert store["a"].read_text("log") == "changed"


def test_an_exception_publishes_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.transaction() as both:
        both.commit("a").write("x", "1")
        raise RuntimeError
    assert store.refresh().n == -1


def test_what_changes_nothing_makes_no_commit(store: Store) -> None:
    head = store.put("a", ("x", "1"))
    with store.transaction() as both:
        kept = both.commit("a")
        kept.write("x", "1")
        both.commit("b").write("x", "1")
    assert both.results[0] == head
    assert (kept.made, store.state.history("a").__next__().commit) == (False, head.id)
    with store.transaction() as none:
        none.commit("a").write("x", "1")
    assert (none.results, store.refresh().n) == ((head,), 1)


def test_sessions_follow_heads_that_moved_meanwhile(store: Store) -> None:
    store.put("a", ("x", "1"))
    other = Store.open(store.url)
    with store.transaction() as both:
        both.commit("a").write("y", "1")
        other.put("a", ("z", "1"))
    assert [info.path for info in store["a"].ls()] == ["/x", "/y", "/z"]


def test_wrong_use_is_refused(store: Store) -> None:
    with store.transaction() as both:
        session = both.commit("a")
        with session:
            session.write("x", "1")
        with pytest.raises(InvalidInputError, match="part of a transaction"):
            session.commit()
        with pytest.raises(InvalidInputError, match="already"):
            both.commit("a")
    with pytest.raises(InvalidInputError, match="has ended"):
        both.commit("b")
    with pytest.raises(InvalidInputError, match="has ended"):
        with store.transaction() as broken:
            broken.commit("b").write("x", "1")
            broken.commit("c").abort()
    assert store.refresh().repo("b") is None
    with pytest.raises(ReadOnlyError):
        Store.open(store.url, read_only=True).transaction().commit("a")
