"""Branches that follow others, against a model that knows only the rule's words."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.errors import InvalidInputError
from dmlpipe.storage.records import Trigger
from dmlpipe.storage.state import State
from dmlpipe.storage.store import Store
from dmlpipe.storage.triggers import check_trigger, holds

_names = itertools.count()
BRANCHES = ("a", "b", "c")


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Trigger]:
    """A rule for some branches, each of which follows master or a branch before it."""
    found: dict[str, Trigger] = {}
    for branch in BRANCHES:
        on = draw(st.sampled_from(["master", *found]))
        size, commits = draw(st.sampled_from([(0, 1), (0, 3), (40, 0), (40, 2), (25, 4)]))
        found[branch] = Trigger(on=on, size=size, commits=commits, all=draw(st.booleans()))
    return found


@given(rules(), st.lists(st.integers(0, 40), max_size=12))
def test_branches_are_where_their_rules_put_them(rules: dict[str, Trigger], sizes: list[int]) -> None:
    store = Store.init(f"memory://triggers-{next(_names)}")
    store.create_repo("r")
    for branch, rule in rules.items():
        store.set_trigger("r", branch, rule)
    heads: dict[str, list[tuple[str, int]]] = {"master": []}
    heads |= {branch: [] for branch in rules}
    for number, size in enumerate(sizes):
        with store.commit("r") as session:
            session.write("x", f"{number:06}" + "x" * size)
        moved = [("master", (store["r"].id, size + 6))]
        while moved:
            on, head = moved.pop()
            heads[on].append(head)
            for branch, rule in rules.items():
                if rule.on == on:
                    before = heads[branch][-1] if heads[branch] else ("", 0)
                    since = [commit for commit, _ in heads[on]]
                    count = len(since) - (since.index(before[0]) + 1 if before[0] else 0)
                    said = [head[1] - before[1] >= rule.size] * bool(rule.size)
                    said += [count >= rule.commits] * bool(rule.commits)
                    if all(said) if rule.all else any(said):
                        moved.append((branch, head))
        state = store.refresh()
        assert state.branches("r") == {branch: known[-1][0] for branch, known in heads.items() if known}
    again = State()
    for entry, name in store.ledger.entries():
        assert again.apply(entry, name) == []
    assert again.branches("r") == store.state.branches("r")


@given(st.dictionaries(st.sampled_from("abcde"), st.sampled_from("abcdem")))
def test_a_circle_is_refused_and_nothing_else(follows: dict[str, str]) -> None:
    known: dict[str, Trigger] = {}
    for branch, on in follows.items():
        rule = Trigger(on=on, commits=1)
        seen = [branch]
        while seen[-1] in {**known, branch: rule} and len(seen) < 10:
            seen.append({**known, branch: rule}[seen[-1]].on)
        if len(seen) == 10:
            with pytest.raises(InvalidInputError, match="follow each other"):
                check_trigger("r", branch, rule, known)
        else:
            check_trigger("r", branch, rule, known)
            known[branch] = rule


def test_no_rate_holds_before_an_entry_has_its_time() -> None:
    since = "2030-01-01T00:00:00Z"
    rule = Trigger(rate="@hourly")
    assert not holds(rule, grown=0, commits=1, since=since, now="")
    assert not holds(rule, grown=0, commits=1, since=since, now="2030-01-01T01:00:00Z")
    assert holds(rule, grown=0, commits=1, since=since, now="2030-01-01T01:00:00.000001Z")
