"""Encoded values: what can be told of many at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.objects.value import External, Inline, Pieces, Sizes, Value, Whole, encode_value, is_inline

_hashes = st.binary(min_size=32, max_size=32)
_values: st.SearchStrategy[Value] = st.one_of(
    st.builds(Whole, st.sampled_from([129, 2000, 70_000, 1 << 20]), _hashes),
    st.builds(Pieces, st.integers(1 << 24, 1 << 60), _hashes),
    st.builds(Inline, st.binary(max_size=128)),
    st.builds(External, st.text(max_size=40), st.integers(0, 1 << 60), st.text(max_size=10)),
)


@given(st.lists(_values, max_size=40))
def test_sizes_are_summed_as_if_each_value_were_parsed(values: list[Value]) -> None:
    assert Sizes().sum([encode_value(value) for value in values]) == sum(value.size for value in values)


@given(_values)
def test_an_inline_value_is_known_without_being_parsed(value: Value) -> None:
    assert is_inline(encode_value(value)) is isinstance(value, Inline)
