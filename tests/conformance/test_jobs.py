"""States, counters and reasons of jobs; one run per cause; provenance of jobs: diamonds, rewinds, backfill."""

from __future__ import annotations

import pytest

from dmlpipe.storage.errors import ConflictError, InvalidInputError, NotFoundError, ReadOnlyError
from tests.conformance.lab import COPY, Lab, cross, pfs


def diamond(lab: Lab) -> None:
    lab.submit(
        lab.spec("left", pfs("source"), 'sed "s/^/l/" /pfs/source/* > /pfs/out/l'),
        lab.spec("right", pfs("source"), 'sed "s/^/r/" /pfs/source/* > /pfs/out/r'),
        lab.spec("bottom", cross(pfs("left", "/"), pfs("right", "/")), "cat /pfs/left/l /pfs/right/r > /pfs/out/b"),
    )


def test_a_job_that_went_well_is_done_and_counts_its_datums(lab: Lab) -> None:
    lab.put("source", {"a": "1", "b": "2"})
    lab.submit(lab.spec("copy", pfs("source")))
    job = lab.run().job("copy")
    assert job.state == "done"
    assert (job.counters.total, job.counters.run, job.counters.skipped, job.counters.failed) == (2, 2, 0, 0)
    assert job.commit == lab.head("copy")


def test_the_total_is_the_sum_of_what_became_of_the_datums(lab: Lab) -> None:
    lab.put("source", {"a": "1", "b": "bad", "c": "worse"})
    line = "if grep -q bad /pfs/source/*; then exit 1; fi; cp /pfs/source/* /pfs/out/"
    recover = {"err_cmd": ["sh", "-c", "exit 1"]}
    lab.submit(lab.spec("copy", pfs("source"), line, transform=recover, datum_tries=1))
    counters = lab.run().job("copy").counters
    assert counters.total == counters.run + counters.skipped + counters.failed + counters.recovered == 3
    assert (counters.run, counters.failed) == (2, 1)


def test_a_commit_is_made_of_a_chain_of_jobs_in_one_run(lab: Lab) -> None:
    lab.put("source", {"a": "1"})
    lab.submit(lab.spec("one", pfs("source")), lab.spec("two", pfs("one")), lab.spec("three", pfs("two")))
    ran = lab.run()
    assert [job.pipeline for job in ran.summary.jobs] == ["one", "two", "three"]
    assert len({job.run for job in ran.summary.jobs}) == len(ran.summary.runs) == 1
    assert lab.files("three") == {"/a": "1"}


def test_the_bottom_of_a_diamond_runs_once_for_a_commit(lab: Lab) -> None:
    lab.put("source", {"a": "1\n"})
    diamond(lab)
    ran = lab.run()
    assert sorted(ran.states.items()) == [("bottom", "done"), ("left", "done"), ("right", "done")]
    assert lab.files("bottom") == {"/b": "l1\nr1\n"}
    lab.put("source", {"a": "2\n"})
    assert len(lab.run().summary.jobs) == 3
    assert lab.files("bottom") == {"/b": "l2\nr2\n"}


def test_two_inputs_that_changed_in_one_transaction_make_one_job(lab: Lab) -> None:
    lab.put("a", {"x": "1"})
    lab.put("b", {"y": "1"})
    lab.submit(lab.spec("both", cross(pfs("a", "/"), pfs("b", "/"))))
    lab.run()
    with lab.store.transaction() as both:
        for repo in ("a", "b"):
            both.commit(repo).write("/x", "2")
    assert len(lab.run().summary.jobs) == 1


def test_every_commit_that_stands_when_a_run_begins_is_taken_by_it(lab: Lab) -> None:
    lab.submit_into_empty_repo("source", lab.spec("copy", pfs("source"), every_commit=False))
    for number in range(3):
        lab.put("source", {f"f{number}": str(number)})
    assert lab.run().each("copy") == [(3, 0)]


def test_a_pipeline_submitted_after_its_data_catches_up(lab: Lab) -> None:
    for number in range(3):
        lab.put("source", {f"f{number}": str(number)})
    lab.submit(lab.spec("copy", pfs("source")))
    ran = lab.run()
    assert ran.counts == {"copy": (3, 0)}
    assert len(lab.jobs("copy")) == 1


def test_a_pipeline_over_a_repo_without_a_commit_waits(lab: Lab) -> None:
    lab.submit_into_empty_repo("source", lab.spec("copy", pfs("source")))
    ran = lab.run()
    assert (ran.summary.jobs, dict(ran.summary.waiting)) == ((), {"copy": "source@master"})
    lab.put("source", {"a": "1"})
    assert lab.run().counts == {"copy": (1, 0)}


def test_a_pipeline_over_an_unknown_repo_is_refused(lab: Lab) -> None:
    lab.put("source", {"a": "1"})
    with pytest.raises(NotFoundError, match="sorce") as caught:
        lab.submit(lab.spec("copy", pfs("sorce")))
    assert "did you mean source?" in str(caught.value.hint)


def test_pipelines_that_read_each_other_are_refused(lab: Lab) -> None:
    with pytest.raises(InvalidInputError, match=r"cycle|reads itself|each other"):
        lab.submit(lab.spec("one", pfs("two")), lab.spec("two", pfs("one")))
    assert list(lab.store.refresh().pipelines()) == []


def test_nobody_but_its_pipeline_writes_an_output_branch(lab: Lab) -> None:
    lab.put("source", {"a": "1"})
    lab.submit(lab.spec("copy", pfs("source")))
    lab.run()
    with pytest.raises(ReadOnlyError, match="copy"):
        lab.put("copy", {"mine": "1"})


def test_a_branch_that_is_rewound_makes_a_commit_whose_parent_is_the_last_output(lab: Lab) -> None:
    first = lab.put("source", {"a": "1"})
    lab.submit(lab.spec("copy", pfs("source")))
    lab.run()
    lab.put("source", {"a": "2"})
    lab.run()
    newest = lab.head("copy")
    lab.move("source", first)
    lab.run()
    assert lab.store["copy"].parents == (newest,)
    assert lab.files("copy") == {"/a": "1"}


def test_commits_to_a_branch_that_nobody_reads_start_nothing(lab: Lab) -> None:
    lab.put("source", {"a": "1"})
    lab.submit(lab.spec("copy", pfs("source")))
    lab.run()
    lab.put("source", {"b": "2"}, branch="work")
    assert lab.run().summary.jobs == ()


def test_processing_is_deferred_by_moving_the_branch_that_is_read(lab: Lab) -> None:
    lab.put("source", {"a": "1"}, branch="staging")
    lab.put("source", {}, branch="master")
    lab.submit(lab.spec("copy", pfs("source")))
    lab.run()
    for number in range(3):
        lab.put("source", {f"f{number}": "x"}, branch="staging")
        assert lab.run().summary.jobs == ()
    lab.move("source", lab.head("source", "staging"))
    assert lab.run().counts == {"copy": (4, 0)}


def test_targets_limit_a_run_to_them_and_what_they_need(lab: Lab) -> None:
    lab.put("source", {"a": "1"})
    lab.submit(lab.spec("one", pfs("source")), lab.spec("two", pfs("one")), lab.spec("other", pfs("source")))
    assert sorted(lab.run("two").states) == ["one", "two"]
    assert sorted(lab.run().states) == ["other"]


def test_a_job_knows_the_commits_of_its_inputs_and_their_roles(lab: Lab) -> None:
    lab.put("training", {"t": "1"})
    lab.put("images", {"x": "1"})
    lab.submit(
        lab.spec("model", pfs("training", "/"), "cp /pfs/training/t /pfs/out/m"),
        lab.spec("marked", cross(pfs("images"), pfs("model", "/"))),
    )
    lab.run()
    (job,) = lab.jobs("marked")
    assert {(bound.name, bound.role, bound.commit) for bound in job.inputs} == {
        ("images", "data", lab.head("images")),
        ("model", "model", lab.head("model")),
    }


def test_an_output_leads_to_its_inputs_through_every_pipeline(lab: Lab) -> None:
    lab.put("source", {"a": "1", "b": "2"})
    lab.submit(lab.spec("one", pfs("source")), lab.spec("two", pfs("one")))
    lab.run()
    (middle,) = lab.store.why("two:/b").inputs
    assert middle.made_by is not None
    (first,) = middle.made_by.inputs
    assert (first.repo, first.path, first.commit) == ("source", "/b", lab.head("source"))


def test_an_output_that_was_carried_over_names_the_job_that_computed_it(lab: Lab) -> None:
    lab.put("source", {"a": "1"})
    lab.submit(lab.spec("copy", pfs("source")))
    first = lab.run().job("copy").job
    lab.put("source", {"b": "2"})
    second = lab.run().job("copy").job
    origins = {path: why.computed_by.id for path in ("a", "b") if (why := lab.store.why(f"copy:/{path}")).computed_by}
    assert origins == {"a": first, "b": second}


def test_a_job_that_somebody_asks_to_stop_after_its_end_is_refused(lab: Lab) -> None:
    lab.put("source", {"a": "1"})
    lab.submit(lab.spec("copy", pfs("source")))
    job = lab.run().job("copy").job
    with pytest.raises(InvalidInputError, match="has ended: done"):
        lab.store.stop_job(job)


def test_jobs_of_one_pipeline_are_listed_newest_first(lab: Lab) -> None:
    lab.put("source", {"a": "1"})
    lab.submit(lab.spec("copy", pfs("source")))
    made = [lab.run().job("copy").job]
    for number in range(3):
        lab.put("source", {"a": f"v{number}"})
        made.append(lab.run().job("copy").job)
    assert [job for job, _ in lab.store.state.jobs("copy")] == made[::-1]


def test_a_repo_and_a_pipeline_cannot_share_a_name(lab: Lab) -> None:
    lab.put("source", {"a": "1"})
    lab.put("copy", {"b": "1"})
    with pytest.raises((InvalidInputError, ConflictError), match="copy"):
        lab.submit(lab.spec("copy", pfs("source"), COPY))
