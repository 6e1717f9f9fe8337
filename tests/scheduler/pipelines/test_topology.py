from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.scheduler.pipelines.topology import topological_order
from dmlpipe.storage.errors import ErrorCode, InvalidInputError

graphs = st.dictionaries(st.sampled_from("abcdefgh"), st.lists(st.sampled_from("abcdefghxyz"), max_size=4))


def has_cycle(graph: dict[str, list[str]]) -> bool:
    """Oracle: whether some node is reached from itself."""
    reached = {name: {repo for repo in repos if repo in graph} for name, repos in graph.items()}
    for _ in graph:
        reached = {name: near | {far for item in near for far in reached[item]} for name, near in reached.items()}
    return any(name in near for name, near in reached.items())


@given(graphs)
def test_upstream_comes_first_and_cycles_are_refused(graph: dict[str, list[str]]) -> None:
    if has_cycle(graph):
        with pytest.raises(InvalidInputError) as caught:
            topological_order(graph)
        assert caught.value.code is ErrorCode.CYCLE
        return
    order = topological_order(graph)
    assert sorted(order) == sorted(graph)
    assert all(order.index(repo) < order.index(name) for name in graph for repo in graph[name] if repo in graph)


def test_the_cycle_is_named_in_the_direction_of_the_data() -> None:
    with pytest.raises(InvalidInputError, match="a -> b -> c -> a"):
        topological_order({"x": ["a"], "a": ["c"], "c": ["b"], "b": ["a"]})


def test_a_long_chain_is_no_problem() -> None:
    graph = {str(number): [str(number + 1)] for number in range(5000)}
    assert topological_order(graph)[:2] == ["4999", "4998"]
