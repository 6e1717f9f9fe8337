"""The SQLite index says what the store says, however it was made."""

from __future__ import annotations

import itertools
import os
import sqlite3
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.digest import digest
from dmlpipe.storage.errors import BackendError
from dmlpipe.storage.provenance.explain import find_content as find_by_reading
from dmlpipe.storage.provenance.sqlindex import SqlIndex, find_content
from dmlpipe.storage.records import CommitDrop, Dropped
from dmlpipe.storage.store import Store
from tests.storage.engine import Engine

_numbers = itertools.count()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(f"memory://sql-{next(_numbers)}", cache_dir=tmp_path / "cache")


def content(number: int) -> bytes:
    return (f"content {number} " * 30).encode()


def answers(index: SqlIndex, store: Store) -> bytes:
    """Every question that the store has an answer to, as bytes."""
    commits = [key.decode().split("/")[1:] for key, _ in store.state.scan(b"commit/")]
    told = [
        [index.jobs_using(repo, commit) for repo, commit in commits],
        [index.places_of(digest(content(number)).hex()[:9]) for number in range(6)],
        [index.commits_below(path) for path in ("/", "/a", "/a/x", "/b", "/b/y", "/none")],
    ]
    return msgspec.json.encode(told)


def refreshed(store: Store, file: Path) -> SqlIndex:
    index = SqlIndex(file)
    store.refresh()
    index.refresh(store.archive, store.ledger)
    return index


def rebuilt(store: Store, file: Path) -> SqlIndex:
    index = SqlIndex(file)
    index.rebuild(store.archive, store.ledger)
    return index


Step = tuple[str, str, int, bool]
steps = st.lists(
    st.tuples(st.sampled_from(["r", "s"]), st.sampled_from(["a/x", "a/z", "b/y"]), st.integers(0, 5), st.booleans()),
    min_size=1,
    max_size=10,
)


@given(steps)
def test_an_index_that_followed_answers_as_one_made_anew(
    tmp_path_factory: pytest.TempPathFactory, done: list[Step]
) -> None:
    folder = tmp_path_factory.mktemp("sql")
    store = Store.init(f"memory://sql-{next(_numbers)}", cache_dir=folder)
    index = SqlIndex(folder / "followed.sqlite")
    for repo, path, number, refresh in done:
        with store.commit(repo) as session:
            if number == 0 and session.exists(path):
                session.delete(path)
            else:
                session.write(path, content(number))
        if refresh:
            index = refreshed(store, folder / "followed.sqlite")
    index = refreshed(store, folder / "followed.sqlite")
    assert answers(index, store) == answers(rebuilt(store, folder / "anew.sqlite"), store)
    for number in range(6):
        prefix = digest(content(number)).hex()[:9]
        assert list(find_content(index, store.archive, store.state, prefix)) == list(
            find_by_reading(store.archive, store.state, prefix)
        )


def test_changes_below_a_path_are_those_of_the_commits(store: Store, tmp_path: Path) -> None:
    first = store.put("r", ("a/x", content(1)), ("b", content(2)))
    second = store.put("r", ("a/y", content(3)))
    with store.commit("r") as session:
        session.delete("/a")
    third = store["r"]
    index = refreshed(store, tmp_path / "i.sqlite")
    assert [(touch.commit, touch.paths) for touch in index.commits_below("/a")] == [
        (third.id, 2),
        (second.id, 1),
        (first.id, 1),
    ]
    assert [touch.commit for touch in index.commits_below("/b")] == [first.id]
    assert [place[1:3] for place in index.places_of(digest(content(3)).hex()[:8])] == [(second.id, "/a/y")]


def test_jobs_by_what_they_used(store: Store, tmp_path: Path) -> None:
    engine = Engine(store)
    training = store.put("training", ("t.txt", content(1)))
    images = store.put("images", ("a.txt", content(2)))
    engine.pipeline("model", [{"type": "files", "name": "training", "repo": "training", "glob": "/"}], {})
    engine.job("model", 1, {"training": "data"}, (), {"m.bin": (b"", b"weights" * 40, 1)})
    both: list[dict[str, object]] = [
        {"type": "files", "name": "images", "repo": "images", "glob": "/*"},
        {"type": "files", "name": "model", "repo": "model", "glob": "/"},
    ]
    engine.pipeline("labels", both, {})
    engine.job("labels", 2, {"images": "data", "model": "model"}, ("images",), {"a": (b"a.txt", b"cat" * 99, 2)})
    index = refreshed(store, tmp_path / "i.sqlite")
    model = store["model"]
    assert [(use.pipeline, use.role, use.through) for use in index.jobs_using("training", training.id)] == [
        ("model", "data", f"training@{training.id}"),
        ("labels", "model", f"model@{model.id}"),
    ]
    assert [use.pipeline for use in index.jobs_using("images", images.id)] == ["labels"]
    assert answers(index, store) == answers(rebuilt(store, tmp_path / "anew.sqlite"), store)
    # The same jobs as reading the state finds.
    assert {(view.repo, view.id) for view, _ in store.impact(f"training@{training.id}")} == {
        (use.pipeline, use.made) for use in index.jobs_using("training", training.id)
    }


def test_dropped_commits_are_forgotten(store: Store, tmp_path: Path) -> None:
    store.put("r", ("a/x", content(1)))
    middle = store.put("r", ("a/x", content(2)))
    store.put("r", ("a/x", content(3)))
    index = refreshed(store, tmp_path / "i.sqlite")
    store.publish([CommitDrop(repo="r", commits=(Dropped(middle.id, middle.parents),))])
    index = refreshed(store, tmp_path / "i.sqlite")
    assert index.places_of(digest(content(2)).hex()[:8]) == []
    assert len(index.commits_below("/a")) == 2
    assert answers(index, store) == answers(rebuilt(store, tmp_path / "anew.sqlite"), store)


@pytest.mark.parametrize("damage", ["garbage", "other version", "other ledger", "ahead"])
def test_an_index_that_is_none_is_made_anew(store: Store, tmp_path: Path, damage: str) -> None:
    store.put("r", ("a/x", content(1)))
    file = tmp_path / "i.sqlite"
    expected = answers(refreshed(store, file), store)
    if damage == "garbage":
        file.write_bytes(b"no database" * 100)
        with pytest.raises(BackendError, match="no index"):
            SqlIndex(file).commits_below("/")
    else:
        db = sqlite3.connect(file)
        change = {"other version": "version = 99", "other ledger": "chain = 'x'", "ahead": "n = 99"}[damage]
        with db:
            db.execute(f"UPDATE about SET {change}")
        db.close()
    assert answers(refreshed(store, file), store) == expected


def test_why_of_a_hash_is_the_same_with_an_index(store: Store) -> None:
    store.put("r", ("a/x", content(1)), ("b", os.urandom(300)))
    prefix = digest(content(1)).hex()[:12]
    before = store.why(prefix).to_dict()
    assert not store.sql_index.exists
    store.sql_index.refresh(store.archive, store.ledger)
    reads = store.nodes.reads
    assert store.why(prefix).to_dict() == before
    assert store.nodes.reads == reads


def test_an_index_that_cannot_be_written_is_not_needed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.put("r", ("a/x", content(1)))
    file = store.sql_index.file
    file.mkdir(parents=True)  # nobody can write a database there
    assert store.why(digest(content(1)).hex()[:12]).path == "/a/x"
    assert "every branch's head is read instead" in caplog.text
