"""Branches that follow others: sizes, commits, rates, schedules; one of them, or all; chains."""

from __future__ import annotations

from typing import Any

import pytest

from dmlpipe.scheduler.inputs.standing import trigger
from dmlpipe.storage.errors import InvalidInputError
from dmlpipe.storage.state import State
from tests.conformance.clock import Clock
from tests.conformance.lab import Lab, pfs


@pytest.fixture
def clock(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock.of(lab.store, "2030-01-01T05:00:00.250000Z", monkeypatch)


def follow(lab: Lab, branch: str = "ready", on: str = "master", **rule: Any) -> None:
    if lab.store.refresh().repo("r") is None:
        lab.store.create_repo("r")
    lab.store.set_trigger("r", branch, trigger(on, **rule))


def put(lab: Lab, number: int, size: int = 10) -> str:
    return lab.put("r", {f"{number}": "x" * size})


def moved(lab: Lab, count: int, *, size: int = 10) -> list[int]:
    """Which of `count` commits the branch took."""
    found = []
    for number in range(count):
        head = put(lab, number, size)
        if lab.head("r", "ready") == head:
            found.append(number)
    return found


def test_a_branch_with_a_trigger_begins_when_it_first_fires(lab: Lab) -> None:
    follow(lab, commits=2)
    put(lab, 0)
    assert lab.head("r", "ready") == ""
    put(lab, 1)
    assert lab.head("r", "ready") == lab.head("r")


def test_commits_count_since_the_last_time(lab: Lab) -> None:
    follow(lab, commits=3)
    assert moved(lab, 7) == [2, 5]


def test_size_is_what_the_branch_has_grown_by(lab: Lab) -> None:
    follow(lab, size=25)
    assert moved(lab, 7) == [2, 5]


def test_a_rate_lets_no_more_through_than_its_schedule(lab: Lab, clock: Clock) -> None:
    follow(lab, rate="@hourly")
    taken = []
    for time in ("05:30", "06:10", "06:20", "06:59", "07:00", "07:01"):
        clock.set(f"2030-01-01T{time}:00Z")
        taken.append(put(lab, int(time.replace(":", ""))) == lab.head("r", "ready"))
    assert taken == [False, True, False, False, False, True]


def test_one_condition_is_enough(lab: Lab) -> None:
    follow(lab, commits=3, size=1000)
    assert moved(lab, 3) == [2]
    follow(lab, commits=100, size=20)
    assert moved(lab, 3, size=20) == [1]


def test_all_conditions_must_hold_where_it_says_so(lab: Lab) -> None:
    follow(lab, commits=2, size=35, all=True)
    assert moved(lab, 8) == [3, 7]


def test_all_without_conditions_takes_every_commit(lab: Lab) -> None:
    follow(lab, all=True)
    assert moved(lab, 3) == [0, 1, 2]


def test_a_chain_is_followed_in_the_same_entry(lab: Lab) -> None:
    follow(lab, "half", commits=2)
    follow(lab, "ready", on="half", commits=2)
    assert moved(lab, 8) == [3, 7]
    assert lab.store.refresh().n == lab.store.state.commit("r", lab.head("r", "ready")).n  # type: ignore[union-attr]


def test_no_new_commit_is_made(lab: Lab) -> None:
    follow(lab, commits=1)
    head = put(lab, 0)
    assert lab.head("r", "ready") == head
    assert len(lab.store.state.commits_by_prefix("r", "")) == 1


def test_a_branch_that_is_moved_by_hand_fires_nothing(lab: Lab) -> None:
    first = put(lab, 0)
    second = put(lab, 1)
    follow(lab, commits=1)
    lab.move("r", first)
    lab.move("r", second)
    assert lab.head("r", "ready") == ""


def test_branches_cannot_follow_each_other(lab: Lab) -> None:
    follow(lab, "a", commits=1)
    follow(lab, "b", on="a", commits=1)
    with pytest.raises(InvalidInputError, match="follow each other"):
        follow(lab, "master", on="b", commits=1)
    with pytest.raises(InvalidInputError, match="follow each other: c <- c"):
        follow(lab, "c", on="c", commits=1)


def test_a_rule_needs_a_condition(lab: Lab) -> None:
    with pytest.raises(InvalidInputError, match="has no condition"):
        follow(lab)


def test_a_schedule_excludes_other_conditions(lab: Lab) -> None:
    with pytest.raises(InvalidInputError, match="cron excludes"):
        follow(lab, cron="@daily", commits=1)


def test_a_rule_with_a_wrong_schedule_is_refused(lab: Lab) -> None:
    with pytest.raises(InvalidInputError, match="schedule 'daily'"):
        follow(lab, cron="daily")


def test_an_output_branch_follows_none(lab: Lab) -> None:
    lab.put("r", {"a": ""})
    lab.submit(lab.spec("p", pfs("r")))
    with pytest.raises(InvalidInputError, match="published by pipeline 'p'"):
        lab.store.set_trigger("p", "master", trigger("staging", commits=1))


def test_a_schedule_moves_the_branch_at_its_times(lab: Lab, clock: Clock) -> None:
    follow(lab, cron="0 6 * * *")
    head = put(lab, 0)
    lab.run()
    assert lab.head("r", "ready") == ""
    clock.set("2030-01-01T06:00:00Z")
    lab.run()
    assert lab.head("r", "ready") == head
    clock.set("2030-01-02T10:00:00Z")
    put(lab, 1)
    lab.run()
    assert lab.head("r", "ready") == head


def test_a_rule_ends_with_its_branch(lab: Lab) -> None:
    follow(lab, commits=1)
    put(lab, 0)
    lab.store.delete_branch("r", "ready")
    put(lab, 1)
    assert lab.head("r", "ready") == ""


def test_a_rule_can_be_taken_back(lab: Lab) -> None:
    follow(lab, commits=1)
    head = put(lab, 0)
    lab.store.set_trigger("r", "ready", None)
    put(lab, 1)
    assert lab.head("r", "ready") == head


def test_every_reader_of_the_ledger_moves_the_branch_alike(lab: Lab) -> None:
    follow(lab, commits=2, size=30)
    moved(lab, 5)
    state = State()
    for entry, name in lab.store.ledger.entries():
        assert state.apply(entry, name) == []
    assert state.head("r", "ready")
    assert state.head("r", "ready") == lab.head("r", "ready")


# --- pipelines --------------------------------------------------------------------------------------------------------


def test_an_input_with_a_trigger_waits_for_it(lab: Lab) -> None:
    lab.put("r", {"0": ""})
    lab.submit(lab.spec("p", pfs("r", trigger={"branch": "master", "commits": 2})))
    assert lab.plan()["p"].status == "waits for data"
    lab.put("r", {"1": ""})
    lab.put("r", {"2": ""})
    assert lab.run().counts == {"p": (2, 0)}


def test_the_branch_of_an_input_with_a_trigger_is_named_after_the_pipeline(lab: Lab) -> None:
    lab.put("r", {"0": ""})
    lab.submit(lab.spec("p", pfs("r", trigger={"size": "1K"})))
    state = lab.store.refresh()
    known = state.trigger("r", "p-trigger-1")
    assert known is not None
    assert (known.trigger.on, known.trigger.size) == ("master", 1000)


def test_the_branch_may_have_a_name_of_its_own(lab: Lab) -> None:
    lab.put("r", {"0": ""})
    lab.submit(lab.spec("p", pfs("r", branch="batch", trigger={"rateLimitSpec": "@every 1h", "all": True})))
    assert lab.store.refresh().trigger("r", "batch") is not None


def test_outputs_of_a_job_fire_triggers(lab: Lab) -> None:
    lab.put("r", {"a": "1"})
    lab.submit(
        lab.spec("first", pfs("r")),
        lab.spec("then", pfs("first", trigger={"branch": "master", "commits": 2})),
    )
    assert lab.run().counts == {"first": (1, 0)}
    lab.put("r", {"a": "2"})
    assert lab.run().counts == {"first": (1, 0), "then": (1, 0)}
    state = lab.store.refresh()
    runs = [name for name, _ in state.runs()]
    assert len(runs) == 3
    assert "0" * 16 not in runs
    assert list(state.causes()) == []


def test_deferred_processing_runs_when_a_branch_is_moved(lab: Lab) -> None:
    lab.put("r", {"a": "1"}, branch="staging")
    lab.put("r", {"b": "1"}, branch="staging")
    lab.submit(lab.spec("p", pfs("r")))
    assert lab.run().counts == {}
    lab.store.create_branch("r", "master", "r@staging")
    assert lab.run().counts == {"p": (2, 0)}


def test_the_rule_of_an_input_ends_with_its_pipeline(lab: Lab) -> None:
    lab.put("r", {"0": ""})
    spec = lab.spec("p", pfs("r", branch="batch", trigger={"branch": "master", "commits": 1}))
    lab.submit(spec)
    lab.store.delete_pipeline("p")
    assert list(lab.store.refresh().all_triggers()) == []
    put(lab, 1)
    assert lab.head("r", "batch") == ""


def test_the_rule_of_an_input_ends_with_a_version_without_it(lab: Lab) -> None:
    lab.put("r", {"0": ""})
    lab.submit(lab.spec("p", pfs("r", branch="batch", trigger={"branch": "master", "commits": 1})))
    lab.submit(lab.spec("p", pfs("r")))
    assert list(lab.store.refresh().all_triggers()) == []


def test_a_rule_that_others_wait_for_outlives_the_pipeline_that_set_it(lab: Lab) -> None:
    lab.put("r", {"0": ""})
    lab.submit(lab.spec("p", pfs("r", branch="batch", trigger={"branch": "master", "commits": 1})))
    lab.submit(lab.spec("q", pfs("r", branch="batch")))
    lab.store.delete_pipeline("p")
    put(lab, 1)
    assert lab.head("r", "batch") == lab.head("r")


def test_a_rule_that_was_set_by_hand_outlives_every_pipeline(lab: Lab) -> None:
    lab.put("r", {"0": ""})
    follow(lab, "batch", commits=3)
    lab.submit(lab.spec("p", pfs("r", branch="batch")))
    lab.store.delete_pipeline("p")
    assert lab.store.refresh().trigger("r", "batch") is not None
