from __future__ import annotations

import ast
import datetime
import struct
import uuid
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.scheduler.identity.encode import UnencodableError, encode_node, encode_value, frame

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


def exact(value: Any) -> Any:
    """A value with its types and bits, comparable with `==`."""
    match value:
        case float():
            return ("float", "nan" if value != value else struct.pack(">d", value))
        case complex():
            return ("complex", exact(value.real), exact(value.imag))
        case list() | tuple():
            return (type(value).__name__, [exact(item) for item in value])
        case dict():
            return ("dict", [(exact(key), exact(item)) for key, item in value.items()])
        case _:
            return (type(value).__name__, value)


@given(plain, plain)
def test_values_have_equal_bytes_exactly_if_they_are_the_same(first: Any, second: Any) -> None:
    assert (encode_value(first) == encode_value(second)) == (exact(first) == exact(second))


@given(st.lists(st.binary()), st.lists(st.binary()), st.text(), st.text())
def test_frames_of_different_parts_differ(first: list[bytes], second: list[bytes], a: str, b: str) -> None:
    assert (frame(a, *first) == frame(b, *second)) == ((a, first) == (b, second))


@given(st.lists(st.text() | st.integers(), unique=True))
def test_sets_have_no_order(listed: list[str | int]) -> None:
    items = set(listed)
    backwards: set[str | int] = set()
    for item in reversed(listed):
        backwards.add(item)
    assert encode_value(items) == encode_value(backwards)
    assert encode_value(items) != encode_value(frozenset(items))


@pytest.mark.parametrize(
    "value",
    [
        range(3),
        slice(1, None, 2),
        Path("a/b"),
        datetime.date(2026, 1, 2),
        datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC),
        datetime.timedelta(days=1, microseconds=3),
        Decimal("1.10"),
        Fraction(1, 3),
        uuid.UUID(int=5),
        ...,
    ],
)
def test_other_plain_values_are_taken(value: object) -> None:
    assert encode_value(value)


def test_numbers_that_are_equal_and_differ_in_type_differ() -> None:
    assert len({encode_value(value) for value in (1, 1.0, True, 1 + 0j, "1", b"1", Decimal(1))}) == 7


@pytest.mark.parametrize("value", [object(), [{"a": object()}], iter(()), lambda: 1, int])
def test_what_is_not_plain_is_refused(value: object) -> None:
    with pytest.raises(UnencodableError):
        encode_value(value)


def test_a_list_that_holds_itself_is_refused() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    with pytest.raises(UnencodableError):
        encode_value(loop)


SAME = [
    ("x = 1", "x = 0x1"),
    ("'a' 'b'", "'a' 'c'"),  # a bare string has no effect
    ("f'{x}' 'b'", "f'{x}b'"),
    ("f'{x}' ''", "f'{x}'"),
    ("x = (1, 2)", "x = 1, 2"),
    ("def f():\n    'doc'\n    return 1", "def f(): return 1"),
    ("class A:\n    x: int\n    '''of x'''", "class A:\n    x: int"),
    ("x = u'a'", "x = 'a'"),
    ("x = 1 # type: int", "x = 1"),
]
DIFFERENT = [
    ("x = 1", "x = 1.0"),
    ("x = 0.0", "x = -0.0"),
    ("x = 'a'", "x = b'a'"),
    ("x = f'{y}'", "x = f'{y!r}'"),
    ("x = f'{y:1}'", "x = f'{y:2}'"),
    ("x = [a]", "x = (a,)"),
    ("x = a", "y = a"),
    ("def f(a, /): 1", "def f(a): 1"),
    ("def f(*, a): 1", "def f(a): 1"),
    ("def f(a=1, *, b): 1", "def f(a, *, b=1): 1"),
    ("def f(*, a=1, b): 1", "def f(*, a, b=1): 1"),
    ("import a.b", "import a.b as a"),
    ("from . import a", "from .. import a"),
    ("x = {**a, 'b': 1}", "x = {'b': 1, **a}"),
    ("async def f(): 1", "def f(): 1"),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_syntax_that_means_the_same_has_equal_bytes(first: str, second: str) -> None:
    assert encode_node(ast.parse(first)) == encode_node(ast.parse(second))


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_syntax_that_means_something_else_has_different_bytes(first: str, second: str) -> None:
    assert encode_node(ast.parse(first)) != encode_node(ast.parse(second))


def test_skipped_decorators_vanish_and_skipped_defaults_keep_their_place() -> None:
    with_it, without = (ast.parse(text).body[0] for text in ("@a\n@b(1)\ndef f(): 1", "@a\ndef f(): 1"))
    assert isinstance(with_it, ast.FunctionDef)
    assert encode_node(with_it, skip=[with_it.decorator_list[1]]) == encode_node(without)
    one, two = (ast.parse(f"def f(*, a={value}, b): 1").body[0] for value in "12")
    assert isinstance(one, ast.FunctionDef)
    assert isinstance(two, ast.FunctionDef)
    skipped = [
        encode_node(node, skip=[item for item in node.args.kw_defaults if item is not None]) for node in (one, two)
    ]
    assert skipped[0] == skipped[1] != encode_node(one)
