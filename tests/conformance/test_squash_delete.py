"""Ends of commits, branches and repos, and what pipelines make of them."""

from __future__ import annotations

import datetime

import pytest

from dmlpipe.storage.errors import ConflictError, InvalidInputError, NotFoundError
from dmlpipe.storage.gc.retain import plan_delete, plan_retention, plan_squash
from dmlpipe.storage.records import KeepSet
from tests.conformance.lab import Lab, pfs


def squash(lab: Lab, ref: str) -> None:
    view = lab.store[ref]
    lab.store.publish(lambda state: plan_squash(state, view.repo, view.id, lambda id: lab.store.body(id).parents))


def delete(lab: Lab, ref: str) -> None:
    view = lab.store[ref]
    lab.store.publish(lambda state: plan_delete(state, view.repo, view.id, lambda id: lab.store.body(id).parents))


@pytest.fixture
def three(lab: Lab) -> list[str]:
    """Three commits, each with a file more, and a copy of the last."""
    made = [lab.put("images", {name: name}) for name in "abc"]
    lab.submit(lab.spec("copy", pfs("images")))
    lab.run()
    return made


def test_squashing_a_commit_keeps_its_data_in_those_that_followed(lab: Lab, three: list[str]) -> None:
    squash(lab, f"images@{three[1]}")
    assert lab.files("images") == {"/a": "a", "/b": "b", "/c": "c"}
    with pytest.raises(NotFoundError):
        _ = lab.store[f"images@{three[1]}"]


def test_the_parent_of_what_followed_is_what_came_before(lab: Lab, three: list[str]) -> None:
    squash(lab, f"images@{three[1]}")
    assert lab.store["images@master^"].id == three[0]


def test_squashing_starts_no_job_and_forgets_no_result(lab: Lab, three: list[str]) -> None:
    squash(lab, f"images@{three[1]}")
    assert lab.run().summary.jobs == ()
    lab.put("images", {"d": "d"})
    assert lab.run().counts == {"copy": (1, 3)}


def test_the_head_of_a_branch_cannot_be_squashed(lab: Lab, three: list[str]) -> None:
    with pytest.raises(InvalidInputError, match="head"):
        squash(lab, f"images@{three[2]}")


def test_a_tagged_commit_cannot_be_squashed(lab: Lab, three: list[str]) -> None:
    lab.store.create_tag("images", "v1", f"images@{three[1]}")
    with pytest.raises((InvalidInputError, ConflictError), match="tag"):
        squash(lab, f"images@{three[1]}")


def test_deleting_the_newest_commit_takes_the_branch_back(lab: Lab, three: list[str]) -> None:
    delete(lab, "images")
    assert lab.head("images") == three[1]


def test_pipelines_follow_a_branch_that_was_taken_back_and_compute_nothing(lab: Lab, three: list[str]) -> None:
    delete(lab, "images")
    ran = lab.run()
    assert (ran.computed, ran.counts) == (0, {"copy": (0, 2)})
    assert lab.files("copy") == {"/a": "a", "/b": "b"}


def test_a_commit_that_others_followed_cannot_be_deleted(lab: Lab, three: list[str]) -> None:
    with pytest.raises((InvalidInputError, ConflictError)):
        delete(lab, f"images@{three[0]}")


def test_an_output_whose_input_was_dropped_still_says_what_it_was(lab: Lab, three: list[str]) -> None:
    lab.put("images", {"d": "d"})
    lab.run()
    squash(lab, f"images@{three[2]}")
    (use,) = lab.store.why("copy:/a").inputs
    assert (use.path, use.commit) == ("/a", three[2])
    assert use.dropped.startswith("dropped at entry")


def test_a_rule_keeps_the_last_commits_and_what_is_named(lab: Lab, three: list[str]) -> None:
    lab.store.create_tag("images", "first", f"images@{three[0]}")
    lab.store.publish([KeepSet(repo="images", last=1)])
    now = datetime.datetime.now(datetime.UTC)
    drops = plan_retention(lab.store.refresh(), lambda id: lab.store.body(id).parents, now=now)
    assert [dropped.id for drop in drops for dropped in drop.commits] == [three[1]]


def test_a_branch_that_a_pipeline_reads_cannot_be_deleted(lab: Lab, three: list[str]) -> None:
    with pytest.raises(InvalidInputError, match="is read by copy"):
        lab.store.delete_branch("images", "master")


def test_a_branch_that_nobody_reads_goes_and_its_commits_stay(lab: Lab, three: list[str]) -> None:
    lab.store.create_branch("images", "work", f"images@{three[0]}")
    lab.store.delete_branch("images", "work")
    assert lab.files(f"images@{three[0]}") == {"/a": "a"}


def test_a_repo_that_a_pipeline_reads_or_writes_cannot_be_deleted(lab: Lab, three: list[str]) -> None:
    for repo in ("images", "copy"):
        with pytest.raises((InvalidInputError, ConflictError), match="copy"):
            lab.store.delete_repo(repo)


def test_a_deleted_repo_is_gone_and_its_name_is_free(lab: Lab) -> None:
    lab.put("old", {"a": "1"})
    lab.store.delete_repo("old")
    with pytest.raises(NotFoundError, match="no repo 'old'"):
        _ = lab.store["old"]
    lab.put("old", {"b": "2"})
    assert lab.files("old") == {"/b": "2"}
