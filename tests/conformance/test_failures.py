"""Failed and recovered datums, `max_failures`, retries, and datums that are computed again on request."""

from __future__ import annotations

import pytest

from dmlpipe.storage.errors import ConflictError, NotFoundError
from tests.conformance.lab import Lab, Spec, pfs

CHECK = 'for f in /pfs/in/*; do if grep -q bad "$f"; then echo "no: $f" >&2; exit 3; fi; cp "$f" /pfs/out/; done'
RECOVER = {"err_cmd": ["sh", "-c", "true"]}


def checked(lab: Lab, repo: str = "images", **fields: object) -> Spec:
    return lab.spec("checked", pfs(repo, name="in"), CHECK, **{"datum_tries": 1, **fields})  # type: ignore[arg-type]


def test_a_failed_datum_does_not_stop_the_others(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "bad", "c": "3"})
    lab.submit(checked(lab))
    ran = lab.run()
    assert ran.computed == 3
    assert ran.job("checked").counters.run == 2


def test_a_failed_job_names_the_first_failure_and_counts_all(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "bad", "c": "bad", "d": "4"})
    lab.submit(checked(lab))
    job = lab.run().job("checked")
    assert job.state == "failed"
    assert job.reason == "2 of 4 datums failed (max_failures=0), first: images:/b"
    assert [(group.count, group.path) for group in job.failures] == [(2, "images:/b")]


def test_a_failed_job_publishes_nothing(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.submit(checked(lab))
    lab.run()
    before = lab.head("checked")
    lab.put("images", {"b": "bad"})
    job = lab.run().job("checked")
    assert (job.commit, job.head, lab.head("checked")) == ("", before, before)


def test_what_reads_a_failed_pipeline_is_unrunnable_and_names_the_job(lab: Lab) -> None:
    lab.put("images", {"a": "bad"})
    lab.submit(checked(lab), lab.spec("after", pfs("checked")), lab.spec("last", pfs("after")))
    ran = lab.run()
    assert ran.states == {"checked": "failed", "after": "unrunnable", "last": "unrunnable"}
    failed = ran.job("checked").job
    assert ran.job("after").reason == f"checked failed in job {failed[:6]}"
    assert {job.because for job in lab.jobs() if job.state == "unrunnable"} == {failed}


def test_other_pipelines_of_the_run_go_on(lab: Lab) -> None:
    lab.put("images", {"a": "bad"})
    lab.submit(checked(lab), lab.spec("copy", pfs("images")))
    assert lab.run().states == {"checked": "failed", "copy": "done"}


def test_a_run_after_the_failure_uses_the_last_good_output(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.put("labels", {"x": "1"})
    both = {"cross": [pfs("checked", "/"), pfs("labels", "/")]}
    lab.submit(checked(lab), lab.spec("report", both))
    lab.run()
    lab.put("images", {"b": "bad"})
    lab.run()
    lab.put("images", {"b": "2"})
    lab.put("labels", {"x": "2"})
    assert lab.run().states == {"checked": "done", "report": "done"}
    assert lab.files("report") == {"/a": "1", "/b": "2", "/x": "2"}


def test_the_next_run_tries_again_though_nothing_changed_and_computes_only_what_failed(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "bad"})
    lab.submit(checked(lab))
    lab.run()
    ran = lab.run()
    assert (ran.computed, ran.states) == (1, {"checked": "failed"})


def test_a_job_whose_first_50_datums_all_fail_stops(lab: Lab) -> None:
    lab.put("images", {f"{number:04d}": "bad" for number in range(1000)})
    lab.submit(checked(lab))
    ran = lab.run()
    assert ran.job("checked").reason == "the first 50 datums all failed"
    assert ran.computed < 1000


def test_every_datum_of_a_spec_has_three_tries(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    tries = f"{lab.folder}/tries"
    lab.submit(lab.spec("flaky", pfs("images", name="in"), f"echo x >> {tries}; exit 1"))
    assert lab.run().states == {"flaky": "failed"}
    assert (lab.folder / "tries").read_text() == "x\n" * 3


def test_a_datum_that_succeeds_at_its_last_try_succeeds(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    tries = f"{lab.folder}/tries"
    line = f"echo x >> {tries}; test $(wc -l < {tries}) = 2; cp /pfs/in/* /pfs/out/"
    lab.submit(lab.spec("flaky", pfs("images", name="in"), line, datum_tries=2))
    assert lab.run().states == {"flaky": "done"}


def test_what_a_failed_try_wrote_is_not_in_the_output(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    tries = f"{lab.folder}/tries"
    line = f"echo x >> {tries}; touch /pfs/out/try$(wc -l < {tries}); test $(wc -l < {tries}) = 2"
    lab.submit(lab.spec("flaky", pfs("images", name="in"), line, datum_tries=2))
    lab.run()
    assert list(lab.files("flaky")) == ["/try2"]


def test_a_recovered_datum_does_not_fail_the_job_and_leaves_no_output(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "bad"})
    lab.submit(checked(lab, transform=RECOVER))
    ran = lab.run()
    counters = ran.job("checked").counters
    assert (ran.states, counters.run, counters.recovered, counters.failed) == ({"checked": "done"}, 1, 1, 0)
    assert lab.files("checked") == {"/a": "1"}


def test_a_recovered_datum_is_tried_again_by_the_next_job(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "bad"})
    lab.submit(checked(lab, transform=RECOVER))
    lab.run()
    lab.put("images", {"c": "3"})
    ran = lab.run()
    assert (ran.computed, ran.job("checked").counters.recovered) == (2, 1)


def test_an_error_command_that_fails_fails_the_datum(lab: Lab) -> None:
    lab.put("images", {"a": "bad"})
    lab.submit(checked(lab, transform={"err_cmd": ["sh", "-c", "exit 1"]}))
    assert lab.run().states == {"checked": "failed"}


def test_accepted_exit_codes_are_successes(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "bad"})
    lab.submit(checked(lab, transform={"accept_return_code": [3]}))
    assert lab.run().counts == {"checked": (2, 0)}


def test_what_a_failed_datum_printed_says_why(lab: Lab) -> None:
    lab.put("images", {"a": "bad"})
    lab.submit(checked(lab))
    (group,) = lab.run().job("checked").failures
    assert "3" in group.failure.message


def test_chosen_datums_are_computed_again_and_no_others(lab: Lab) -> None:
    lab.put("images", {"a1": "1", "a2": "2", "b1": "3"})
    lab.submit(checked(lab))
    lab.run()
    assert lab.store.reprocess("checked", ["images:/a*"]) == 2
    (plan,) = lab.plan().pipelines
    assert [(count, example) for _, count, example in plan.reasons] == [(2, "images:/a1")]
    assert lab.run().counts == {"checked": (2, 1)}
    assert lab.run().summary.jobs == ()


def test_one_datum_is_restarted_by_its_input_its_output_or_its_id(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "2"})
    lab.submit(checked(lab))
    lab.run()
    made = lab.store.why("checked:/b").datum
    assert made is not None
    for name in ("images:/b", "checked:/b", made.id[:8]):
        assert lab.store.restart_datum(name) == ("checked", "images:/b")
        assert lab.run().counts == {"checked": (1, 1)}


def test_a_datum_that_nothing_means_is_refused(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.submit(checked(lab))
    lab.run()
    n = lab.store.refresh().n
    with pytest.raises(NotFoundError, match="no datum 'images:/z"):
        lab.store.reprocess("checked", ["images:/a", "images:/z*"])
    with pytest.raises(NotFoundError, match="no pipeline 'chekd'"):
        lab.store.reprocess("chekd", ["/a"])
    assert lab.store.refresh().n == n


def test_datums_of_a_pipeline_that_never_ran_need_no_order(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.submit(checked(lab))
    with pytest.raises(ConflictError, match="computes all of them"):
        lab.store.reprocess("checked", ["/a"])


def test_everything_is_computed_again_on_request(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "2"})
    lab.submit(checked(lab))
    lab.run()
    lab.store.reprocess("checked")
    assert lab.run().counts == {"checked": (2, 0)}
    lab.submit(checked(lab))
    assert lab.run().summary.jobs == (), "submitting the same file again does not undo it"


def test_max_failures_as_a_number_makes_the_commit_without_the_failed(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "bad", "c": "bad"})
    lab.submit(checked(lab, max_failures=2))
    ran = lab.run()
    assert ran.states == {"checked": "done"}
    assert (ran.job("checked").counters.run, ran.job("checked").counters.failed) == (1, 2)
    assert lab.files("checked") == {"/a": "1"}


def test_one_failure_more_than_max_failures_fails_the_job(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "bad", "c": "bad"})
    lab.submit(checked(lab, max_failures=1))
    assert lab.run().states == {"checked": "failed"}


@pytest.mark.parametrize(("share", "state"), [("25%", "done"), ("24%", "failed")])
def test_max_failures_as_a_percentage_is_of_all_datums(lab: Lab, share: str, state: str) -> None:
    lab.put("images", {"a": "1", "b": "bad", "c": "3", "d": "4"})
    lab.submit(checked(lab, max_failures=share))
    assert lab.run().states == {"checked": state}


def test_tolerated_failures_are_listed_in_the_commit_with_their_cause(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "bad"})
    lab.submit(checked(lab, max_failures=1))
    lab.run()
    failed = dict(lab.store.tree(lab.store["checked"].body.failed).scan())
    assert list(failed) == [b"b"]
    assert b"exit" in failed[b"b"] or b"3" in failed[b"b"]


def test_tolerated_failures_are_tried_again_by_the_next_job_and_leave_the_list(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "bad"})
    lab.submit(checked(lab, max_failures=1))
    lab.run()
    assert lab.run().summary.jobs == (), "nothing changed: no job"
    lab.put("images", {"c": "3"})
    ran = lab.run()
    assert (ran.computed, ran.job("checked").counters.failed) == (2, 1)
    lab.put("images", {"b": "2"})
    assert lab.run().counts == {"checked": (1, 2)}
    assert lab.store["checked"].body.failed == ""


def test_a_result_of_a_datum_that_fails_later_leaves_the_output(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "2"})
    lab.submit(checked(lab, max_failures=1))
    lab.run()
    lab.put("images", {"b": "bad"})
    lab.run()
    assert lab.files("checked") == {"/a": "1"}


def test_only_failed_tries_again_what_max_failures_let_pass(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "bad", "c": "3"})
    lab.submit(checked(lab, max_failures=1))
    lab.run()
    assert lab.store.reprocess("checked", only_failed=True) == 1
    assert lab.run().computed == 1
    lab.put("images", {"b": "2"})
    lab.run()
    assert lab.store.reprocess("checked", only_failed=True) == 0
    assert lab.run().summary.jobs == ()
