from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.objects.node import NodeStore
from dmlpipe.storage.objects.value import Inline, encode_value
from dmlpipe.storage.paths import folders_of
from dmlpipe.storage.trees.merge import Prefer, is_ancestor, join_bases, merge3, merge_bases
from dmlpipe.storage.trees.prolly import Tree, build

Files = Mapping[str, str]

_count = itertools.count()
_nodes = NodeStore(MemoryBackend(f"memory://merge-{next(_count)}"), tree_target=4)


def tree(files: Files) -> Tree:
    items = ((path.encode(), encode_value(Inline(text.encode()))) for path, text in files.items())
    return build(_nodes, sorted(items))


def files(found: Tree) -> dict[str, str]:
    def text(raw: bytes) -> str:
        return raw[-1:].decode()

    return {path.decode(): text(raw) for path, raw in found.scan()}


def merged(base: Files, ours: Files, theirs: Files, prefer: Prefer = Prefer.REFUSE) -> dict[str, str] | list[str]:
    found = merge3(tree(base), tree(ours), tree(theirs), prefer=prefer)
    return [f"{each.path}: {each.reason}" for each in found.conflicts] if found.tree is None else files(found.tree)


def is_consistent(found: Files) -> bool:
    return not any(folder.decode() in found for path in found for folder in folders_of(path.encode()))


_names = st.sampled_from(["a", "b", "a/x", "a/y", "a/x/1", "b/x", "c", "c/1/2", "c/1"])
sides = st.dictionaries(_names, st.sampled_from("123"), max_size=6).filter(is_consistent)


def test_changes_of_both_sides_come_together() -> None:
    base = {"a": "1", "b": "1", "c": "1", "d": "1"}
    assert merged(base, base | {"a": "2", "new": "1"}, {"a": "1", "b": "3", "c": "1"}) == {
        "a": "2",
        "b": "3",
        "c": "1",
        "new": "1",
    }


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "conflict"),
    [
        ({"f": "1"}, {"f": "2"}, {"f": "3"}, "/f: changed in both, differently"),
        ({}, {"f": "2"}, {"f": "3"}, "/f: added in both, differently"),
        ({"f": "1"}, {}, {"f": "3"}, "/f: deleted in ours, changed in theirs"),
        ({"f": "1"}, {"f": "2"}, {}, "/f: deleted in theirs, changed in ours"),
        ({}, {"f": "1"}, {"f/x/y": "1"}, "/f: a folder in theirs, a file in ours"),
        ({}, {"f/x": "1"}, {"f": "1"}, "/f: a folder in ours, a file in theirs"),
    ],
)
def test_a_conflict_is_named(base: Files, ours: Files, theirs: Files, conflict: str) -> None:
    assert merged(base, ours, theirs) == [conflict]
    assert merged(base, ours, theirs, Prefer.OURS) == ours
    assert merged(base, ours, theirs, Prefer.THEIRS) == theirs


def test_a_conflict_has_all_three_values() -> None:
    (conflict,) = merge3(tree({"f": "1"}), tree({"f": "2"}), tree({"f": "3"})).conflicts
    assert [conflict.base, conflict.ours, conflict.theirs] == [Inline(b"1"), Inline(b"2"), Inline(b"3")]
    told = conflict.to_dict()
    assert told["path"] == "/f"
    assert told["ours"] != told["theirs"]


def test_the_same_change_on_both_sides_is_no_conflict() -> None:
    assert merged({"f": "1", "g": "1"}, {"f": "2"}, {"f": "2"}) == {"f": "2"}


def test_a_file_that_became_a_folder_takes_the_folders_files() -> None:
    assert merged({"f": "1"}, {"f": "1", "g": "1"}, {"f/x": "1"}) == {"f/x": "1", "g": "1"}


def oracle(base: Files, ours: Files, theirs: Files) -> dict[str, str] | None:
    """The merge by its definition, path by path; None: it conflicts."""
    result: dict[str, str] = {}
    for path in base.keys() | ours.keys() | theirs.keys():
        b, o, t = base.get(path), ours.get(path), theirs.get(path)
        if o != t and o != b and t != b:
            return None
        value = t if o == b else o
        if value is not None:
            result[path] = value
    return result if is_consistent(result) else None


@given(sides, sides, sides)
@example({"a": "1"}, {"a": "2"}, {"a/x": "1"})
@example({"a/x": "1"}, {"a": "1"}, {"a/x": "2", "a/y": "1"})
def test_merging_is_what_its_definition_says(base: Files, ours: Files, theirs: Files) -> None:
    found = merge3(tree(base), tree(ours), tree(theirs))
    expected = oracle(base, ours, theirs)
    assert (None if found.tree is None else files(found.tree)) == expected
    assert bool(found.conflicts) == (expected is None)
    if found.tree is not None:
        assert found.size_change == len(files(found.tree)) - len(ours)
        assert found.taken == sum(1 for _ in tree(ours).diff(found.tree))


@given(sides, sides, sides)
@example({"a": "1"}, {"a": "2"}, {"a/x": "1"})
@example({"a": "1"}, {"a/x": "1"}, {"a": "2"})
def test_preferring_ours_is_preferring_theirs_seen_from_there(base: Files, ours: Files, theirs: Files) -> None:
    one = merge3(tree(base), tree(ours), tree(theirs), prefer=Prefer.OURS)
    two = merge3(tree(base), tree(theirs), tree(ours), prefer=Prefer.THEIRS)
    assert one.tree is not None
    assert one.tree == two.tree
    found = files(one.tree)
    assert is_consistent(found)
    # Whatever ours changed stands.
    assert all(found.get(path) == value for path, value in ours.items() if base.get(path) != value)
    clean = merge3(tree(base), tree(ours), tree(theirs))
    assert clean.tree is None or clean.tree == one.tree


def test_only_nodes_that_differ_are_read() -> None:
    nodes = NodeStore(MemoryBackend("memory://merge-reads"), tree_target=64)
    items = [(f"{number:06d}".encode(), encode_value(Inline(b"x"))) for number in range(20_000)]
    base = build(nodes, items)
    ours = base.update([(b"000100", encode_value(Inline(b"o")))])
    theirs = base.update([(b"015000", encode_value(Inline(b"t")))])
    cold = NodeStore(nodes.backend, tree_target=64)
    found = merge3(Tree(cold, base.root), Tree(cold, ours.root), Tree(cold, theirs.root))
    assert found.tree is not None
    assert found.tree.get(b"015000") == encode_value(Inline(b"t"))
    # Three nodes from the root down: the base's two ways share the first; each side has one way of its own.
    assert cold.reads <= (1 + 2 + 2) + 3 + 3
    # Below the root all are nodes of one of the sides.
    assert cold.writes <= 1


# --- bases --------------------------------------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    """A DAG of commits, each with up to two parents among those before it."""
    found: dict[str, tuple[str, ...]] = {}
    for number in range(draw(st.integers(2, 12))):
        known = list(found)
        parents = draw(st.lists(st.sampled_from(known), max_size=2, unique=True)) if known else []
        found[f"c{number:02d}"] = tuple(parents)
    return found


def ancestors(history: Mapping[str, tuple[str, ...]], commit: str) -> set[str]:
    return {commit}.union(*(ancestors(history, parent) for parent in history[commit]))


@given(histories(), st.data(), st.booleans())
def test_bases_are_the_common_ancestors_above_no_other(
    history: dict[str, tuple[str, ...]], data: st.DataObject, are_ages_known: bool
) -> None:
    ours, theirs = data.draw(st.sampled_from(list(history))), data.draw(st.sampled_from(list(history)))
    common = ancestors(history, ours) & ancestors(history, theirs)
    best = [one for one in common if not any(one != other and one in ancestors(history, other) for other in common)]

    def age(commit: str) -> int:
        return int(commit[1:]) if are_ages_known else 0

    assert merge_bases(history.__getitem__, age, ours, theirs) == sorted(best)
    assert is_ancestor(history.__getitem__, age, ours, theirs) == (ours in ancestors(history, theirs))


def test_a_base_far_above_costs_what_is_younger() -> None:
    read: list[str] = []

    def parents(commit: str) -> tuple[str, ...]:
        read.append(commit)
        side, _, number = commit.partition("-")
        if int(number) == 1000 and side != "main":
            return ("main-999",)
        return (f"{side}-{int(number) - 1}",) if int(number) else ()

    found = merge_bases(parents, lambda commit: int(commit.partition("-")[2]), "ours-1005", "theirs-1003")
    assert found == ["main-999"]
    assert len(read) < 15


def test_what_bases_disagree_on_counts_as_changed_by_both() -> None:
    joined = join_bases([tree({"a": "1", "b": "1"}), tree({"a": "2", "b": "1", "c": "1"})])
    assert joined is not None
    found = merge3(joined, tree({"a": "1", "b": "1"}), tree({"a": "2", "b": "2", "c": "1"}))
    assert [each.path for each in found.conflicts] == ["/a", "/c"]
    agreed = merge3(joined, tree({"a": "3", "b": "1"}), tree({"a": "3", "b": "2"}))
    assert agreed.tree is not None
    assert files(agreed.tree) == {"a": "3", "b": "2"}
