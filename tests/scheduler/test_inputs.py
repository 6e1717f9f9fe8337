from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from dmlpipe.scheduler.inputs import (
    Array,
    Cross,
    Files,
    Input,
    Values,
    array,
    canonical_json,
    cross,
    files,
    is_constant,
    leaves,
    like,
    values,
)
from dmlpipe.storage.errors import DmlpipeError, ErrorCode


def test_constructors_make_plain_structs() -> None:
    assert files("images", "*.png/") == Files(repo="images", glob="/*.png")
    assert files("images", name="im", branch="dev") == Files(repo="images", glob="/", name="im", branch="dev")
    assert array("scenes", "ndvi/", halo=8) == Array(repo="scenes", path="/ndvi", halo=(8,))
    assert array("scenes", "/ndvi", halo=(0, 0)).halo == ()
    assert array("segments") == array("segments", "/") == Array(repo="segments", path="/")
    assert values(C=[1, 2]) == Values(name="C", values=(1, 2))
    assert values(C=range(2), D=["a"]) == Cross(
        inputs=(Values(name="C", values=(0, 1)), Values(name="D", values=("a",)))
    )
    assert like("ndvi", dtype="uint8").fill_value == 0


def test_numpy_values_become_plain() -> None:
    grid = values(C=np.array([0.1, 1.0]), n=[np.int64(3)])
    assert isinstance(grid, Cross)
    assert [type(v) for leaf in leaves(grid) if isinstance(leaf, Values) for v in leaf.values] == [float, float, int]


def test_names_come_from_the_keyword_then_name_then_the_repo() -> None:
    node = cross(files("a"), files("b", name="bb"), cc=files("c"), g=values(x=[1]))
    assert [leaf.name for leaf in leaves(node)] == ["a", "bb", "cc", "g"]


def test_every_expression_survives_encoding() -> None:
    node = cross(files("a", "/{n}"), x=array("b", "/p", halo=(1, 2)), y=values(C=[1, "a", None]))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(node), type=Input) == node


def test_only_a_whole_repo_is_constant() -> None:
    assert is_constant(files("a"))
    assert [is_constant(leaf) for leaf in (files("a", "/x"), Values(name="v", values=(1,)), array("a", "/p"))] == [
        False
    ] * 3


def test_canonical_json_tells_numbers_apart() -> None:
    assert [canonical_json(value) for value in (1, 1.0, True, "é", {"b": 1, "a": [None]})] == [
        "1",
        "1.0",
        "true",
        '"é"',
        '{"a":[null],"b":1}',
    ]


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (lambda: files("a b"), ErrorCode.BAD_NAME, "'a b' cannot be the name of a repo"),
        (lambda: files("a", branch="-"), ErrorCode.BAD_NAME, "name of a branch"),
        (lambda: files("a", "/{x"), ErrorCode.BAD_GLOB, "is not closed"),
        (lambda: files("a", name="x/y"), ErrorCode.BAD_INPUT, "cannot be named 'x/y'"),
        (lambda: files("a", name=""), ErrorCode.BAD_INPUT, "cannot be named ''"),
        (lambda: array("a", "/../b"), ErrorCode.BAD_PATH, "'..'"),
        (lambda: array("a", "/p", halo=-1), ErrorCode.BAD_INPUT, "a halo is a count of cells"),
        (lambda: values(), ErrorCode.BAD_INPUT, "at least one list"),
        (lambda: values(C=[]), ErrorCode.BAD_INPUT, r"values\(C=\[\]\) is empty"),
        (lambda: values(C="abc"), ErrorCode.BAD_INPUT, "needs a list, got 'abc'"),
        (lambda: values(C=[1, 1]), ErrorCode.BAD_INPUT, "has 1 twice"),
        (lambda: values(C=[float("nan")]), ErrorCode.BAD_INPUT, "takes plain values"),
        (lambda: values(C=[object()]), ErrorCode.BAD_INPUT, "takes plain values"),
        (lambda: values(C=["x" * 2000]), ErrorCode.BAD_INPUT, "at most 1024"),
        (lambda: cross(), ErrorCode.BAD_INPUT, "at least one input"),
        (lambda: cross(files("a"), files("a")), ErrorCode.BAD_INPUT, "two inputs are named 'a'"),
        (lambda: cross(out=files("a")), ErrorCode.BAD_INPUT, "cannot be named 'out'"),
        (lambda: cross(x=cross(files("a"))), ErrorCode.BAD_INPUT, "no name of its own"),
        (lambda: cross("a"), ErrorCode.BAD_INPUT, "takes inputs, got str"),  # type: ignore[arg-type]
        (lambda: cross(x="a"), ErrorCode.BAD_INPUT, "takes inputs, got x='a'"),  # type: ignore[arg-type]
        (lambda: like("x", dtype="float"), ErrorCode.BAD_INPUT, "no dtype 'float'"),
    ],
)
def test_wrong_use_is_refused(make: Callable[[], Any], code: ErrorCode, message: str) -> None:
    with pytest.raises(DmlpipeError, match=message) as caught:
        make()
    assert caught.value.code is code


def test_declaring_inputs_loads_no_heavy_module() -> None:
    assert importlib.util.find_spec("zarr") is not None
    code = (
        "import sys, dmlpipe.scheduler.plan, dmlpipe.scheduler.summary; "
        "print([m for m in ('numpy', 'zarr', 'dask', 'distributed', 's3fs') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"
