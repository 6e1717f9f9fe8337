"""What a job leaves: outputs that vanish with their input, clashes, empty in- and outputs, names, links."""

from __future__ import annotations

import pytest

from tests.conformance.lab import COPY, Lab, cross, pfs

EACH = 'f=$(basename /pfs/in/*); cp "/pfs/in/$f" "/pfs/out/$f"'


def test_the_output_of_a_removed_input_vanishes(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "2"})
    lab.submit(lab.spec("copy", pfs("images")))
    lab.run()
    lab.remove("images", "a")
    ran = lab.run()
    assert lab.files("copy") == {"/b": "2"}
    assert (ran.computed, ran.job("copy").counters.removed) == (0, 1)


def test_the_old_output_of_a_changed_input_vanishes(lab: Lab) -> None:
    lab.put("images", {"x": "one"})
    lab.submit(lab.spec("named", pfs("images", name="in"), 'touch "/pfs/out/$(cat /pfs/in/x)"'))
    lab.run()
    lab.put("images", {"x": "two"})
    lab.run()
    assert list(lab.files("named")) == ["/two"]


def test_everything_vanishes_with_the_last_input(lab: Lab) -> None:
    lab.put("images", {"x": "1"})
    lab.submit(lab.spec("copy", pfs("images")))
    lab.run()
    lab.remove("images", "x")
    assert lab.run().states == {"copy": "done"}
    assert lab.files("copy") == {}


def test_an_output_that_another_datum_takes_over_stays(lab: Lab) -> None:
    lab.put("images", {"a": "x"})
    lab.submit(lab.spec("named", pfs("images", name="in"), 'cp /pfs/in/* "/pfs/out/$(cat /pfs/in/*)"'))
    lab.run()
    lab.remove("images", "a")
    lab.put("images", {"b": "x"})
    assert lab.run().states == {"named": "done"}
    assert [use.path for use in lab.store.why("named:/x").inputs] == ["/b"]


def test_two_datums_that_write_one_path_fail_the_job_which_names_both(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "2"})
    lab.submit(lab.spec("all", pfs("images"), "echo x > /pfs/out/same"))
    job = lab.run().job("all")
    assert job.state == "failed"
    assert job.reason == "two datums write all:/same: images:/b and images:/a"


def test_a_new_datum_that_writes_the_path_of_an_old_one_fails_the_job(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.submit(lab.spec("all", pfs("images"), "echo x > /pfs/out/same"))
    lab.run()
    lab.put("images", {"b": "2"})
    assert lab.run().job("all").reason == "two datums write all:/same: images:/b and images:/a"
    assert lab.files("all") == {"/same": "x\n"}, "what was published stands"


def test_a_file_where_another_datum_needs_a_folder_fails_the_job(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "2"})
    line = "if test -e /pfs/images/a; then touch /pfs/out/x; else mkdir /pfs/out/x; touch /pfs/out/x/y; fi"
    lab.submit(lab.spec("mixed", pfs("images"), line))
    reason = lab.run().job("mixed").reason
    assert "cannot both exist" in reason
    assert "images:/a" in reason
    assert "images:/b" in reason


def test_after_a_clash_is_mended_nothing_is_computed_but_what_changed(lab: Lab) -> None:
    lab.put("images", {"a": "x", "b": "x", "c": "z"})
    lab.submit(lab.spec("named", pfs("images", name="in"), 'touch "/pfs/out/$(cat /pfs/in/*)"'))
    assert lab.run().states == {"named": "failed"}
    lab.put("images", {"b": "y"})
    assert lab.run().counts == {"named": (1, 2)}
    assert list(lab.files("named")) == ["/x", "/y", "/z"]


def test_a_datum_may_write_nothing(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.submit(lab.spec("nothing", pfs("images"), "true"))
    assert lab.run().counts == {"nothing": (1, 0)}
    assert lab.files("nothing") == {}


def test_an_empty_file_is_kept_and_an_empty_folder_is_not(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.submit(lab.spec("empty", pfs("images"), "touch /pfs/out/file; mkdir /pfs/out/folder"))
    lab.run()
    assert lab.files("empty") == {"/file": ""}


def test_a_glob_that_matches_nothing_is_success_with_an_empty_commit(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.submit(lab.spec("copy", pfs("images", "/*.png")))
    ran = lab.run()
    assert (ran.states, ran.computed) == ({"copy": "done"}, 0)
    assert lab.files("copy") == {}


def test_an_empty_commit_is_one_datum_for_the_whole_repo_and_none_for_its_files(lab: Lab) -> None:
    lab.put("images", {})
    lab.submit(
        lab.spec("whole", pfs("images", "/"), "ls -A /pfs/images | wc -l > /pfs/out/n"),
        lab.spec("each", pfs("images", "/*")),
    )
    assert lab.run().counts == {"whole": (1, 0), "each": (0, 0)}
    assert lab.files("whole") == {"/n": "0\n"}


def test_a_cross_with_an_empty_side_has_no_datum(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.put("labels", {})
    lab.submit(lab.spec("both", cross(pfs("images"), pfs("labels"))))
    assert lab.run().counts == {"both": (0, 0)}


def test_empty_files_come_in_and_count(lab: Lab) -> None:
    lab.put("images", {"a": "", "b": ""})
    lab.submit(lab.spec("copy", pfs("images")))
    assert lab.run().counts == {"copy": (2, 0)}
    assert lab.files("copy") == {"/a": "", "/b": ""}


@pytest.mark.parametrize(
    "name", ["grün", "画像", "a b", "[x](y)", "{z}", "star*", "q?", "p+q@r!^", "-dash", "per%cent"]
)
def test_any_name_goes_in_and_out(lab: Lab, name: str) -> None:
    lab.put("images", {name: "1"})
    lab.submit(lab.spec("copy", pfs("images", name="in"), EACH))
    lab.run()
    assert lab.files("copy") == {f"/{name}": "1"}


def test_folders_come_out_as_their_files(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.submit(lab.spec("deep", pfs("images"), "mkdir -p /pfs/out/x/y; cp /pfs/images/a /pfs/out/x/y/z"))
    lab.run()
    assert lab.files("deep") == {"/x/y/z": "1"}


def test_a_link_to_an_input_is_that_input(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.submit(lab.spec("linked", pfs("images"), "ln -s /pfs/images/a /pfs/out/l"))
    lab.run()
    assert lab.files("linked") == {"/l": "1"}
    values = {value for repo in ("images", "linked") for _, value in lab.store[repo].tree.scan()}
    assert len(values) == 1, "its content is stored once"


def test_a_link_that_leads_nowhere_fails_the_datum(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.submit(lab.spec("linked", pfs("images"), "ln -s /pfs/images/none /pfs/out/l", datum_tries=1))
    assert lab.run().states == {"linked": "failed"}


def test_what_a_command_leaves_elsewhere_is_no_output(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.submit(lab.spec("copy", pfs("images"), "echo left > here", COPY))
    lab.run()
    assert lab.files("copy") == {"/a": "1"}


def test_an_output_equal_to_what_was_there_makes_an_equal_tree(lab: Lab) -> None:
    lab.put("images", {"a": "1"})
    lab.submit(lab.spec("size", pfs("images"), "wc -c < /pfs/images/a > /pfs/out/n"), lab.spec("last", pfs("size")))
    lab.run()
    before = lab.tree("size")
    lab.put("images", {"a": "2"})
    ran = lab.run()
    assert ran.counts == {"size": (1, 0), "last": (0, 1)}, "nothing new for what reads it"
    assert lab.tree("size") == before
