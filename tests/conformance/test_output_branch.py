"""Pipelines that publish on another branch than `master`."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmlpipe.scheduler.inputs.leaf import files
from dmlpipe.scheduler.inputs.standing import trigger
from dmlpipe.scheduler.pipelines.dag import DAG
from dmlpipe.scheduler.pipelines.dag import Files as Outputs
from dmlpipe.storage.errors import ErrorCode, InvalidInputError, ReadOnlyError
from tests.conformance.lab import Lab, pfs


@pytest.fixture
def staged(lab: Lab) -> Lab:
    """A pipeline that publishes on `staging`, up to date."""
    lab.put("r", {"a": "1"})
    lab.submit(lab.spec("p", pfs("r"), output_branch="staging"))
    lab.run()
    return lab


def test_outputs_are_committed_to_the_named_branch(staged: Lab) -> None:
    assert staged.files("p@staging") == {"/a": "1"}
    assert staged.head("p") == ""


def test_each_job_follows_the_one_before_on_it(staged: Lab) -> None:
    first = staged.head("p", "staging")
    staged.put("r", {"b": "2"})
    staged.run()
    assert staged.store.body(staged.head("p", "staging")).parents == (first,)


def test_consumers_of_the_branch_run_below(staged: Lab) -> None:
    staged.submit(staged.spec("q", pfs("p", branch="staging")))
    assert staged.run().counts == {"q": (1, 0)}
    staged.put("r", {"b": "2"})
    assert staged.run().counts == {"p": (1, 1), "q": (1, 1)}
    assert staged.jobs("q")[0].inputs[0].role == "intermediate"


def test_both_in_one_file_are_put_in_order(lab: Lab) -> None:
    lab.put("r", {"a": "1"})
    lab.submit(lab.spec("a", pfs("z", branch="staging")), lab.spec("z", pfs("r"), output_branch="staging"))
    assert list(lab.run().counts) == ["z", "a"]


def test_consumers_of_master_wait_until_somebody_moves_it(staged: Lab) -> None:
    staged.submit(staged.spec("q", pfs("p")))
    assert staged.run().counts == {}
    assert staged.plan()["q"].status == "waits for data"
    staged.store.create_branch("p", "master", "p@staging")
    assert staged.run().counts == {"q": (1, 0)}
    staged.put("r", {"b": "2"})
    assert staged.run().counts == {"p": (1, 1)}
    staged.move("p", "staging")
    assert staged.run().counts == {"q": (1, 1)}


def test_a_trigger_may_carry_it_on_to_master(staged: Lab) -> None:
    staged.store.set_trigger("p", "master", trigger("staging", commits=3))
    staged.submit(staged.spec("q", pfs("p")))
    staged.put("r", {"b": "2"})
    assert staged.run().states == {"p": "done"}
    staged.put("r", {"c": "3"})
    assert staged.run().states == {"p": "done", "q": "done"}
    assert staged.files("q") == {"/a": "1", "/b": "2", "/c": "3"}


def test_a_failed_job_below_makes_what_reads_it_unrunnable(lab: Lab) -> None:
    lab.put("r", {"a": "1"})
    lab.submit(lab.spec("p", pfs("r"), "false", output_branch="staging"), lab.spec("q", pfs("p", branch="staging")))
    assert lab.run().states == {"p": "failed", "q": "unrunnable"}


def test_another_branch_is_a_version_that_computes_nothing(staged: Lab) -> None:
    (told,) = staged.submit(staged.spec("p", pfs("r"), output_branch="other"))
    assert told.status == "cosmetic"
    ran = staged.run()
    assert (ran.computed, ran.counts) == (0, {"p": (0, 1)})
    assert staged.tree("p@other") == staged.tree("p@staging")
    assert staged.store.body(staged.head("p", "other")).parents == ()


def test_what_was_published_elsewhere_stays(staged: Lab) -> None:
    before = staged.head("p", "staging")
    staged.submit(staged.spec("p", pfs("r")))
    staged.run()
    staged.put("r", {"b": "2"})
    staged.run()
    assert staged.head("p", "staging") == before
    assert staged.files("p") == {"/a": "1", "/b": "2"}


def test_the_branch_is_no_part_of_what_is_computed(staged: Lab) -> None:
    staged.submit(staged.spec("copy", pfs("r"), output_branch="elsewhere"))
    assert staged.run().counts == {"copy": (0, 1)}


def test_why_leads_from_an_output_to_its_input(staged: Lab) -> None:
    found = staged.store.why("p@staging:/a")
    assert [use.path for use in found.inputs] == ["/a"]


def test_status_shows_what_stands_there(staged: Lab) -> None:
    (found,) = staged.store.status().pipelines
    assert (found.head, found.files, found.state) == (staged.head("p", "staging"), 1, "idle")


def test_plan_says_what_would_run_below(staged: Lab) -> None:
    staged.submit(staged.spec("q", pfs("p", branch="staging")))
    staged.run()
    staged.put("r", {"b": "2"})
    plans = staged.plan()
    assert (plans["p"].status, plans["q"].status, plans["q"].if_upstream) == ("would run", "if", "p")


def test_revert_and_release_move_that_branch(staged: Lab) -> None:
    first = staged.head("p", "staging")
    staged.submit(staged.spec("q", pfs("p", branch="staging")))
    staged.put("r", {"b": "2"})
    staged.run()
    staged.store.revert("p", "p@staging^", why="try")
    assert staged.head("p", "staging") == first
    assert staged.run().counts == {"q": (0, 1)}
    staged.put("r", {"c": "3"})
    staged.run()
    staged.store.release("p")
    staged.run()
    assert staged.files("p@staging") == {"/a": "1", "/b": "2", "/c": "3"}


def test_nobody_else_writes_or_moves_it(staged: Lab) -> None:
    with pytest.raises(ReadOnlyError):
        staged.put("p", {"x": "1"}, branch="staging")
    with pytest.raises(ReadOnlyError, match="p@staging is published by pipeline 'p'"):
        staged.move("p", "staging", branch="staging")
    with pytest.raises(ReadOnlyError):
        staged.store.delete_branch("p", "staging")
    with pytest.raises(InvalidInputError, match="follows none"):
        staged.store.set_trigger("p", "staging", trigger("master", commits=1))


def test_it_cannot_be_made_by_hand_before_the_first_job(lab: Lab) -> None:
    lab.put("r", {"a": "1"})
    lab.submit(lab.spec("p", pfs("r")))
    lab.run()
    lab.submit(lab.spec("p", pfs("r"), output_branch="staging"))
    with pytest.raises(ReadOnlyError):
        lab.store.create_branch("p", "staging", "p@master")


def test_a_branch_that_follows_another_is_refused(staged: Lab) -> None:
    staged.store.set_trigger("p", "prod", trigger("staging", commits=1))
    with pytest.raises(InvalidInputError, match="would publish on p@prod, which follows another branch"):
        staged.submit(staged.spec("p", pfs("r"), output_branch="prod"))


def test_a_pipeline_cannot_read_a_branch_of_the_repo_it_writes(staged: Lab) -> None:
    with pytest.raises(InvalidInputError, match="reads its own output: p@other") as refused:
        staged.submit(staged.spec("p", pfs("p", branch="other"), output_branch="staging"))
    assert refused.value.code is ErrorCode.CYCLE


def test_two_that_read_each_other_by_branches_nobody_publishes_are_no_cycle(lab: Lab) -> None:
    lab.put("r", {"a": "1"})
    lab.submit(
        lab.spec("p", {"union": [pfs("r", name="in"), pfs("q", branch="back", name="in")]}),
        lab.spec("q", pfs("p")),
    )
    assert lab.plan()["p"].status == "waits for data"


def test_a_wrong_name_is_refused(lab: Lab) -> None:
    lab.put("r", {"a": "1"})
    with pytest.raises(InvalidInputError, match="no/good"):
        lab.submit(lab.spec("p", pfs("r"), output_branch="no/good"))


def test_a_pipeline_with_readers_of_its_branch_is_not_deleted(staged: Lab) -> None:
    staged.submit(staged.spec("q", pfs("p", branch="staging")))
    with pytest.raises(InvalidInputError, match="is read by q"):
        staged.store.delete_pipeline("p")


def test_egress_sends_what_stands_there(lab: Lab, tmp_path: Path) -> None:
    lab.put("r", {"a": "1"})
    lab.submit(lab.spec("p", pfs("r"), output_branch="staging", egress={"URL": f"file://{tmp_path}/there"}))
    lab.run()
    assert (tmp_path / "there" / "a").read_text() == "1"


def test_functions_say_it_too(lab: Lab) -> None:
    dag = DAG("functions")

    @dag.pipeline(files("r", "/*"), output_branch="staging")
    def p(r: Path) -> Outputs:
        return {r.name: r.read_bytes()}

    dag.command("q", "cp $p/* $out/", files("p", "/", branch="staging"))
    lab.put("r", {"a": "1"})
    dag.submit(lab.store)
    lab.run(dag=dag)
    assert lab.files("p@staging") == lab.files("q") == {"/a": "1"}
