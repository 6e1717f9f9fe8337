"""What a commit starts, and what it does not: chains, diamonds, quiet inputs, branches, rewinds, backfill."""

from __future__ import annotations

from tests.conformance.lab import Lab, Spec, cross, pfs

IMAGES = "cp /pfs/in/* /pfs/out/"


def quiet(repo: str, glob: str = "/", **fields: object) -> Spec:
    return pfs(repo, glob, propagationSpec={"never": True}, **fields)


def with_model(lab: Lab) -> Spec:
    return lab.spec("marked", cross(pfs("images", "/*", name="in"), quiet("model")), IMAGES)


def test_a_commit_runs_the_whole_chain_once(lab: Lab) -> None:
    lab.put("r", {"a": "1"})
    lab.submit(lab.spec("one", pfs("r")), lab.spec("two", pfs("one")), lab.spec("three", pfs("two")))
    assert lab.run().counts == {"one": (1, 0), "two": (1, 0), "three": (1, 0)}
    lab.put("r", {"b": "2"})
    assert lab.run().counts == {"one": (1, 1), "two": (1, 1), "three": (1, 1)}


def test_a_commit_starts_only_what_reads_its_branch(lab: Lab) -> None:
    lab.put("r", {"a": "1"})
    lab.put("r", {"a": "1"}, branch="other")
    lab.submit(lab.spec("main", pfs("r")), lab.spec("side", pfs("r", branch="other")))
    lab.run()
    lab.put("r", {"b": "2"}, branch="other")
    assert lab.run().counts == {"side": (1, 1)}


def test_a_diamond_of_unequal_sides_runs_its_bottom_once(lab: Lab) -> None:
    lab.put("r", {"a": "1"})
    bottom = lab.spec("bottom", cross(pfs("short"), pfs("long2")), "cat /pfs/short/* > /pfs/out/x")
    lab.submit(lab.spec("short", pfs("r")), lab.spec("long1", pfs("r")), lab.spec("long2", pfs("long1")), bottom)
    lab.run()
    assert len(lab.jobs("bottom")) == 1
    lab.put("r", {"a": "2"})
    lab.run()
    assert len(lab.jobs("bottom")) == 2


def test_two_commits_before_a_run_are_one_run_where_only_heads_count(lab: Lab) -> None:
    lab.put("r", {"a": "1"})
    lab.put("s", {"b": "1"})
    lab.submit(lab.spec("p", cross(pfs("r"), pfs("s")), every_commit=False))
    lab.run()
    lab.put("r", {"a": "2"})
    lab.put("s", {"b": "2"})
    assert lab.run().counts == {"p": (1, 0)}
    assert len(lab.jobs("p")) == 2


def test_an_output_that_stays_equal_starts_a_job_that_computes_nothing(lab: Lab) -> None:
    lab.put("r", {"a": "1"})
    lab.submit(lab.spec("one", pfs("r"), "echo same > /pfs/out/x"), lab.spec("two", pfs("one")))
    lab.run()
    lab.put("r", {"a": "2"})
    ran = lab.run()
    assert ran.computed == 1
    assert ran.counts["two"] in {(0, 1), ()}


def test_a_quiet_input_starts_no_job(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.put("model", {"m": "1"})
    lab.submit(with_model(lab))
    assert lab.run().counts == {"marked": (1, 0)}
    lab.put("model", {"m": "2"})
    assert lab.run().counts == {}
    assert lab.plan()["marked"].status == "up to date"


def test_the_next_job_sees_the_newest_commit_of_a_quiet_input(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.put("model", {"m": "1"})
    lab.submit(with_model(lab))
    lab.run()
    lab.put("model", {"m": "2"})
    newest = lab.put("model", {"m": "3"})
    lab.put("images", {"b": "1"})
    assert lab.run().counts == {"marked": (2, 0)}
    assert {bound.name: bound.commit for bound in lab.jobs("marked")[0].inputs}["model"] == newest


def test_a_branch_that_another_input_hears_is_not_quiet(lab: Lab) -> None:
    lab.put("r", {"a": "1"})
    lab.submit(lab.spec("p", cross(pfs("r", "/*", name="loud"), quiet("r", name="whole"))))
    lab.run()
    lab.put("r", {"b": "1"})
    assert lab.run().job("p").counters.run == 2


def test_a_quiet_input_is_quiet_for_its_pipeline_only(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.put("model", {"m": "1"})
    lab.submit(with_model(lab), lab.spec("other", pfs("model")))
    lab.run()
    lab.put("model", {"m": "2"})
    assert lab.run().counts == {"other": (1, 0)}


def test_a_failure_above_a_quiet_input_leaves_its_last_good_commit(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.put("training", {"t": "1"})
    line = 'test "$(cat /pfs/training/t)" != bad; cp /pfs/training/t /pfs/out/m'
    lab.submit(lab.spec("model", pfs("training", "/"), line, datumTries=1), with_model(lab))
    lab.run()
    good = lab.head("model")
    lab.put("training", {"t": "bad"})
    lab.put("images", {"b": "1"})
    assert lab.run().states == {"model": "failed", "marked": "done"}
    assert {bound.name: bound.commit for bound in lab.jobs("marked")[0].inputs}["model"] == good


def test_quiet_is_no_part_of_what_is_computed(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.put("model", {"m": "1"})
    lab.submit(with_model(lab))
    lab.run()
    (told,) = lab.submit(lab.spec("marked", cross(pfs("images", "/*", name="in"), pfs("model", "/")), IMAGES))
    assert told.status == "cosmetic"
    assert lab.run().counts == {}
    lab.put("model", {"m": "2"})
    assert lab.run().counts == {"marked": (1, 0)}


def test_a_rewind_makes_a_commit_and_computes_nothing(lab: Lab) -> None:
    first = lab.put("r", {"a": "1"})
    lab.submit(lab.spec("p", pfs("r")))
    lab.run()
    tree = lab.tree("p")
    lab.put("r", {"a": "2", "b": "2"})
    lab.run()
    second = lab.head("p")
    lab.move("r", first)
    assert lab.run().computed == 0
    assert lab.tree("p") == tree
    assert lab.store.body(lab.head("p")).parents == (second,)


def test_a_rewind_of_one_side_of_a_diamond_takes_the_bottom_along(lab: Lab) -> None:
    first = lab.put("r", {"a": "1"})
    lab.submit(lab.spec("left", pfs("r")), lab.spec("bottom", cross(pfs("r", name="in"), pfs("left"))))
    lab.run()
    tree = lab.tree("bottom")
    lab.put("r", {"a": "2"})
    lab.run()
    lab.move("r", first)
    assert lab.run().computed == 0
    assert lab.tree("bottom") == tree


def test_a_pipeline_over_a_repo_with_history_begins_with_its_head(lab: Lab) -> None:
    for number in "123":
        lab.put("r", {number: number})
    lab.submit(lab.spec("p", pfs("r")))
    assert lab.run().counts == {"p": (3, 0)}
    assert len(lab.jobs("p")) == 1


def test_a_pipeline_below_an_existing_one_is_filled_without_running_that_again(lab: Lab) -> None:
    lab.put("r", {"a": "1", "b": "2"})
    lab.submit(lab.spec("one", pfs("r")))
    lab.run()
    lab.submit(lab.spec("two", pfs("one")))
    assert lab.run().counts == {"two": (2, 0)}


def test_a_new_input_branch_starts_its_pipeline_with_that_branch(lab: Lab) -> None:
    lab.put("r", {"a": "1"})
    lab.put("r", {"b": "1"}, branch="dev")
    lab.submit(lab.spec("p", pfs("r")))
    lab.run()
    lab.submit(lab.spec("p", pfs("r", branch="dev")))
    lab.run()
    assert lab.files("p") == {"/b": "1"}
