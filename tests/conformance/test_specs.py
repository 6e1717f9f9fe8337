"""Specifications as Pachyderm's users write them: what is taken, noticed, refused; where what they publish goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dmlpipe.scheduler.specs.fields import camel_case
from dmlpipe.storage.errors import DmlpipeError, ErrorCode, InvalidInputError, NotFoundError
from tests.conformance.lab import Lab, pfs


@pytest.fixture
def source(lab: Lab) -> Lab:
    """A lab with data."""
    lab.put("source", {"a": "1"})
    return lab


def submit_text(lab: Lab, name: str, text: str, **options: Any) -> list[str]:
    """Submit a file; names of its pipelines with what became of them."""
    path = lab.folder / name
    path.write_text(text)
    return [f"{each.name} {each.status}" for each in lab.store.submit(path, **options)]


def camel(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {camel_case(name): camel(item) for name, item in value.items()}


def test_camel_case_and_snake_case_say_the_same(source: Lab) -> None:
    spec = source.spec("p", pfs("source"), datum_tries=5, datum_timeout="10s", transform={"accept_return_code": [3]})
    source.submit(spec)
    assert [each.status for each in source.submit(camel(spec))] == ["same"]


def test_json_and_yaml_say_the_same(source: Lab) -> None:
    spec = source.spec("p", pfs("source"))
    assert submit_text(source, "p.json", json.dumps(spec)) == ["p new"]
    assert submit_text(source, "p.yaml", yaml.safe_dump(spec)) == ["p same"]


@pytest.mark.parametrize("kind", ["json", "list", "yaml"])
def test_a_file_may_hold_several_in_any_order(source: Lab, kind: str) -> None:
    both = [source.spec("second", pfs("first")), source.spec("first", pfs("source"))]
    text = {
        "json": "\n".join(json.dumps(each) for each in both),
        "list": json.dumps(both),
        "yaml": yaml.safe_dump_all(both),
    }[kind]
    assert submit_text(source, "two.yaml" if kind == "yaml" else "two.json", text) == ["first new", "second new"]
    assert source.run().states == {"first": "done", "second": "done"}


def test_several_are_recorded_in_one_entry_and_run_once(source: Lab) -> None:
    before = source.store.refresh().n
    source.submit(source.spec("first", pfs("source")), source.spec("second", pfs("first")))
    assert source.store.refresh().n == before + 1
    assert len(source.run().summary.runs) == 1


def test_one_wrong_spec_in_a_file_records_none(source: Lab) -> None:
    with pytest.raises(InvalidInputError):
        source.submit(source.spec("good", pfs("source")), source.spec("bad", pfs("source"), no_such_field=1))
    assert dict(source.store.refresh().pipelines()) == {}


def test_an_unknown_field_is_refused_with_the_nearest_name(source: Lab) -> None:
    with pytest.raises(InvalidInputError, match="unknown field 'datum_trys'") as refused:
        source.submit(source.spec("p", pfs("source"), datum_trys=3))
    assert refused.value.hint == "did you mean 'datum_tries'?"


@pytest.mark.parametrize("value", [None, False, {}, []])
def test_a_field_that_says_nothing_is_as_if_it_were_not_there(source: Lab, value: Any) -> None:
    source.submit(source.spec("p", pfs("source")))
    assert [each.status for each in source.submit(source.spec("p", pfs("source"), egress=value))] == ["same"]


@pytest.mark.parametrize(
    "field",
    [
        {"parallelism_spec": {"constant": 8}},
        {"pod_spec": "{}"},
        {"pod_patch": "[]"},
        {"tolerations": [{"key": "gpu"}]},
        {"scheduling_spec": {"node_selector": {"gpu": "yes"}}},
        {"autoscaling": True},
        {"datum_set_spec": {"number": 10}},
        {"sidecar_resource_limits": {"cpu": 1}},
        {"metadata": {"labels": {"a": "b"}}},
        {"determined": {"workspaces": ["w"]}},
        {"maximum_expected_uptime": "1h"},
    ],
    ids=lambda field: next(iter(field)),
)
def test_what_belongs_to_kubernetes_is_a_notice_and_changes_nothing(source: Lab, field: dict[str, Any]) -> None:
    source.submit(source.spec("p", pfs("source")))
    (told,) = source.submit(source.spec("p", pfs("source"), **field))
    assert (told.status, told.notices) == ("same", (f"p: without meaning here: {next(iter(field))}",))


@pytest.mark.parametrize(
    "field",
    [
        {"tf_job": {"x": 1}},
        {"s3_out": True},
        {"reprocess": True},
        {"input": {"pfs": {"repo": "source", "glob": "/", "s3": True}}},
        {"pipeline": {"name": "p", "project": "other"}},
    ],
    ids=lambda field: next(iter(field)),
)
def test_what_cannot_be_had_is_refused_with_the_reason(source: Lab, field: dict[str, Any]) -> None:
    with pytest.raises(DmlpipeError) as refused:
        source.submit({**source.spec("p", pfs("source")), **field})
    assert refused.value.code is ErrorCode.UNSUPPORTED
    assert refused.value.hint


def test_a_repo_that_nobody_makes_is_refused(source: Lab) -> None:
    with pytest.raises(NotFoundError, match="reads repo 'sorce'") as refused:
        source.submit(source.spec("p", pfs("sorce")))
    assert "did you mean source?" in str(refused.value.hint)


def test_words_for_people_start_nothing(source: Lab) -> None:
    source.submit(source.spec("p", pfs("source")))
    source.run()
    (told,) = source.submit(source.spec("p", pfs("source"), description="Copies."))
    assert told.status == "cosmetic"
    assert source.run().computed == 0


def test_a_changed_command_computes_anew_and_says_why(source: Lab) -> None:
    source.submit(source.spec("p", pfs("source"), "true"))
    source.run()
    (told,) = source.submit(source.spec("p", pfs("source"), "echo"))
    assert told.status == "changed"
    assert "code changed" in told.why[0]
    assert source.run().counts == {"p": (1, 0)}


def test_an_image_counts_only_where_a_container_runs_it(source: Lab) -> None:
    spec = source.spec("p", pfs("source"), transform={"image": "lab/x:1"})
    source.submit(spec)
    other = source.spec("p", pfs("source"), transform={"image": "lab/x:2"})
    assert [each.status for each in source.submit(other)] == ["cosmetic"]
    assert [each.status for each in source.submit(other, container="podman")] == ["changed"]


def test_templates_make_specs_of_arguments(source: Lab) -> None:
    spec = source.spec("x", pfs("source"))
    text = f"function(name) {json.dumps(spec)} + {{pipeline: {{name: name}}}}"
    assert submit_text(source, "t.jsonnet", text, arguments={"name": "made"}) == ["made new"]


def test_a_dry_run_says_what_would_be_and_writes_nothing(source: Lab) -> None:
    before = source.store.refresh().n
    (told,) = source.submit(source.spec("p", pfs("source")), dry_run=True)
    assert told.status == "new"
    assert source.store.refresh().n == before


def test_what_is_published_is_sent_where_egress_leads(source: Lab, tmp_path: Path) -> None:
    source.submit(source.spec("p", pfs("source"), egress={"URL": f"file://{tmp_path}/there"}))
    source.run()
    assert (tmp_path / "there" / "a").read_text() == "1"


def test_an_egress_that_fails_is_owed_and_nothing_is_computed_again(source: Lab, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("in the way")
    source.submit(source.spec("p", pfs("source"), egress={"URL": f"file://{tmp_path}/there"}))
    assert not source.run().summary.ok
    (tmp_path / "there").unlink()
    ran = source.run()
    assert (ran.summary.ok, ran.computed) == (True, 0)
    assert (tmp_path / "there" / "a").read_text() == "1"
