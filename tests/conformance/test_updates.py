"""Versions of pipelines: when one is recorded, what it starts; stop, start, delete."""

from __future__ import annotations

import dataclasses

import pytest

from dmlpipe.scheduler.report import Submitted
from dmlpipe.storage.errors import InvalidInputError, NotFoundError
from tests.conformance.lab import Lab, Spec, pfs

COPY = "cp /pfs/in/* /pfs/out/"


def copies(lab: Lab, line: str = COPY, **fields: object) -> Spec:
    return lab.spec("copies", pfs("images", name="in"), line, **fields)  # type: ignore[arg-type]


def told(submitted: list[Submitted]) -> list[tuple[str, str, int]]:
    return [(each.name, each.status, each.version) for each in submitted]


@pytest.fixture(autouse=True)
def images(lab: Lab) -> None:
    lab.put("images", {"a": "1", "b": "2"})


def test_submitting_the_same_again_records_nothing(lab: Lab) -> None:
    lab.submit(copies(lab))
    n = lab.store.refresh().n
    assert told(lab.submit(copies(lab))) == [("copies", "same", 1)]
    assert lab.store.refresh().n == n


def test_the_same_in_another_spelling_and_order_is_the_same(lab: Lab) -> None:
    lab.submit(copies(lab, datum_tries=2))
    spec = copies(lab)
    turned = {"datumTries": 2, **dict(reversed(list(spec.items())))}
    assert told(lab.submit(turned)) == [("copies", "same", 1)]


def test_a_change_that_cannot_change_outputs_is_a_version_that_starts_no_job(lab: Lab) -> None:
    lab.submit(copies(lab))
    lab.run()
    assert told(lab.submit(copies(lab, description="other words"))) == [("copies", "cosmetic", 2)]
    assert lab.run().summary.jobs == ()


def test_a_changed_command_is_a_version_that_says_what_changed(lab: Lab) -> None:
    lab.submit(copies(lab))
    (changed,) = lab.submit(copies(lab, "true"))
    assert told([changed]) == [("copies", "changed", 2)]
    assert changed.why[0].startswith("code changed: command(), specs-1.json:1")


def test_a_changed_input_is_a_version_that_names_the_input(lab: Lab) -> None:
    lab.submit(copies(lab))
    (changed,) = lab.submit(lab.spec("copies", pfs("images", "/?", name="in"), COPY))
    assert changed.why == ("declared input changed: in",)


def test_versions_are_listed_with_what_each_changed(lab: Lab) -> None:
    lab.submit(copies(lab))
    lab.submit(copies(lab, "true"))
    lab.submit(copies(lab, "true", description="words"))
    listed = [(each.number, each.kind, bool(each.why)) for each in lab.store.versions("copies")]
    assert listed == [(3, "cosmetic", False), (2, "changed", True), (1, "new", False)]


def test_versions_are_compared_line_by_line(lab: Lab) -> None:
    lab.submit(copies(lab))
    lab.submit(copies(lab, "true", datum_tries=5))
    found = lab.store.version_diff("copies")
    assert (found.old, found.new, len(found.why)) == (1, 2, 1)
    assert '-transform.stdin = ["cp /pfs/in/* /pfs/out/"]\n+transform.stdin = ["true"]\n' in found.patch
    assert "+options.tries = 5\n" in found.patch
    assert lab.store.version_diff("copies", 2, 2).patch == ""
    with pytest.raises(NotFoundError, match="no version 7"):
        lab.store.version_diff("copies", 1, 7)


def test_the_code_of_versions_is_compared_file_by_file(lab: Lab) -> None:
    code = lab.folder / "code"
    code.mkdir()
    for text in ("echo one\n", "echo two\n"):
        (code / "run.sh").write_text(text)
        lab.submit(copies(lab, "sh /code/run.sh > /pfs/out/x"), code=code)
    assert lab.store.version_diff("copies").patch.endswith("@@ -1 +1 @@\n-echo one\n+echo two\n")


def test_an_earlier_version_can_be_inspected(lab: Lab) -> None:
    lab.submit(copies(lab))
    lab.submit(copies(lab, datum_tries=5))
    assert [lab.store.pipeline_spec("copies", number).options.tries for number in (1, 2)] == [3, 5]


def test_each_output_is_explained_by_the_version_that_made_it(lab: Lab) -> None:
    lab.submit(copies(lab))
    lab.run()
    lab.submit(copies(lab, COPY + " # 2"))
    lab.run()
    versions = [code.version for at in ("copies", "copies@master^") if (code := lab.store.why(f"{at}:/a").code)]
    assert versions == [2, 1]


def test_several_pipelines_of_one_file_run_once_together(lab: Lab) -> None:
    one = copies(lab)
    two = lab.spec("two", pfs("copies", "/"), "cat /pfs/copies/* > /pfs/out/all")
    n = lab.store.refresh().n
    lab.submit(two, one)
    assert lab.store.refresh().n == n + 1, "one entry"
    ran = lab.run()
    assert [job.pipeline for job in ran.summary.jobs] == ["copies", "two"]
    assert len(ran.summary.runs) == 1
    lab.submit(copies(lab, "echo new > /pfs/out/$(basename /pfs/in/*)"), {**two, "transform": {"cmd": ["true"]}})
    assert len(lab.run().summary.jobs) == 2


def test_a_file_with_one_wrong_spec_records_none(lab: Lab) -> None:
    n = lab.store.refresh().n
    with pytest.raises(NotFoundError, match="nothing"):
        lab.submit(copies(lab), lab.spec("other", pfs("nothing")))
    assert lab.store.refresh().n == n


def test_reprocess_computes_everything_again(lab: Lab) -> None:
    lab.submit(copies(lab))
    lab.run()
    assert told(lab.submit(copies(lab), reprocess=True)) == [("copies", "changed", 2)]
    assert lab.run().counts == {"copies": (2, 0)}


def test_a_dry_run_tells_and_records_nothing(lab: Lab) -> None:
    lab.submit(copies(lab))
    n = lab.store.refresh().n
    (each,) = lab.submit(copies(lab, "true"), dry_run=True)
    assert each.status == "changed"
    assert lab.store.refresh().n == n


def test_a_stopped_pipeline_makes_no_job_and_starts_with_exactly_one(lab: Lab) -> None:
    lab.submit(copies(lab))
    lab.run()
    lab.store.stop_pipeline("copies")
    for number in range(3):
        lab.put("images", {f"n{number}": "x"})
        assert lab.run().summary.jobs == ()
    before = len(lab.jobs("copies"))
    lab.store.start_pipeline("copies")
    assert lab.run().counts == {"copies": (3, 2)}
    assert len(lab.jobs("copies")) == before + 1


def test_what_reads_a_stopped_pipeline_goes_on_with_its_last_output(lab: Lab) -> None:
    lab.put("labels", {"l": "1"})
    report = lab.spec("report", {"cross": [pfs("copies", "/"), pfs("labels", "/")]})
    lab.submit(copies(lab), report)
    lab.run()
    lab.store.stop_pipeline("copies")
    lab.put("images", {"c": "3"})
    lab.put("labels", {"l": "2"})
    assert lab.run().states == {"report": "done"}
    assert lab.files("report") == {"/a": "1", "/b": "2", "/l": "2"}


def test_a_stopped_pipeline_can_be_updated_and_stays_stopped(lab: Lab) -> None:
    lab.submit(copies(lab))
    lab.store.stop_pipeline("copies")
    lab.submit(copies(lab, "true"))
    assert lab.run().summary.jobs == ()
    lab.store.start_pipeline("copies")
    assert lab.run().counts == {"copies": (2, 0)}
    assert lab.files("copies") == {}


def test_deleting_a_pipeline_deletes_its_output(lab: Lab) -> None:
    lab.submit(copies(lab))
    lab.run()
    lab.store.delete_pipeline("copies")
    state = lab.store.refresh()
    assert (state.pipeline("copies"), state.repo("copies")) == (None, None)
    lab.put("images", {"c": "3"})
    assert lab.run().summary.jobs == ()


def test_a_kept_output_is_data_that_people_may_write(lab: Lab) -> None:
    lab.submit(copies(lab))
    lab.run()
    lab.store.delete_pipeline("copies", keep_repo=True)
    assert lab.files("copies") == {"/a": "1", "/b": "2"}
    lab.put("copies", {"mine": "3"})


def test_a_pipeline_that_others_read_is_deleted_by_force_only_and_they_wait(lab: Lab) -> None:
    lab.submit(copies(lab), lab.spec("after", pfs("copies")))
    lab.run()
    with pytest.raises(InvalidInputError, match="is read by after"):
        lab.store.delete_pipeline("copies")
    lab.store.delete_pipeline("copies", force=True)
    ran = lab.run()
    assert (ran.summary.jobs, dict(ran.summary.waiting)) == ((), {"after": "copies@master"})
    lab.submit(copies(lab))
    assert lab.run().states == {"copies": "done", "after": "done"}


def test_a_deleted_pipeline_that_comes_back_finds_its_results(lab: Lab) -> None:
    lab.submit(copies(lab))
    lab.run()
    lab.store.delete_pipeline("copies")
    lab.submit(copies(lab))
    assert lab.run().counts == {"copies": (0, 2)}


def test_what_a_version_computed_is_its_own_record(lab: Lab) -> None:
    lab.submit(copies(lab))
    job = lab.run().job("copies")
    _, _, record = lab.store.job(job.job)
    assert record is not None
    assert (record.pipeline, record.version, record.state) == ("copies", 1, "done")
    assert dataclasses.asdict(lab.store.why("copies:/a"))["code"]["version"] == 1
