"""What a key says is tested with the expressions that make keys; here are keys that are none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.provenance.datum_key import KeyPart, labelled_leaves, read_key

A = {"type": "files", "repo": "a", "glob": "/{n}"}
B = {"type": "files", "repo": "b", "name": "x", "glob": "/{n}/{day}"}
NODE: dict[str, Any] = {
    "type": "cross",
    "inputs": [
        {"type": "files", "repo": "model"},
        {"type": "union", "inputs": [{"type": "join", "on": ["n"], "outer": [0], "inputs": [A, B]}, B]},
        {"type": "group", "by": ["n"], "inputs": [{**B, "name": "y"}]},
    ],
}
ORDER = ("y", "a", "x")


def test_a_key_is_read_in_the_contexts_order() -> None:
    assert [label for label, _ in labelled_leaves(NODE)] == ["model", "a", "x", "x/2", "y"]
    assert read_key(NODE, ORDER, b"k\x0000\0p\x0010\0p") == [
        KeyPart("n", "k"),
        KeyPart("y", "k/{day}", "y", {**B, "name": "y"}, grouped=True),
        KeyPart("a", "p", "a", A),
    ]
    assert read_key(NODE, ORDER, b"k\x0001\0q/1") is not None


@pytest.mark.parametrize(
    "key", [b"", b"k", b"k\x0002\0p", b"k\x0000\0p\x00111\0p", b"k\x0001\0q\0r", b"k\x000\0q", b"k\x0000\0p\x0011\0p"]
)
def test_what_is_no_key_of_the_expression_is_told(key: bytes) -> None:
    assert read_key(NODE, ORDER, key) is None


@given(st.lists(st.sampled_from([b"00", b"01", b"10", b"11", b"x", b"\xff"]), max_size=7).map(b"\0".join))
def test_any_bytes_are_read_or_refused(key: bytes) -> None:
    read_key(NODE, ORDER, key)


def test_of_constant_inputs_a_key_says_nothing() -> None:
    assert read_key({"type": "files", "repo": "model"}, (), b"") == []
    assert read_key({"type": "files", "repo": "model"}, (), b"x") is None
