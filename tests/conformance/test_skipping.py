"""What is computed again, and what never: a datum runs iff no success with its fingerprint is known in the store."""

from __future__ import annotations

from typing import Any

from tests.conformance.lab import Lab, Spec, cross, pfs, union

MARK = 'for f in /pfs/in/*; do { cat "$f"; cat /pfs/model/* 2>/dev/null || true; } > /pfs/out/$(basename "$f"); done'


def copies(lab: Lab, name: str = "copies", repo: str = "images", glob: str = "/*", **fields: Any) -> Spec:
    return lab.spec(name, pfs(repo, glob, name="in"), MARK, **fields)


def with_model(lab: Lab) -> Spec:
    return lab.spec("marked", cross(pfs("images", "/*", name="in"), pfs("model", "/")), MARK)


def test_a_first_job_computes_every_datum(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "2", "c": "3"})
    lab.submit(copies(lab))
    ran = lab.run()
    assert (ran.computed, ran.counts) == (3, {"copies": (3, 0)})


def test_a_new_file_is_one_datum(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "2"})
    lab.submit(copies(lab))
    lab.run()
    lab.put("images", {"c": "3"})
    assert lab.run().counts == {"copies": (1, 2)}
    assert lab.files("copies") == {"/a": "1", "/b": "2", "/c": "3"}


def test_a_changed_file_is_one_datum(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "2"})
    lab.submit(copies(lab))
    lab.run()
    lab.put("images", {"a": "one"})
    assert lab.run().counts == {"copies": (1, 1)}
    assert lab.files("copies") == {"/a": "one", "/b": "2"}


def test_an_equal_file_put_again_is_no_datum(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.submit(copies(lab))
    lab.run()
    lab.put("images", {"a": "1"})
    assert lab.run().computed == 0


def test_content_that_goes_from_a_to_b_to_a_is_computed_twice_not_thrice(lab: Lab) -> None:
    lab.put("images", {"x": "A"})
    lab.submit(copies(lab))
    computed = [lab.run().computed]
    for content in ("B", "A", "B", "A"):
        lab.put("images", {"x": content})
        computed.append(lab.run().computed)
    assert computed == [1, 1, 0, 0, 0]
    assert lab.files("copies") == {"/x": "A"}


def test_a_branch_that_is_moved_back_computes_nothing(lab: Lab) -> None:
    first = lab.put("images", {"x": "A", "y": "B"})
    lab.submit(copies(lab))
    lab.run()
    lab.put("images", {"x": "C", "z": "D"})
    lab.run()
    lab.move("images", first)
    assert lab.run().counts == {"copies": (0, 2)}
    assert lab.files("copies") == {"/x": "A", "/y": "B"}


def test_a_model_that_goes_from_a_to_b_to_a_computes_the_datums_of_each_once(lab: Lab) -> None:
    lab.put("images", {"x": "1", "y": "2"})
    lab.put("model", {"m": "A"})
    lab.submit(with_model(lab))
    computed = [lab.run().computed]
    for model in ("B", "A"):
        lab.put("model", {"m": model})
        computed.append(lab.run().computed)
    assert computed == [2, 2, 0]
    assert lab.files("marked") == {"/x": "1A", "/y": "2A"}


def test_data_that_arrived_under_another_model_is_all_that_runs_when_the_first_comes_back(lab: Lab) -> None:
    lab.put("images", {"x": "1"})
    lab.put("model", {"m": "A"})
    lab.submit(with_model(lab))
    lab.run()
    lab.put("model", {"m": "B"})
    lab.run()
    lab.put("images", {"y": "2"})
    lab.run()
    lab.put("model", {"m": "A"})
    assert lab.run().counts == {"marked": (1, 1)}


def test_a_renamed_pipeline_computes_nothing(lab: Lab) -> None:
    lab.put("images", {"x": "1", "y": "2"})
    lab.submit(copies(lab, "before"))
    lab.run()
    lab.store.delete_pipeline("before")
    lab.submit(copies(lab, "after"))
    assert lab.run().counts == {"after": (0, 2)}
    assert lab.files("after") == {"/x": "1", "/y": "2"}


def test_a_copied_pipeline_computes_nothing(lab: Lab) -> None:
    lab.put("images", {"x": "1"})
    lab.submit(copies(lab, "one"))
    lab.run()
    lab.submit(copies(lab, "two"))
    assert lab.run().counts == {"two": (0, 1)}


def test_equal_files_in_another_repo_compute_nothing(lab: Lab) -> None:
    lab.put("images", {"x": "1", "y": "2"})
    lab.put("scans", {"x": "1", "y": "2"})
    lab.submit(copies(lab, "one"))
    lab.run()
    lab.submit(copies(lab, "two", repo="scans"))
    assert lab.run().counts == {"two": (0, 2)}


def test_equal_files_on_another_branch_compute_nothing(lab: Lab) -> None:
    lab.put("images", {"x": "1"})
    lab.put("images", {"x": "1"}, branch="tests")
    lab.submit(copies(lab, "one"))
    lab.run()
    lab.submit(lab.spec("two", pfs("images", name="in", branch="tests"), MARK))
    assert lab.run().counts == {"two": (0, 1)}


def test_a_renamed_file_is_computed_again_because_code_may_look_at_names(lab: Lab) -> None:
    lab.put("images", {"x": "1"})
    lab.submit(copies(lab))
    lab.run()
    lab.remove("images", "x")
    lab.put("images", {"y": "1"})
    assert lab.run().counts == {"copies": (1, 0)}
    assert lab.files("copies") == {"/y": "1"}


def test_a_rename_inside_a_folder_that_is_one_datum_is_not_skipped(lab: Lab) -> None:
    lab.put("images", {"d/a": "1", "d/b": "2"})
    lab.submit(lab.spec("names", pfs("images", "/*", name="in"), "ls /pfs/in/d > /pfs/out/names"))
    lab.run()
    with lab.store.commit("images") as session:
        session.delete("d/a")
        session.write("d/aa", "1")
    assert lab.run().computed == 1
    assert lab.files("names") == {"/names": "aa\nb\n"}


def test_a_changed_command_computes_everything(lab: Lab) -> None:
    lab.put("images", {"x": "1", "y": "2"})
    lab.submit(copies(lab))
    lab.run()
    lab.submit(lab.spec("copies", pfs("images", name="in"), MARK + " # b"))
    assert lab.run().counts == {"copies": (2, 0)}


def test_a_command_that_is_changed_back_computes_nothing(lab: Lab) -> None:
    lab.put("images", {"x": "1", "y": "2"})
    lab.submit(copies(lab))
    lab.run()
    lab.submit(lab.spec("copies", pfs("images", name="in"), "true"))
    lab.run()
    lab.submit(copies(lab))
    assert lab.run().counts == {"copies": (0, 2)}
    assert lab.files("copies") == {"/x": "1", "/y": "2"}


def test_a_variable_of_the_environment_counts(lab: Lab) -> None:
    lab.put("images", {"x": "1"})
    lab.submit(copies(lab, transform={"env": {"SIZE": "1"}}))
    lab.run()
    lab.submit(copies(lab, transform={"env": {"SIZE": "2"}}))
    assert lab.run().computed == 1


def test_how_a_pipeline_is_run_does_not_count(lab: Lab) -> None:
    lab.put("images", {"x": "1"})
    lab.submit(copies(lab))
    lab.run()
    lab.submit(copies(lab, datum_tries=7, parallelism_spec={"constant": 4}, description="other words"))
    ran = lab.run()
    assert (ran.computed, ran.summary.jobs) == (0, ())


def test_the_image_of_a_command_that_runs_as_it_is_does_not_count(lab: Lab) -> None:
    lab.put("images", {"x": "1"})
    lab.submit(copies(lab, transform={"image": "tool:1"}))
    lab.run()
    lab.submit(copies(lab, transform={"image": "tool:2"}))
    assert lab.run().summary.jobs == ()


def test_another_glob_that_yields_the_same_files_is_another_expression(lab: Lab) -> None:
    lab.put("images", {"x": "1"})
    lab.submit(copies(lab))
    lab.run()
    lab.submit(copies(lab, glob="/?"))
    assert lab.run().computed == 1


def test_a_revert_computes_nothing_below(lab: Lab) -> None:
    lab.put("training", {"t": "A"})
    lab.put("images", {"x": "1"})
    lab.submit(
        lab.spec("model", pfs("training", "/"), "cp /pfs/training/t /pfs/out/m"),
        with_model(lab),
    )
    lab.run()
    good = lab.head("model")
    lab.put("training", {"t": "B"})
    lab.run()
    assert lab.files("marked") == {"/x": "1B"}
    lab.store.revert("model", good, why="test")
    assert lab.run().counts == {"marked": (0, 1)}
    assert lab.files("marked") == {"/x": "1A"}


def test_what_a_failed_job_finished_is_not_computed_again(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "bad", "c": "3"})
    line = 'for f in /pfs/in/*; do grep -qv bad "$f"; cp "$f" /pfs/out/; done'
    lab.submit(lab.spec("copies", pfs("images", name="in"), line, datum_tries=1))
    assert lab.run().states == {"copies": "failed"}
    lab.put("images", {"b": "2"})
    assert lab.run().counts == {"copies": (1, 2)}


def test_what_a_superseded_version_computed_is_known_to_the_next_that_equals_it(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    for line in ("cp /pfs/in/* /pfs/out/", "cat /pfs/in/* > /pfs/out/all"):
        lab.submit(lab.spec("copies", pfs("images", name="in"), line))
        assert lab.run().computed == 1
    lab.put("images", {"b": "2"})
    assert lab.run().states == {"copies": "failed"}, "both datums write /all"
    lab.submit(lab.spec("copies", pfs("images", name="in"), "cp /pfs/in/* /pfs/out/"))
    assert lab.run().counts == {"copies": (1, 1)}


def test_a_job_that_reuses_everything_still_makes_its_commit(lab: Lab) -> None:
    first = lab.put("images", {"x": "A"})
    lab.submit(copies(lab))
    lab.run()
    lab.put("images", {"x": "B"})
    lab.run()
    before = lab.head("copies")
    lab.move("images", first)
    ran = lab.run()
    assert ran.counts == {"copies": (0, 1)}
    assert lab.head("copies") not in ("", before)


def test_the_order_in_which_a_union_is_written_counts_as_its_expression(lab: Lab) -> None:
    lab.put("a", {"x": "1"})
    lab.put("b", {"y": "2"})
    lab.submit(lab.spec("both", union(pfs("a"), pfs("b"))))
    assert lab.run().computed == 2
    lab.put("b", {"z": "3"})
    assert lab.run().counts == {"both": (1, 2)}


def test_the_salt_of_a_spec_counts(lab: Lab) -> None:
    lab.put("images", {"x": "1"})
    lab.submit(copies(lab, salt="one"))
    lab.run()
    lab.submit(copies(lab, salt="two"))
    assert lab.run().computed == 1
    lab.submit(copies(lab, salt="one"))
    assert lab.run().counts == {"copies": (0, 1)}


BY_CONTENT = 'f=$(sha1sum < /pfs/in/* | cut -c-8); cp /pfs/in/* "/pfs/out/$f"'


def by_content(lab: Lab) -> None:
    lab.submit(lab.spec("digests", pfs("images", "/**", name="in"), BY_CONTENT, by_content=True))


def test_by_content_a_renamed_file_is_not_computed_again(lab: Lab) -> None:
    lab.put("images", {"x": "1", "y": "2"})
    by_content(lab)
    before = lab.run() and lab.tree("digests")
    lab.remove("images", "x")
    lab.put("images", {"z": "1"})
    assert lab.run().counts == {"digests": (0, 2)}
    assert lab.tree("digests") == before


def test_by_content_a_copy_is_not_computed_again_and_outlives_the_original(lab: Lab) -> None:
    lab.put("images", {"x": "1"})
    by_content(lab)
    before = lab.run() and lab.tree("digests")
    lab.put("images", {"copy": "1"})
    assert lab.run().counts == {"digests": (0, 2)}
    lab.remove("images", "x")
    assert lab.run().counts == {"digests": (0, 1)}
    assert lab.tree("digests") == before
    assert [use.path for use in lab.store.why(f"digests:{next(iter(lab.files('digests')))}").inputs] == ["/copy"]
    lab.remove("images", "copy")
    lab.run()
    assert lab.files("digests") == {}


def test_by_content_equal_new_files_are_computed_once(lab: Lab) -> None:
    lab.put("images", {"x": "1", "y": "1", "z": "2"})
    by_content(lab)
    assert lab.plan()["digests"].run == 2
    ran = lab.run()
    assert (ran.computed, ran.counts) == (2, {"digests": (2, 1)})
    assert sorted(lab.files("digests").values()) == ["1", "2"]
    lab.remove("images", "x")
    assert lab.run().computed == 0
    assert sorted(lab.files("digests").values()) == ["1", "2"]
    assert lab.store.why(next(f"digests:{path}" for path, text in lab.files("digests").items() if text == "1"))
    lab.put("images", {"x": "3", "y": "3"})
    assert lab.run().counts == {"digests": (1, 2)}
    assert sorted(lab.files("digests").values()) == ["2", "3"]


def test_by_content_equal_files_fail_together_and_are_tried_once(lab: Lab) -> None:
    lab.put("images", {"x": "1", "y": "1", "z": "2"})
    line = f'test "$(cat /pfs/in/*)" != 1; {BY_CONTENT}'
    spec = lab.spec("digests", pfs("images", "/*", name="in"), line, by_content=True, datumTries=1, max_failures=2)
    lab.submit(spec)
    ran = lab.run()
    assert ran.computed == 2
    assert (ran.job("digests").counters.failed, ran.job("digests").counters.run) == (2, 1)
    lab.put("images", {"w": "4"})
    assert lab.run().computed == 2


# --- every_job: nothing is skipped


def test_every_job_computes_all_datums_again(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "2"})
    lab.submit(copies(lab, reprocess_spec="every_job"))
    assert lab.run().each("copies") == [(2, 0)]
    lab.put("images", {"c": "3"})
    assert lab.run().each("copies") == [(3, 0)]
    lab.remove("images", "a")
    assert lab.run().each("copies") == [(2, 0)]
    assert lab.files("copies") == {"/b": "2", "/c": "3"}


def test_every_job_starts_none_by_itself(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.submit(copies(lab, reprocess_spec="every_job"))
    lab.run()
    assert lab.run().each("copies") == []
    assert lab.plan()["copies"].status == "up to date"


def test_every_job_takes_no_result_of_others(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.submit(copies(lab))
    lab.run()
    lab.submit(copies(lab, "anew", reprocess_spec="every_job"))
    assert lab.run().each("anew") == [(1, 0)]


def test_what_every_job_computed_is_known_to_others(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.submit(copies(lab, "anew", reprocess_spec="every_job"))
    lab.run()
    lab.submit(copies(lab))
    assert lab.run().each("copies") == [(0, 1)]


def test_every_job_or_not_is_no_part_of_what_is_computed(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.submit(copies(lab, reprocess_spec="every_job"))
    lab.run()
    assert [each.status for each in lab.submit(copies(lab))] == ["cosmetic"]
    lab.put("images", {"b": "2"})
    assert lab.run().each("copies") == [(1, 1)]


def test_every_job_plans_all_and_says_why(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "2"})
    lab.submit(copies(lab, reprocess_spec="every_job"))
    lab.run()
    lab.put("images", {"b": "two"})
    plan = lab.plan()["copies"]
    assert (plan.run, plan.total, plan.reasons[0][:2]) == (2, 2, ("forced: every job computes all", 2))


def test_every_job_tries_what_failed_again(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "bad"})
    line = 'test "$(cat /pfs/in/*)" != bad; cp /pfs/in/* /pfs/out/'
    spec = lab.spec("p", pfs("images", name="in"), line, reprocess_spec="every_job", datumTries=1, max_failures=1)
    lab.submit(spec)
    assert lab.run().each("p") == [(1, 0)]
    lab.put("images", {"c": "3"})
    ran = lab.run()
    assert (ran.computed, ran.each("p")) == (3, [(2, 0)])
    assert lab.files("p") == {"/a": "1", "/c": "3"}
