from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from dmlpipe.scheduler.inputs.combine import cross, group, join, union
from dmlpipe.scheduler.inputs.expression import Array, Cross, Files, Input, Join, Values, canonical_json
from dmlpipe.scheduler.inputs.leaf import array, files, like, values
from dmlpipe.scheduler.inputs.scope import scope
from dmlpipe.scheduler.inputs.walk import constants, followed, is_constant, leaves, placed
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


N = files("a", "/{n}")


def test_keys_are_the_captures_that_all_inputs_share() -> None:
    pair = join(files("a", "/{k}_{n}_{x}"), files("b", "/{n}.{k}"))
    assert pair.on == ("k", "n")
    assert join(pair, files("c", "/{k}"), outer=True) == Join(
        inputs=(pair, files("c", "/{k}")), on=("k",), outer=(0, 1)
    )
    assert join(N, files("b", "/{n}"), outer=["b"]).outer == (1,)
    assert group(N, files("b", "/{n}.{m}")).by == ("n",)
    assert group(N, by=[]).by == ()


def test_members_of_a_union_may_share_a_name() -> None:
    node = cross(union(files("a", "/*", name="x"), files("b", "/{n}", name="x")), files("c"))
    assert [(entry.label, entry.mark) for entry in placed(node)] == [("x", b""), ("x/2", b"1"), ("c", b"")]
    assert constants(node) == {"c"}
    assert list(followed(node)) == ["x", "x/2", "c"]


def test_what_may_be_missing() -> None:
    outer = join(a=files("a", "/{n}_{m}"), b=files("b", "/{n}"), outer="b")
    assert {name: slot.optional for name, slot in scope(outer).slots.items()} == {"a": True, "b": False}
    assert {name: found.optional for name, found in scope(outer).captures.items()} == {"n": False, "m": True}
    assert constants(union(files("a"))) == frozenset()


def test_every_expression_survives_encoding() -> None:
    pair = join(files("r", "/{n}.1"), files("s", "/{n}.2"), outer=True)
    grouped = group(union(Files(repo="t", glob="/(*)", join_on="$1"), files("t", "/*", name="t")), by=[])
    node = cross(files("a", "/{n}"), pair, grouped, x=array("b", "/p", halo=(1, 2)), y=values(C=[1, "a", None]))
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
        (lambda: union(), ErrorCode.BAD_INPUT, r"union\(\) needs at least one input"),
        (lambda: union(*[files("a", name="x")] * 257), ErrorCode.BAD_INPUT, "at most 256 inputs, got 257"),
        (lambda: union(files("a", name="x"), array("b", name="x")), ErrorCode.BAD_INPUT, "not of one kind"),
        (lambda: cross(union(files("a")), files("a")), ErrorCode.BAD_INPUT, "two inputs are named 'a'"),
        (lambda: join(files("a", "/*"), files("b", "/*")), ErrorCode.BAD_INPUT, "no capture that all its inputs share"),
        (lambda: join(N, files("b", "/{m}"), on="n"), ErrorCode.BAD_INPUT, "b has no capture 'n' in every datum; .* m"),
        (
            lambda: join(N, union(files("b", "/{n}"), files("c")), on="n"),
            ErrorCode.BAD_INPUT,
            "no capture 'n' in every",
        ),
        (lambda: join(N, on=["n", "n"]), ErrorCode.BAD_INPUT, "names a capture twice: n, n"),
        (lambda: join(N, on=[]), ErrorCode.BAD_INPUT, "has no key"),
        (lambda: join(N, files("b", "/{n}"), outer="c"), ErrorCode.BAD_INPUT, "names 'c', which is no input of it"),
        (lambda: join(x=join(N)), ErrorCode.BAD_INPUT, "a join has no name of its own"),
        (lambda: group(N), ErrorCode.BAD_INPUT, "needs to know by what"),
        (
            lambda: group(cross(N, values(C=[1])), by="n"),
            ErrorCode.BAD_INPUT,
            r"group\(\) takes files, and 'C' is none",
        ),
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
        "import sys, dmlpipe.scheduler.planning.plan, dmlpipe.scheduler.planning.summary; "
        "print([m for m in ('numpy', 'zarr', 'dask', 'distributed', 's3fs') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"
