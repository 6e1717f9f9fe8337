"""A job for every commit: what Pachyderm's specs get unless they say `every_commit: false`; exact numbers of jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmlpipe.scheduler.inputs.leaf import files
from dmlpipe.scheduler.pipelines.dag import DAG
from dmlpipe.scheduler.pipelines.dag import Files as Outputs
from dmlpipe.scheduler.specs.effective import effective
from tests.conformance.clock import Clock
from tests.conformance.lab import Lab, Spec, cross, pfs


def ready(lab: Lab, *specs: Spec) -> Lab:
    """A lab whose pipelines are up to date with a first commit of `r`."""
    lab.put("r", {"0": "0"})
    lab.submit(*(specs or (lab.spec("p", pfs("r")),)))
    lab.run()
    return lab


def put(lab: Lab, *numbers: int, repo: str = "r") -> list[str]:
    return [lab.put(repo, {str(number): str(number)}) for number in numbers]


def seen(lab: Lab, pipeline: str = "p") -> list[str]:
    """The commits of the first input that a pipeline's jobs had, oldest first."""
    return [job.inputs[0].commit for job in reversed(lab.jobs(pipeline))]


def test_three_commits_before_a_run_are_three_jobs(lab: Lab) -> None:
    ready(lab)
    made = put(lab, 1, 2, 3)
    ran = lab.run()
    assert ran.each("p") == [(1, 1), (1, 2), (1, 3)]
    assert seen(lab)[1:] == made
    assert len(ran.summary.runs) == 3


def test_each_job_publishes_a_commit_that_follows_the_one_before(lab: Lab) -> None:
    ready(lab)
    put(lab, 1, 2)
    lab.run()
    assert lab.files("p@master^^") == {"/0": "0"}
    assert lab.files("p@master^") == {"/0": "0", "/1": "1"}
    assert lab.files("p") == {"/0": "0", "/1": "1", "/2": "2"}


def test_a_spec_that_says_no_has_one_job_for_the_head(lab: Lab) -> None:
    ready(lab, lab.spec("p", pfs("r"), every_commit=False))
    put(lab, 1, 2, 3)
    ran = lab.run()
    assert ran.each("p") == [(3, 1)]
    assert len(ran.summary.runs) == 1


def test_files_that_came_and_went_are_computed(lab: Lab) -> None:
    ready(lab)
    put(lab, 1)
    lab.remove("r", "1")
    assert lab.run().each("p") == [(1, 1), (0, 1)]
    assert lab.files("p") == {"/0": "0"}


def test_a_put_that_changes_nothing_is_no_commit_and_has_no_job(lab: Lab) -> None:
    ready(lab)
    put(lab, 0)
    assert lab.run().each("p") == []


def test_one_transaction_is_one_job(lab: Lab) -> None:
    lab.put("r", {"0": "0"})
    lab.put("s", {"0": "0"})
    ready(lab, lab.spec("p", cross(pfs("r", "/", name="a"), pfs("s", "/", name="b")), "true"))
    with lab.store.transaction() as both:
        both.commit("r").write("1", "1")
        both.commit("s").write("1", "1")
    assert len(lab.run().each("p")) == 1


def test_commits_to_two_inputs_are_a_job_each(lab: Lab) -> None:
    lab.put("s", {"0": "0"})
    ready(lab, lab.spec("p", cross(pfs("r", "/", name="a"), pfs("s", "/", name="b")), "true"))
    (first,) = put(lab, 1)
    (second,) = put(lab, 1, repo="s")
    lab.run()
    pairs = [tuple(bound.commit for bound in job.inputs) for job in lab.jobs("p")[:2]]
    assert pairs[1][0] == first
    assert pairs[0] == (first, second)
    assert pairs[1][1] != second


def test_a_diamond_runs_its_bottom_once_for_each_commit(lab: Lab) -> None:
    bottom = lab.spec("bottom", cross(pfs("left"), pfs("right")), "cat /pfs/left/* > /pfs/out/x")
    ready(lab, lab.spec("left", pfs("r", "/")), lab.spec("right", pfs("r", "/")), bottom)
    put(lab, 1, 2)
    ran = lab.run()
    assert [len(ran.each(name)) for name in ("left", "right", "bottom")] == [2, 2, 2]
    for job in lab.jobs("bottom")[:2]:
        above = [lab.store.body(bound.commit).job for bound in job.inputs]
        assert {lab.store.state.job(name).run for name in above} == {job.run}  # type: ignore[union-attr]


def test_a_chain_follows_commit_by_commit(lab: Lab) -> None:
    ready(lab, lab.spec("one", pfs("r")), lab.spec("two", pfs("one")))
    put(lab, 1, 2, 3)
    ran = lab.run()
    assert ran.each("one") == ran.each("two") == [(1, 1), (1, 2), (1, 3)]


def test_what_does_not_ask_for_it_has_one_job_beside_it(lab: Lab) -> None:
    ready(lab, lab.spec("each", pfs("r")), lab.spec("once", pfs("r"), "cp /pfs/r/* /pfs/out/", every_commit=False))
    put(lab, 1, 2, 3)
    ran = lab.run()
    assert (len(ran.each("each")), ran.each("once")) == (3, [(3, 1)])


def test_what_does_not_ask_for_it_has_one_job_below_it(lab: Lab) -> None:
    ready(lab, lab.spec("each", pfs("r")), lab.spec("below", pfs("each"), every_commit=False))
    put(lab, 1, 2, 3)
    ran = lab.run()
    assert (len(ran.each("each")), ran.each("below")) == (3, [(3, 1)])


def test_what_stands_above_one_that_asks_for_it_has_as_many(lab: Lab) -> None:
    ready(lab, lab.spec("above", pfs("r"), every_commit=False), lab.spec("each", pfs("above")))
    put(lab, 1, 2, 3)
    ran = lab.run()
    assert [len(ran.each(name)) for name in ("above", "each")] == [3, 3]


def test_commits_that_nothing_hears_make_no_jobs(lab: Lab) -> None:
    lab.put("model", {"m": "0"})
    quiet = pfs("model", "/", propagationSpec={"never": True})
    ready(lab, lab.spec("p", cross(pfs("r", name="in"), quiet), "cp /pfs/in/* /pfs/out/"))
    put(lab, 1, 2, repo="model")
    put(lab, 1)
    put(lab, 3, repo="model")
    assert len(lab.run().each("p")) == 1


def test_a_pipeline_over_a_repo_with_history_begins_with_the_head_it_found(lab: Lab) -> None:
    put(lab, 0, 1, 2)
    lab.submit(lab.spec("p", pfs("r")))
    put(lab, 3, 4)
    assert lab.run().each("p") == [(3, 0), (1, 3), (1, 4)]


def test_a_new_version_begins_with_the_head_it_found(lab: Lab) -> None:
    ready(lab)
    put(lab, 1, 2)
    lab.submit(lab.spec("p", pfs("r"), "cp /pfs/r/* /pfs/out/ # changed"))
    put(lab, 3)
    ran = lab.run()
    assert ran.each("p") == [(3, 0), (1, 3)]
    assert {job.version for job in lab.jobs("p")[:2]} == {2}


def test_a_repo_that_was_empty_at_submit_has_a_job_for_each_commit(lab: Lab) -> None:
    lab.submit_into_empty_repo("r", lab.spec("p", pfs("r")))
    put(lab, 1, 2, 3)
    assert lab.run().each("p") == [(1, 0), (1, 1), (1, 2)]


def test_a_stopped_pipeline_has_one_job_when_it_is_started(lab: Lab) -> None:
    ready(lab)
    lab.store.stop_pipeline("p")
    put(lab, 1, 2)
    assert lab.run().each("p") == []
    put(lab, 3)
    lab.store.start_pipeline("p")
    put(lab, 4)
    assert lab.run().each("p") == [(3, 1), (1, 4)]


def test_a_held_pipeline_has_one_job_when_it_is_released(lab: Lab) -> None:
    ready(lab)
    lab.store.revert("p", "p@master")
    put(lab, 1, 2)
    assert lab.run().each("p") == []
    lab.store.release("p")
    put(lab, 3)
    assert lab.run().each("p") == [(2, 1), (1, 3)]


def test_a_commit_that_fails_does_not_hold_up_the_next(lab: Lab) -> None:
    line = 'for f in /pfs/r/*; do test "$(cat $f)" != bad; cp $f /pfs/out/; done'
    ready(lab, lab.spec("p", pfs("r"), line, datumTries=1))
    lab.put("r", {"1": "bad"})
    lab.put("r", {"1": "good"})
    ran = lab.run()
    assert [job.state for job in ran.summary.jobs] == ["failed", "done"]
    assert lab.files("p") == {"/0": "0", "/1": "good"}


def test_a_rewind_is_a_commit_like_any_other(lab: Lab) -> None:
    ready(lab)
    first = lab.head("r")
    (second,) = put(lab, 1)
    lab.move("r", first)
    lab.move("r", second)
    assert lab.run().each("p") == [(1, 1), (0, 1), (0, 2)]
    assert seen(lab)[1:] == [second, first, second]


def test_every_tick_has_a_job(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock.of(lab.store, "2030-01-01T05:00:00.250000Z", monkeypatch)
    tick = {"cron": {"name": "tick", "spec": "0 6 * * *"}}
    lab.submit(lab.spec("each", tick, "true"), lab.spec("once", tick, "true # once", every_commit=False))
    clock.set("2030-01-04T00:00:00Z")
    ran = lab.run()
    assert (ran.each("each"), ran.each("once")) == ([(1, 0), (1, 1), (1, 2)], [(3, 0)])


def test_an_up_to_date_store_has_nothing_left_to_do(lab: Lab) -> None:
    ready(lab)
    put(lab, 1, 2)
    lab.run()
    assert lab.run().summary.jobs == ()
    assert list(lab.store.refresh().causes()) == []


def test_functions_share_a_job_unless_they_ask_for_it(lab: Lab) -> None:
    dag = DAG("functions")

    @dag.pipeline(files("r", "/*"))
    def once(r: Path) -> Outputs:
        return {r.name: r.read_bytes()}

    @dag.pipeline(files("r", "/*"), every_commit=True)
    def each(r: Path) -> Outputs:
        return {r.name: r.read_bytes()}

    lab.put("r", {"0": "0"})
    dag.submit(lab.store)
    lab.run(dag=dag)
    put(lab, 1, 2)
    ran = lab.run(dag=dag)
    assert (ran.each("once"), ran.each("each")) == ([(2, 1)], [(1, 1), (1, 2)])


def test_a_plan_says_how_many_jobs_there_would_be(lab: Lab) -> None:
    ready(lab)
    assert lab.plan()["p"].jobs == 1
    put(lab, 1, 2, 3)
    plan = lab.plan()["p"]
    assert (plan.run, plan.skipped, plan.jobs) == (3, 1, 3)


def test_a_dry_run_says_whether_every_commit_has_a_job(lab: Lab) -> None:
    lab.put("r", {"0": "0"})
    ways: list[Spec] = [{}, {"every_commit": True}, {"everyCommit": False}]
    said = [
        effective(each.spec)["every_commit"]
        for fields in ways
        for each in lab.submit(lab.spec("p", pfs("r"), **fields), dry_run=True)
        if each.spec is not None
    ]
    assert said == [True, True, False]


def test_asking_for_it_or_not_changes_no_result(lab: Lab) -> None:
    ready(lab)
    (told,) = lab.submit(lab.spec("p", pfs("r"), every_commit=False))
    assert told.status == "cosmetic"
    assert lab.run().each("p") == []
