from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.trees.cuts import CutRule, find_cuts


@given(
    st.lists(st.binary(min_size=1, max_size=6), unique=True, max_size=400).map(sorted),
    st.integers(0, 3),
    st.sampled_from([2, 3, 8, 16, 100]),
)
def test_all_at_once_is_the_same_as_one_by_one(keys: list[bytes], level: int, target: int) -> None:
    rule = CutRule.of(target)
    expected, count = [], 0
    for number, key in enumerate(keys, 1):
        count += 1
        if rule.ends(key, level, count):
            expected.append(number)
            count = 0
    assert list(find_cuts(keys, level, target)) == expected
