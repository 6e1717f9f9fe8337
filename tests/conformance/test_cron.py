"""Cron inputs: when they tick, what a tick is, what is made up for."""

from __future__ import annotations

from typing import Any

import pytest

from dmlpipe.scheduler.inputs.standing import cron
from dmlpipe.scheduler.jobs.ticks import DueTick, due_ticks, make_tick
from dmlpipe.storage.errors import ErrorCode, InvalidInputError
from tests.conformance.clock import Clock
from tests.conformance.lab import Lab, Spec, cross, pfs

LIST = 'for f in /pfs/tick/*; do echo made > "/pfs/out/$(basename "$f")"; done'


@pytest.fixture
def clock(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock.of(lab.store, "2030-01-01T05:00:00.250000Z", monkeypatch)


def daily(lab: Lab, **fields: Any) -> Spec:
    return lab.spec("report", {"cron": {"name": "tick", "spec": "0 6 * * *", **fields}}, LIST)


def ticks(lab: Lab, repo: str = "report_tick") -> list[str]:
    return list(lab.files(repo)) if lab.head(repo) else []


def test_nothing_ticks_before_its_time(lab: Lab, clock: Clock) -> None:
    lab.submit(daily(lab))
    assert lab.run().counts == {}
    assert ticks(lab) == []


def test_a_tick_is_an_empty_file_named_after_its_time(lab: Lab, clock: Clock) -> None:
    lab.submit(daily(lab))
    clock.set("2030-01-01T06:00:03Z")
    assert lab.run().counts == {"report": (1, 0)}
    assert lab.files("report_tick") == {"/2030-01-01T06:00:00Z": ""}
    assert lab.files("report") == {"/2030-01-01T06:00:00Z": "made\n"}


def test_a_time_ticks_once(lab: Lab, clock: Clock) -> None:
    lab.submit(daily(lab))
    clock.set("2030-01-01T07:00:00Z")
    lab.run()
    assert lab.run().counts == {}
    assert len(ticks(lab)) == 1


def test_missed_ticks_are_made_up_for(lab: Lab, clock: Clock) -> None:
    lab.submit(daily(lab))
    clock.set("2030-01-04T00:00:00Z")
    assert lab.run().each("report") == [(1, 0), (1, 1), (1, 2)]
    assert ticks(lab) == [f"/2030-01-0{day}T06:00:00Z" for day in (1, 2, 3)]


def test_each_tick_is_a_commit(lab: Lab, clock: Clock) -> None:
    lab.submit(daily(lab))
    clock.set("2030-01-04T00:00:00Z")
    lab.run()
    assert len(list(lab.store.state.history("report_tick"))) == 3


def test_an_earlier_start_is_caught_up_with(lab: Lab, clock: Clock) -> None:
    lab.submit(daily(lab, start="2029-12-29T00:00:00Z"))
    lab.run()
    assert ticks(lab)[0] == "/2029-12-29T06:00:00Z"
    assert len(ticks(lab)) == 3


def test_a_later_start_is_waited_for(lab: Lab, clock: Clock) -> None:
    lab.submit(daily(lab, start="2030-01-03T00:00:00+01:00"))
    clock.set("2030-01-04T00:00:00Z")
    lab.run()
    assert ticks(lab) == ["/2030-01-03T06:00:00Z"]


def test_a_tick_that_keeps_the_others_is_one_datum_more(lab: Lab, clock: Clock) -> None:
    lab.submit(daily(lab))
    clock.set("2030-01-03T00:00:00Z")
    lab.run()
    clock.set("2030-01-04T00:00:00Z")
    assert lab.run().counts == {"report": (1, 2)}


def test_overwrite_leaves_the_last_tick_alone(lab: Lab, clock: Clock) -> None:
    lab.submit(daily(lab, overwrite=True))
    clock.set("2030-01-02T00:00:00Z")
    lab.run()
    clock.set("2030-01-03T00:00:00Z")
    lab.run()
    assert list(lab.files("report")) == ticks(lab) == ["/2030-01-02T06:00:00Z"]


def test_overwritten_ticks_are_made_up_for_one_job_each(lab: Lab, clock: Clock) -> None:
    lab.submit(daily(lab, overwrite=True))
    clock.set("2030-01-04T00:00:00Z")
    lab.run()
    assert [job.end.counters.run for job in lab.jobs("report")] == [1, 1, 1]


def test_every_counts_from_the_last_tick(lab: Lab, clock: Clock) -> None:
    lab.submit(daily(lab, spec="@every 20s"))
    clock.set("2030-01-01T05:01:05Z")
    lab.run()
    assert ticks(lab) == [f"/2030-01-01T05:{when}Z" for when in ("00:20", "00:40", "01:00")]


def test_never_ticks_only_by_hand(lab: Lab, clock: Clock) -> None:
    lab.submit(daily(lab, spec="@never"))
    clock.set("2040-01-01T00:00:00Z")
    assert lab.run().counts == {}
    assert lab.store.tick("report") == ["2040-01-01T00:00:00Z"]
    assert lab.run().counts == {"report": (1, 0)}


def test_a_tick_by_hand_leaves_the_schedule_as_it_is(lab: Lab, clock: Clock) -> None:
    lab.submit(daily(lab))
    lab.store.tick("report", "tick")
    clock.set("2030-01-01T06:30:00Z")
    lab.run()
    assert ticks(lab) == ["/2030-01-01T05:00:00.250000Z", "/2030-01-01T06:00:00Z"]


def test_only_cron_inputs_tick(lab: Lab) -> None:
    lab.put("r", {"a": ""})
    lab.submit(lab.spec("p", pfs("r")), daily(lab))
    with pytest.raises(InvalidInputError, match="'p' has no cron input"):
        lab.store.tick("p")
    with pytest.raises(InvalidInputError, match="no cron input 'tock'") as caught:
        lab.store.tick("report", "tock")
    assert caught.value.hint == "it has tick"


def test_of_two_that_make_one_tick_one_does(lab: Lab, clock: Clock) -> None:
    lab.submit(daily(lab))
    (tick,) = due_ticks(lab.store.refresh(), "2030-01-02T00:00:00Z")
    assert isinstance(tick, DueTick)
    assert [make_tick(lab.store, tick), make_tick(lab.store, tick)] == [True, False]
    assert len(list(lab.store.refresh().history("report_tick"))) == 1


def test_a_stopped_pipeline_catches_up_when_it_is_started(lab: Lab, clock: Clock) -> None:
    lab.submit(daily(lab))
    lab.store.stop_pipeline("report")
    clock.set("2030-01-03T00:00:00Z")
    lab.run()
    assert ticks(lab) == []
    lab.store.start_pipeline("report")
    assert lab.run().each("report") == [(1, 0), (1, 1)]


def test_another_schedule_starts_no_job_and_goes_on_from_the_last_tick(lab: Lab, clock: Clock) -> None:
    lab.submit(daily(lab))
    clock.set("2030-01-01T06:30:00Z")
    lab.run()
    (submitted,) = lab.submit(daily(lab, spec="0 */6 * * *"))
    assert submitted.status == "cosmetic"
    assert lab.run().counts == {}
    clock.set("2030-01-01T18:00:00Z")
    lab.run()
    assert ticks(lab)[1:] == ["/2030-01-01T12:00:00Z", "/2030-01-01T18:00:00Z"]


def test_ticks_may_be_kept_in_a_repo_of_another_name(lab: Lab, clock: Clock) -> None:
    lab.submit(daily(lab, repo="mornings"))
    clock.set("2030-01-01T07:00:00Z")
    lab.run()
    assert ticks(lab, "mornings") == ["/2030-01-01T06:00:00Z"]


def test_ticks_are_not_kept_where_a_pipeline_writes(lab: Lab) -> None:
    lab.put("r", {"a": ""})
    lab.submit(lab.spec("p", pfs("r")))
    with pytest.raises(InvalidInputError, match="which a pipeline writes") as caught:
        lab.submit(daily(lab, repo="p"))
    assert caught.value.code is ErrorCode.NAME_CLASH


def test_a_cross_with_data_runs_all_of_it_at_each_tick(lab: Lab, clock: Clock) -> None:
    lab.put("r", {"a": "", "b": ""})
    tick = {"cron": {"name": "tick", "spec": "@daily", "overwrite": True}}
    lab.submit(lab.spec("p", cross(tick, pfs("r")), "ls /pfs/tick > /pfs/out/$(basename $r)"))
    assert lab.run().counts == {}
    clock.set("2030-01-02T12:00:00Z")
    assert lab.run().counts == {"p": (2, 0)}
    assert lab.files("p")["/a"] == "2030-01-02T00:00:00Z\n"


def test_a_plan_says_how_many_ticks_are_due_and_makes_none(lab: Lab, clock: Clock) -> None:
    lab.submit(daily(lab))
    clock.set("2030-01-03T12:00:00Z")
    before = lab.store.refresh().n
    plan = lab.plan()["report"]
    assert (plan.status, plan.reasons) == ("would run", (("3 ticks due", 3, ""),))
    assert lab.store.refresh().n == before


def test_a_schedule_that_is_none_is_refused(lab: Lab) -> None:
    with pytest.raises(InvalidInputError, match=r"input\.cron: schedule '61 \* \* \* \*': minute"):
        lab.submit(daily(lab, spec="61 * * * *"))


def test_python_says_it_too() -> None:
    leaf = cron("@daily", name="day", start="2030-01-01T00:00:00+01:00")
    assert (leaf.glob, leaf.cron and leaf.cron.start) == ("/*", "2029-12-31T23:00:00Z")
    with pytest.raises(InvalidInputError, match="needs a name"):
        cron("@daily", name="")
