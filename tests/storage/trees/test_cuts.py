from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.trees.cuts import CutRule, find_cuts


def cut_one_by_one(keys: list[bytes], level: int, target: int) -> list[int]:
    rule = CutRule.of(target)
    cuts, count = [], 0
    for number, key in enumerate(keys, 1):
        count += 1
        if rule.ends(key, level, count):
            cuts.append(number)
            count = 0
    return cuts


@given(
    st.lists(st.binary(min_size=1, max_size=6), unique=True, max_size=400).map(sorted),
    st.integers(0, 3),
    st.sampled_from([2, 3, 8, 16, 100]),
)
def test_all_at_once_is_the_same_as_one_by_one(keys: list[bytes], level: int, target: int) -> None:
    assert list(find_cuts(keys, level, target)) == cut_one_by_one(keys, level, target)


@pytest.mark.parametrize("target", [2, 64, 1024, 4096])
def test_many_keys_are_cut_as_one_by_one(target: int) -> None:
    # More than are hashed at once, and no whole number of times as many.
    keys = [b"train/%07d.jpg" % number for number in range(9_000)]
    assert list(find_cuts(keys, 0, target)) == cut_one_by_one(keys, 0, target)
