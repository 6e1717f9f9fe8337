from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dmlpipe.scheduler.inputs.combine import cross
from dmlpipe.scheduler.inputs.leaf import files, like, values
from dmlpipe.scheduler.pipelines.spec import Definition
from dmlpipe.scheduler.planning.reasons import Reason, Why, explain
from dmlpipe.storage.records import InputBinding
from tests.scheduler.shelf import binding, pipeline

SPEC = pipeline(
    cross(files("images", "/*"), m=files("model"), C=values(C=[1])),
    parameters={"C": 1.0},
    env="aa",
    env_name="requirements.txt",
    definitions=(Definition("dag.model", "dag.py", 11, "h1"), Definition("features.load", "features.py", 3, "h2")),
)
INPUTS = {
    "images": InputBinding(name="images", repo="images", branch="master", commit="1" * 64, tree="a" * 64),
    "m": InputBinding(name="m", repo="model", branch="master", commit="7d02b1" + "0" * 58, tree="b" * 64),
}


def why(**changes: Any) -> list[Why]:
    return explain(msgspec.structs.replace(SPEC, **changes), INPUTS, (SPEC, tuple(INPUTS.values())))


def test_an_equal_version_on_equal_constants_has_no_reason() -> None:
    assert why() == []
    other = {**INPUTS, "images": msgspec.structs.replace(INPUTS["images"], tree="c" * 64)}
    assert explain(SPEC, other, (SPEC, tuple(INPUTS.values()))) == []


def test_the_first_job_is_a_first_run() -> None:
    assert explain(SPEC, INPUTS, None) == [Why(Reason.FIRST_RUN)]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"code_id": "n", "definitions": (Definition("dag.model", "dag.py", 14, "h9"), SPEC.definitions[1])},
            "code changed: model(), dag.py:14",
        ),
        ({"code_id": "n", "definitions": SPEC.definitions[:1]}, "code changed: load() (gone)"),
        (
            {"code_id": "n", "definitions": (*SPEC.definitions, Definition("dag.new", "dag.py", 30, "h"))},
            "code changed: new(), dag.py:30 (added)",
        ),
        ({"code_id": "n", "source": "pipeline.json"}, "code changed: pipeline.json"),
        ({"parameters": {"C": 0.5}}, "parameter changed: C: 1.0 -> 0.5"),
        ({"parameters": {"C": 1.0, "k": "x"}}, 'parameter changed: k: (none) -> "x"'),
        ({"env": "bb"}, "env changed: requirements.txt"),
        ({"env": "", "env_name": ""}, "env changed: requirements.txt -> (none)"),
        ({"salt": "1"}, "forced"),
        ({"writes": like("images", dtype="int8")}, "declared input changed: writes="),
        ({"input": cross(files("images", "/**"), m=files("model"), C=values(C=[1]))}, "declared input changed: images"),
        ({"input": cross(files("images", "/*"), m=files("model"))}, "declared input changed: C (gone)"),
    ],
)
def test_each_change_is_told(changes: dict[str, Any], text: str) -> None:
    assert [str(reason) for reason in why(**changes)] == [text]


def test_many_definitions_are_counted() -> None:
    many = tuple(Definition(f"dag.f{at}", "dag.py", at, "new") for at in range(5))
    [reason] = why(code_id="n", definitions=(*SPEC.definitions, *many))
    assert reason.detail.endswith("f2(), dag.py:2 (added) and 2 more")


def test_a_constant_input_that_changed_is_named_with_its_commits() -> None:
    new = msgspec.structs.replace(INPUTS["m"], commit="9c41e2" + "0" * 58, tree="d" * 64)
    [reason] = explain(SPEC, {**INPUTS, "m": new}, (SPEC, tuple(INPUTS.values())))
    assert reason == Why(Reason.CONSTANT_CHANGED, "model: 7d02b1 -> 9c41e2")
    assert reason.to_dict() == {"reason": "constant-changed", "detail": "model: 7d02b1 -> 9c41e2"}
    [appeared] = explain(SPEC, INPUTS, (SPEC, (binding("m", None),)))
    assert appeared.detail == "model: (none) -> 7d02b1"


def test_an_equal_tree_in_another_commit_is_no_reason() -> None:
    new = msgspec.structs.replace(INPUTS["m"], commit="9" * 64)
    assert explain(SPEC, {**INPUTS, "m": new}, (SPEC, tuple(INPUTS.values()))) == []
