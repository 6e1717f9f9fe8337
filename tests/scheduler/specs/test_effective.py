"""Versions as specifications, as Python, as a schema says: all three agree with what the reader understands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlpipe.scheduler.pipelines.load import load_dags
from dmlpipe.scheduler.pipelines.spec import PipelineSpec, identity
from dmlpipe.scheduler.specs.documents import documents, read_text
from dmlpipe.scheduler.specs.effective import effective
from dmlpipe.scheduler.specs.fields import camel_case
from dmlpipe.scheduler.specs.reader import Source, parse_specs
from dmlpipe.scheduler.specs.schema import SCHEMA_FILE, json_schema, schema_text
from dmlpipe.scheduler.specs.table import OBJECTS, REFUSED
from dmlpipe.scheduler.specs.to_python import to_python
from dmlpipe.storage.errors import DmlpipeError, InvalidInputError

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted(
    path
    for pattern in ("*.json", "*.yaml")
    for path in (ROOT / "examples").rglob(pattern)
    if "pipeline" in path.read_text() and "data" not in path.parts
)

VALIDATOR = jsonschema.Draft202012Validator(json_schema())

words = st.text("abc xyz$-/", min_size=1, max_size=6)
names = st.sampled_from(["a", "b-c", "d_e", "raw.x"])
lists = st.lists(words, max_size=3)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """A specification that is right, of any of the fields that are used."""
    transform: dict[str, Any] = {"cmd": ["sh", *draw(lists)]}
    optional = {
        "stdin": lists,
        "err_cmd": st.lists(words, min_size=1, max_size=2),
        "env": st.dictionaries(st.sampled_from(["A", "B"]), words),
        "image": st.just("lab/x:1"),
        "accept_return_code": st.lists(st.integers(1, 9), max_size=2),
        "working_dir": st.just("/tmp"),
        "user": st.just("ada"),
        "datum_batching": st.booleans(),
        "secrets": st.lists(
            st.sampled_from([{"name": "n", "key": "k", "env_var": "V"}, {"name": "n", "mount_path": "/run/n"}]),
            max_size=2,
        ),
    }
    for name, values in optional.items():
        if draw(st.booleans()):
            transform[name] = draw(values)

    def leaf(repo: str, **more: Any) -> dict[str, Any]:
        name = {"name": f"{repo}_"} if draw(st.booleans()) else {}
        return {"pfs": {"repo": repo, **name, "glob": "/(*).x", **more}}

    first, second = leaf("one"), leaf("two", branch="dev")
    keyed = [leaf("one", join_on="$1"), leaf("two", join_on="$1", outer_join=draw(st.booleans()))]
    grouped = [leaf("one", group_by="$1"), leaf("two", group_by="$1")]
    rule = {"commits": 2, "size": "5M", "all": True}
    pipes = leaf("one", lazy=True) if draw(st.booleans()) else leaf("one", empty_files=True)
    ruled = leaf("one", branch="t", trigger=rule, propagation_spec={"never": True}, reference=True, glob_dirs=True)
    cron = {"cron": {"name": "tick", "spec": "@daily", "start": "2026-01-01T00:00:00Z", "overwrite": True}}
    node = draw(
        st.sampled_from(
            [
                first,
                pipes,
                ruled,
                leaf("one", lazy=True),
                leaf("one", empty_files=True),
                {"cross": [second, cron]},
                {"cross": [first, second]},
                {"union": [first, second]},
                {"join": keyed},
                {"group": grouped},
            ]
        )
    )
    found: dict[str, Any] = {"pipeline": {"name": draw(names)}, "transform": transform, "input": node}
    more = {
        "description": st.just("Says it."),
        "datum_tries": st.integers(1, 5),
        "datum_timeout": st.sampled_from(["90s", "1h30m"]),
        "salt": st.just("s"),
        "output_branch": st.sampled_from(["master", "staging"]),
        "every_commit": st.booleans(),
        "reprocess_spec": st.sampled_from(["until_success", "every_job"]),
        "by_content": st.booleans(),
        "egress": st.sampled_from(
            [
                {"url": "s3://b/there"},
                {"sql_database": {"url": "sqlite://", "file_format": {"type": "JSON"}}},
                {
                    "sql_database": {
                        "url": "sqlite://",
                        "file_format": {"type": "CSV", "columns": ["a", "b"]},
                        "secret": {"name": "n", "key": "k"},
                    }
                },
            ]
        ),
        "max_failures": st.sampled_from([3, "0.1%"]),
        "params": st.dictionaries(st.sampled_from(["p", "q"]), st.one_of(words, st.integers(0, 9), st.booleans())),
        "resource_requests": st.just({"cpu": 2, "memory": "1GiB", "gpu": {"number": 1}}),
    }
    for name, values in more.items():
        if draw(st.booleans()):
            found[name] = draw(values)
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {"spout": {}},
        {"spout": {"service": {"internal_port": 80}}},
        {"service": {"internal_port": 8080}, "input": {"pfs": {"repo": "r", "name": "r", "glob": "/"}}},
    ],
)
def test_what_stands_is_said_alike(fields: dict[str, Any]) -> None:
    data = {"pipeline": {"name": "p"}, "transform": {"cmd": ["sh"], "stdin": ["sleep 9"]}, **fields}
    VALIDATOR.validate(data)
    spec = read(data)
    assert read(effective(spec)) == spec
    namespace: dict[str, Any] = {"__name__": "lab", "__file__": None}
    exec(compile(to_python([spec], name="lab"), "lab.py", "exec"), namespace)
    (made,) = namespace["dag"].build(put_bundle=lambda files: "")
    assert (made.standing, identity(made)) == (spec.standing, identity(spec))


def read(data: Any) -> PipelineSpec:
    (spec,), _ = parse_specs(json.dumps(data), Source("spec.json"))
    return spec


@settings(max_examples=40)
@given(specs())
def test_the_effective_spec_is_the_same_version(data: dict[str, Any]) -> None:
    spec = read(data)
    again = effective(spec)
    assert read(again) == spec
    VALIDATOR.validate(again)
    VALIDATOR.validate(data)


@settings(max_examples=40)
@given(specs())
def test_python_says_the_same_as_the_spec(data: dict[str, Any]) -> None:
    spec = read(data)
    text = to_python([spec], name="lab")
    namespace: dict[str, Any] = {"__name__": "lab", "__file__": None}
    exec(compile(text, "lab.py", "exec"), namespace)
    (made,) = namespace["dag"].build(put_bundle=lambda files: "")
    assert made.code_id == spec.code_id
    assert made.options == spec.options
    assert made.parameters == spec.parameters
    assert (made.egress, made.output_branch) == (spec.egress, spec.output_branch)
    if not any(kind in data["input"] for kind in ("join", "group")):
        # Nothing is computed anew by whoever goes from one to the other.
        assert identity(made) == identity(spec)


def test_the_python_of_a_spec_loads_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "a.sh").write_text("echo")
    text = (ROOT / "examples/shops/specs.yaml").read_text()
    specs, _ = parse_specs(text, Source("specs.yaml"))
    (tmp_path / "lab.py").write_text(to_python(specs, name="lab"))
    (dag,) = load_dags(tmp_path / "lab.py")
    assert list(dag.pipelines) == [spec.name for spec in specs]


@pytest.mark.parametrize(
    ("leaf", "why"),
    [
        ({"glob": "/(*).x", "join_on": "k-$1-$1x"}, "is not made of captures alone"),
        ({"glob": "/([ab]).x", "join_on": "$1"}, "captures with another pattern"),
    ],
)
def test_a_key_that_python_has_no_words_for_is_refused(leaf: dict[str, str], why: str) -> None:
    members = [{"pfs": {"repo": repo, **leaf}} for repo in "ab"]
    spec = read({"pipeline": {"name": "p"}, "transform": {"cmd": ["true"]}, "input": {"join": members}})
    with pytest.raises(InvalidInputError, match=why):
        to_python([spec], name="lab")


# --- the schema ---


def test_the_shipped_schema_is_current() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), "run: python -m tests.scheduler.specs.write_schema"
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_example_is_valid_by_the_schema(path: Path) -> None:
    for data, _ in documents(read_text(path, {}), path.name):
        VALIDATOR.validate(data)


def test_examples_were_found() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("kind", list(OBJECTS))
def test_both_spellings_are_in_the_schema_and_others_are_not(kind: str) -> None:
    described = json_schema()["$defs"][kind]
    for field in OBJECTS[kind]:
        assert {field.name, camel_case(field.name)} <= set(described["properties"])
        assert described["properties"][field.name]["description"]
    assert described["additionalProperties"] is False


def test_what_is_refused_says_why() -> None:
    for kind, fields in OBJECTS.items():
        for field in fields:
            assert field.verdict != REFUSED or len(field.here) > 10, (kind, field.name)


# --- our own fields, Jsonnet ---

BASE: dict[str, Any] = {
    "pipeline": {"name": "p"},
    "transform": {"cmd": ["true"]},
    "input": {"pfs": {"repo": "a", "glob": "/"}},
}


def test_env_and_code_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("numpy==2\n")
    data = {**BASE, "env": "requirements.txt"}
    (spec,), _ = parse_specs(json.dumps(data), Source("s.json", tmp_path))
    assert (spec.env_name, len(spec.env)) == ("requirements.txt", 64)
    for field in ("env", "code"):
        with pytest.raises(InvalidInputError, match=field):
            parse_specs(json.dumps({**BASE, field: "gone"}), Source("s.json", tmp_path))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("params", {"a b": 1}, "cannot be the name of a variable"),
        ("params", {"a": [1]}, "expected a text, a number or a flag"),
        ("params", [1], "expected names and values"),
        ("max_failures", [1], "expected a number or a share"),
        ("max_failures", "many", "max_failures"),
        ("batch", -1, "expected 0 or more"),
        ("batch", "x", "expected a whole number"),
    ],
)
def test_our_fields_are_checked(field: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read({**BASE, field: value})


def test_jsonnet_takes_arguments(tmp_path: Path) -> None:
    (tmp_path / "lib.libsonnet").write_text("{cmd: ['true']}")
    path = tmp_path / "t.jsonnet"
    path.write_text(
        "local lib = import 'lib.libsonnet';\n"
        "function(name, glob='/*') [{pipeline: {name: name + i}, transform: lib,"
        " input: {pfs: {repo: 'a', glob: glob}}} for i in ['1', '2']]"
    )
    specs, _ = parse_specs(read_text(path, {"name": "p"}), Source("t.jsonnet"))
    assert [spec.name for spec in specs] == ["p1", "p2"]
    for arguments in ({}, {"name": "p", "nme": "x"}):
        with pytest.raises(InvalidInputError, match=r"t\.jsonnet: RUNTIME ERROR") as refused:
            read_text(path, arguments)
        assert (refused.value.hint == "give it: --arg name=VALUE") is (not arguments)
    path.write_text("{")
    with pytest.raises(InvalidInputError, match=r"t\.jsonnet: STATIC ERROR"):
        read_text(path, {})
    plain = tmp_path / "s.yaml"
    plain.write_text(yaml.safe_dump(BASE))
    with pytest.raises(DmlpipeError, match="--arg belongs to"):
        read_text(plain, {"name": "p"})


def test_versions_encode_as_before_where_nothing_new_is_said() -> None:
    assert "user" not in msgspec.to_builtins(read(BASE).transform)
