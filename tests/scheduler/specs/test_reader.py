from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dmlpipe.scheduler.inputs.expression import Cross, Files, Group, Join, Union
from dmlpipe.scheduler.pipelines.spec import PipelineSpec
from dmlpipe.scheduler.specs.fields import camel_case, snake_case
from dmlpipe.scheduler.specs.reader import Code, Source, parse_specs
from dmlpipe.scheduler.specs.table import FORMER, names
from dmlpipe.storage.errors import DmlpipeError, ErrorCode, InvalidInputError
from dmlpipe.worker.job import CommandTransform

# Written as Pachyderm's iris example is (github pachyderm/pachyderm, examples/ml/iris).
IRIS = {
    "pipeline": {"name": "inference"},
    "description": "Predicts.",
    "transform": {"image": "pachyderm/iris-infer:python", "cmd": ["python3", "/code/pyinfer.py", "/pfs/model/"]},
    "parallelismSpec": {"constant": 1},
    "input": {
        "cross": [
            {"pfs": {"repo": "attributes", "glob": "/*"}},
            {"pfs": {"repo": "model", "glob": "/"}},
        ]
    },
}
SMALL: dict[str, Any] = {
    "pipeline": {"name": "edges"},
    "transform": {"cmd": ["sh"], "stdin": ["echo 1", "echo 2"]},
    "input": {"pfs": {"repo": "images", "glob": "/*"}},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """SMALL with one field set; `a.b` is a path; a value of None removes it."""
    out = copy.deepcopy(SMALL)
    *folders, last = path.split(".")
    at = out
    for name in folders:
        at = at.setdefault(name, {})
    if value is None:
        at.pop(last, None)
    else:
        at[last] = value
    return out


def parse(data: Any, code: str | None = None, code_files: Any = None) -> tuple[PipelineSpec, list[str]]:
    given = Code(code or "", code_files) if code is not None or code_files is not None else None
    specs, notices = parse_specs(json.dumps(data), Source("x/spec.json", code=given))
    (spec,) = specs
    return spec, notices


def command(spec: PipelineSpec) -> CommandTransform:
    assert isinstance(spec.transform, CommandTransform)
    return spec.transform


def test_a_real_spec_is_accepted_as_it_is() -> None:
    spec, notices = parse(IRIS, code="ab" * 32)
    assert spec.input == Cross(inputs=(Files(repo="attributes", glob="/*"), Files(repo="model", glob="/")))
    assert command(spec) == CommandTransform(
        argv=("python3", "/code/pyinfer.py", "/pfs/model/"), code="ab" * 32, image="pachyderm/iris-infer:python"
    )
    assert (spec.name, spec.description, spec.dag, spec.source) == ("inference", "Predicts.", "", "spec.json:1")
    assert (spec.options.tries, spec.options.timeout_s) == (3, 0.0)
    assert notices == [
        "inference: without meaning here: parallelismSpec",
        "inference: image pachyderm/iris-infer:python is not used: the command runs as it is on this machine",
    ]


def test_scripts_that_were_not_given_are_a_notice() -> None:
    assert "--code" in parse(IRIS)[1][-1]


def test_fields_that_mean_the_same_here_are_used() -> None:
    data = {
        **SMALL,
        "transform": {
            **SMALL["transform"],
            "env": {"A": "1"},
            "working_dir": "/tmp",
            "accept_return_code": [1, "2"],
            "err_cmd": ["true"],
            "err_stdin": ["x"],
            "secrets": [{"name": "s", "key": "k", "env_var": "TOKEN"}, {"name": "t", "mount_path": "/run/t"}],
            "user": "ada",
            "datum_batching": True,
        },
        "datum_tries": 5,
        "datum_timeout": "90s",
        "salt": "pepper",
        "output_branch": "master",
        "resource_requests": {"cpu": 0.5, "memory": "64M", "gpu": {"type": "nvidia.com/gpu", "number": 1}},
    }
    spec, notices = parse(data)
    assert command(spec) == CommandTransform(
        argv=("sh",),
        stdin=("echo 1", "echo 2"),
        env={"A": "1"},
        working_dir="/tmp",
        accept_return_code=(1, 2),
        err_argv=("true",),
        err_stdin=("x",),
        user="ada",
        batching=True,
    )
    options = spec.options
    assert (options.tries, options.timeout_s, options.cpus, options.memory, options.gpus, options.secrets) == (
        5,
        90.0,
        0.5,
        "64M",
        1,
        ("TOKEN=s/k", "/run/t=t"),
    )
    assert spec.salt == "pepper"
    assert [notice.partition(":")[2].split(" is ")[0] for notice in notices] == [
        " user 'ada'",
        " secret 's/k' for $TOKEN",
        " secret 't' for /run/t",
    ]


def camel(value: Any) -> Any:
    if isinstance(value, dict):
        return {camel_case(key): camel(item) for key, item in value.items()}
    return [camel(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", ["datum_tries", "s3_out", "input", "accept_return_code"])
def test_field_names_go_both_ways(name: str) -> None:
    assert snake_case(camel_case(name)) == name


def test_both_spellings_json_and_yaml_say_the_same() -> None:
    data = changed("transform.accept_return_code", [3])
    first, _ = parse(data)
    for text in (json.dumps(camel(data)), yaml.safe_dump(data), yaml.safe_dump(camel(data)), "\n" + json.dumps([data])):
        (spec,), _ = parse_specs(text, Source("spec.json" if text.lstrip()[0] in "[{" else "spec.yaml"))
        assert (spec.code_id, spec.input, spec.options) == (first.code_id, first.input, first.options)


@pytest.mark.parametrize("kind", ["after each other", "a list", "yaml documents", "with lines of YAML between"])
def test_a_file_may_hold_several_which_come_upstream_first(kind: str) -> None:
    second = {**SMALL, "pipeline": {"name": "montage"}, "input": {"pfs": {"repo": "edges", "glob": "/"}}}
    text = {
        "after each other": json.dumps(second) + "\n" + json.dumps(SMALL),
        "a list": json.dumps([second, SMALL]),
        "with lines of YAML between": f"{json.dumps(second)}\n---\n{json.dumps(SMALL)}\n...\n",
        "yaml documents": yaml.safe_dump_all([second, SMALL]),
    }[kind]
    specs, _ = parse_specs(text, Source("spec"))
    assert [spec.name for spec in specs] == ["edges", "montage"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("parallelism_spec", {"constant": 4}),
        ("pod_patch", "[]x"),
        ("tolerations", [{"key": "a"}]),
        ("sidecar_resource_limits", {"cpu": 1}),
        ("metadata", {"labels": {"a": "b"}}),
        ("autoscaling", True),
        ("datum_set_spec", {"number": 1}),
        ("transform.image_pull_secrets", ["a"]),
    ],
)
def test_what_only_kubernetes_understands_is_a_notice(field: str, value: Any) -> None:
    spec, notices = parse(changed(field, value))
    assert notices == [f"edges: without meaning here: {field}"]
    assert spec.code_id == parse(SMALL)[0].code_id


@pytest.mark.parametrize("field", ["s3_out", "autoscaling", "egress", "service", "reprocess"])
@pytest.mark.parametrize("value", [False, {}, []])
def test_a_field_that_is_off_says_nothing(field: str, value: Any) -> None:
    assert parse(changed(field, value))[1] == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tf_job", {"x": 1}),
        ("s3_out", True),
        ("pipeline.project", "other"),
        ("input.pfs.s3", True),
        ("input.pfs.project", "other"),
    ],
)
def test_what_is_not_there_yet_is_refused_as_that(field: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match="is not supported") as caught:
        parse(changed(field, value))
    assert caught.value.code is ErrorCode.UNSUPPORTED


@pytest.mark.parametrize(
    ("field", "value", "message", "hint"),
    [
        ("transfrom", {}, "unknown field 'transfrom'", "did you mean 'transform'?"),
        ("datumTrys", 3, "unknown field 'datumTrys'", "did you mean 'datumTries'?"),
        ("transform.comand", ["a"], "transform: unknown field 'comand'", None),
        ("input.pfs.repos", "a", r"input.pfs: unknown field 'repos'", "did you mean 'repo'?"),
        ("input.atom", {}, "unknown field 'atom'", None),
        ("pipeline", None, "required field 'pipeline' is missing", None),
        ("pipeline.name", None, "required field 'name' is missing", None),
        ("transform", None, "required field 'transform' is missing", None),
        ("transform.cmd", None, "required field 'cmd' is missing", None),
        ("input", None, "required field 'input' is missing", None),
        ("input", {}, "expected one of pfs, cross, union, join, group, .*, got none", None),
        ("input.cross", [SMALL["input"]], "expected one of .*, got pfs, cross", None),
        ("input", {"cross": []}, "cross is empty", None),
        ("input", {"join": []}, "join is empty", None),
        ("input.pfs.outer_join", "yes", "outer_join: expected true or false, got 'yes'", None),
        ("input", {"join": [SMALL["input"], SMALL["input"]]}, "two inputs are named 'images'", None),
        ("input", {"group": [{"union": [SMALL["input"]]}, SMALL["input"]]}, "two inputs are named 'images'", None),
        ("input.pfs.repo", None, "required field 'repo' is missing", None),
        ("input.pfs.glob", None, "required field 'glob' is missing", None),
        ("input.pfs.commit", "abc", "'commit' cannot be set", None),
        ("transform.cmd", "sh", "cmd: expected a list of texts, got 'sh'", None),
        ("transform.cmd", ["sh", 1], "cmd: expected texts, got 1", "put it in quotes"),
        ("transform.env", {"A": 1}, "env.A: expected a text, got 1", "put it in quotes"),
        ("transform.env", {"A=B": "1"}, "cannot be the name of a variable", None),
        ("transform.accept_return_code", [1.5], "expected a whole number, got 1.5", None),
        ("transform.secrets", [{"name": "a"}], r"secrets\[0\]: one of 'env_var' and 'mount_path' is needed", None),
        ("transform.secrets", [{"name": "a", "env_var": "A"}], r"secrets\[0\]: required field 'key' is missing", None),
        ("transform.secrets", [{"name": "a", "mount_path": "x"}], "'x=a' declares no secret", None),
        ("datum_tries", -1, "datum_tries: expected 0 or more, got -1", None),
        ("datum_tries", True, "expected a whole number, got True", None),
        ("datum_timeout", "soon", "datum_timeout: expected a duration", None),
        ("resource_requests.cpu", "many", "cpu: expected a number above 0", None),
        ("resource_requests.memory", "much", "memory: expected a size", None),
        ("description", 3, "description: expected a text, got 3", None),
        ("input.pfs.name", "out", "an input cannot be named 'out'", None),
        ("input.pfs.repo", "edges", "pipeline 'edges' reads its own output", None),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(field: str, value: Any, message: str, hint: str | None) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        parse(changed(field, value))
    assert hint is None or caught.value.hint == hint
    assert field == "input.pfs.repo" or str(caught.value).startswith("spec.json")


@pytest.mark.parametrize(
    ("field", "value"), [("pipeline.name", "a b"), ("input.pfs.glob", "/[a"), ("input.pfs.repo", "/")]
)
def test_names_and_globs_are_checked(field: str, value: str) -> None:
    with pytest.raises(InvalidInputError):
        parse(changed(field, value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"pipeline": ', r"^spec.json:1:14: not JSON: Expecting value"),
        ('{"a": 1}\n{"b" 2}', "spec.json:1: unknown field 'a'|not JSON"),
        ('{"pipeline": {"name": "a", "name": "b"}}', "field 'name' is given twice"),
        ('{"datum_tries": 1, "datumTries": 2}', "field 'datum_tries' is given twice"),
        ("", "holds no pipeline"),
        ("[]", "holds no pipeline"),
        ("3", "expected an object, got 3"),
        ("a: [", "^spec.json:1:5: not YAML"),
        ("pipeline: !!python/object:os.system {}", "not YAML: could not determine a constructor"),
    ],
)
def test_text_that_is_no_spec_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        parse_specs(text, Source("spec.json"))
    assert caught.value.code is ErrorCode.BAD_SPEC


def test_two_pipelines_of_one_name_are_refused() -> None:
    with pytest.raises(DmlpipeError) as caught:
        parse_specs(json.dumps([SMALL, SMALL]), Source("spec.json"))
    assert caught.value.code is ErrorCode.NAME_CLASH


@pytest.mark.parametrize(
    ("field", "value", "same"),
    [
        ("description", "other", True),
        ("datum_tries", 7, True),
        ("transform.image", "other:1", True),
        ("pipeline.name", "other", True),
        ("transform.cmd", ["bash"], False),
        ("transform.stdin", ["echo 1"], False),
        ("transform.env", {"A": "1"}, False),
        ("transform.working_dir", "/x", False),
        ("transform.accept_return_code", [1], False),
        ("transform.err_cmd", ["true"], False),
        ("transform.user", "ada", False),
        ("transform.datum_batching", True, False),
        ("batch", 7, False),
        ("max_failures", "1%", True),
        ("resource_limits", {"cpu": 2}, True),
    ],
)
def test_the_code_id_holds_what_can_change_an_output(field: str, value: Any, same: bool) -> None:
    assert (parse(changed(field, value))[0].code_id == parse(SMALL)[0].code_id) is same


def test_the_code_folder_counts() -> None:
    ids = {parse(SMALL, code=code)[0].code_id for code in (None, "ab" * 32, "cd" * 32)}
    assert len(ids) == 3


def test_the_scripts_count_by_content_not_by_their_tree() -> None:
    files = {"a.py": (b"1", 0o644), "b/c.py": (b"2", 0o600)}
    first, notices = parse(IRIS, code="", code_files=files)
    assert first.code_id == parse(IRIS, code="ab" * 32, code_files=files)[0].code_id
    assert not any("--code" in notice for notice in notices)
    assert [item.name for item in first.definitions] == ["command", "a.py", "b/c.py"]
    for other in (
        {**files, "a.py": (b"3", 0o644)},
        {**files, "a.py": (b"1", 0o755)},
        {"z.py": files["a.py"], "b/c.py": files["b/c.py"]},
    ):
        assert parse(IRIS, code_files=other)[0].code_id != first.code_id


def test_shared_specs_of_the_example_parse() -> None:
    folder = Path(__file__).resolve().parents[3] / "examples" / "iris"
    for path in sorted(folder.glob("*.pipeline.json")):
        specs, _ = parse_specs(path.read_text(), Source(str(path)))
        assert specs, path


def combined(kind: str, *files: dict[str, Any]) -> dict[str, Any]:
    return {kind: [{"pfs": {"glob": "/(*).x", **file}} for file in files]}


def test_joins_groups_and_unions_keep_their_templates() -> None:
    join = combined("join", {"repo": "a", "joinOn": "$1", "outerJoin": True}, {"repo": "b", "join_on": "$1"})
    union = combined("union", {"repo": "c", "name": "x", "group_by": "$1"}, {"repo": "d", "name": "x", "groupBy": "$1"})
    spec, _ = parse(changed("input", {"cross": [join, {"group": [union]}]}))
    a, b = (Files(repo=repo, glob="/(*).x", join_on="$1") for repo in "ab")
    c, d = (Files(repo=repo, glob="/(*).x", name="x", group_by="$1") for repo in "cd")
    assert spec.input == Cross(inputs=(Join(inputs=(a, b), outer=(0,)), Group(inputs=(Union(inputs=(c, d)),))))


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("standby", "a field of Pachyderm 1, now autoscaling"),
        ("chunkSpec", "now datum_set_spec"),
        ("spout.overwrite", "put --append"),
        ("input.git", "put --mirror"),
    ],
)
def test_fields_of_pachyderm_1_are_refused_with_what_became_of_them(path: str, hint: str) -> None:
    with pytest.raises(InvalidInputError, match="unknown field") as refused:
        parse(changed(path, True))
    assert hint in str(refused.value.hint)


def test_what_became_of_a_field_is_no_field_itself() -> None:
    assert [name for kind, former in FORMER.items() for name in former if name in names(kind)] == []


def test_a_secrets_folder_may_end_in_a_slash() -> None:
    with_slash, without = (
        parse(changed("transform.secrets", [{"name": "t", "mount_path": path}])) for path in ("/run/t/", "/run/t")
    )
    assert with_slash == without
