from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.scheduler.inputs.expression import Cross, Files, Input, Values
from dmlpipe.scheduler.inputs.items import Piece
from dmlpipe.scheduler.inputs.leaf import values
from dmlpipe.scheduler.inputs.walk import is_constant, leaves
from dmlpipe.scheduler.planning.datums import Bound, Combination, bind, rebind
from dmlpipe.storage.trees.prolly import Tree
from tests.scheduler.shelf import Listing, Shelf, edited, expressions, full_listing, listings, values_lists

K = b"k" * 32


def trees_of(shelf: Shelf, sides: Mapping[str, Listing | None]) -> dict[str, Tree | None]:
    return {name: None if listing is None else shelf.tree(listing) for name, listing in sides.items()}


def bound(shelf: Shelf, node: Input, sides: Mapping[str, Listing | None], order: tuple[str, ...] = ()) -> Bound:
    return bind(node, trees_of(shelf, sides), order=order, read=shelf.read)


def pieces(found: Combination) -> list[Piece]:
    """Its pieces; none is absent, as it could be in an outer join."""
    assert all(piece is not None for piece in found.pieces)
    return [piece for piece in found.pieces if piece is not None]


def contents(found: Combination) -> list[bytes]:
    return [piece.content for piece in pieces(found)]


def content_ids(shelf: Shelf, held: list[object]) -> list[bytes]:
    """Content ids of what the oracle lists: of a folder, the root of the tree that holds only it."""
    return [shelf.tree(what).root if isinstance(what, dict) else str(what).encode() for what in held]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Input, dict[str, Listing | None], dict[str, Listing | None], tuple[str, ...]]:
    """An expression, two states of its repos (of constants one), and an order of the varying inputs."""
    node = draw(expressions())
    old: dict[str, Listing | None] = {}
    new: dict[str, Listing | None] = {}
    for leaf in leaves(node):
        if isinstance(leaf, Files):
            before = draw(listings())
            old[leaf.name] = new[leaf.name] = before
            if not is_constant(leaf):
                new[leaf.name] = draw(st.one_of(st.just(before), edited(before)))
                if draw(st.integers(0, 9)) == 0:
                    old[leaf.name] = None
    order = draw(st.permutations([leaf.name for leaf in leaves(node) if not is_constant(leaf)]))
    return node, old, new, tuple(order)


@given(cases())
def test_enumerating_lists_every_datum_in_key_order(
    case: tuple[Input, dict[str, Listing | None], object, tuple[str, ...]],
) -> None:
    node, sides, _, order = case
    shelf = Shelf()
    side = bound(shelf, node, sides, order)
    found = list(side.enumerate())
    expected = full_listing(node, sides, order)
    assert [datum.key for datum in found] == sorted(expected)
    for datum in found:
        assert contents(datum) == content_ids(shelf, expected[datum.key])
        assert side.get(datum.key) == datum
    assert side.count() == len(expected)


@given(cases())
def test_the_delta_is_the_difference_of_the_full_listings(
    case: tuple[Input, dict[str, Listing | None], dict[str, Listing | None], tuple[str, ...]],
) -> None:
    node, before, after, order = case
    shelf = Shelf()
    old, new = bound(shelf, node, before, order), bound(shelf, node, after, order)
    was, now = full_listing(node, before, order), full_listing(node, after, order)
    expected = sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key))
    changes = list(old.delta(new))
    assert [change.key for change in changes] == expected
    for key, left, came in changes:
        assert (left is not None, came is not None) == (key in was, key in now)
        assert left is None or contents(left) == content_ids(shelf, was[key])
        assert came is None or contents(came) == content_ids(shelf, now[key])
    assert old.grown(new, len(was)) == len(now)


@given(cases())
def test_equal_fingerprints_mean_equal_content(
    case: tuple[Input, dict[str, Listing | None], dict[str, Listing | None], tuple[str, ...]],
) -> None:
    node, before, after, order = case
    shelf = Shelf()
    old, new = bound(shelf, node, before, order), bound(shelf, node, after, order)
    was, now = full_listing(node, before, order), full_listing(node, after, order)
    prints = {(d.key, old.fingerprint(K, d)) for d in old.enumerate()}
    again = {(d.key, new.fingerprint(K, d)) for d in new.enumerate()}
    assert {key for key, _ in prints & again} == {key for key in was if was[key] == now.get(key, ...)}
    # The order of keys is no part of a fingerprint.
    other = bound(shelf, node, after, tuple(reversed(order)))
    assert {other.fingerprint(K, d) for d in other.enumerate()} == {fingerprint for _, fingerprint in again}


@given(values_lists(), values_lists(), listings())
def test_a_grid_is_remembered_by_its_values(
    old: tuple[object, ...], new: tuple[object, ...], files: dict[str, str]
) -> None:
    shelf = Shelf()
    first = Cross(inputs=(Values(name="C", values=old), Files(repo="r", glob="/*")))
    second = Cross(inputs=(Values(name="C", values=new), Files(repo="r", glob="/*")))
    order = ("r", "C")
    before, after = bound(shelf, first, {"r": files}, order), bound(shelf, second, {"r": files}, order)
    remembered = rebind(second, before.record(), after, open_tree=shelf.open, read=shelf.read)
    assert list(remembered.delta(after)) == list(before.delta(after))
    assert remembered.count() == before.count()


def test_the_larger_side_comes_first_in_the_key() -> None:
    shelf = Shelf()
    node = Cross(inputs=(Values(name="C", values=(1, 2)), Files(repo="r", glob="/*")))
    many = {f"{at}": "x" for at in range(5)}
    assert bound(shelf, node, {"r": many}).order == ("r", "C")
    assert bound(shelf, node, {"r": {"a": "x"}}).order == ("C", "r")


def test_a_missing_commit_yields_nothing_and_an_empty_one_a_single_datum() -> None:
    shelf = Shelf()
    whole = Files(repo="r")
    assert list(bound(shelf, whole, {"r": None}).enumerate()) == []
    assert [found.key for found in bound(shelf, whole, {"r": {}}).enumerate()] == [b""]
    both = Cross(inputs=(whole, Files(repo="s", glob="/*")))
    assert bound(shelf, both, {"r": None, "s": {"a": "x"}}).count() == 0
    assert bound(shelf, both, {"r": {}, "s": {"a": "x"}}).count() == 1
    assert bound(shelf, both, {"r": {}, "s": None}).count() == 0


def test_what_was_removed_never_meets_what_was_added() -> None:
    shelf = Shelf()
    node = Cross(inputs=(Files(repo="r", glob="/*"), Files(repo="s", glob="/*")))
    old = bound(shelf, node, {"r": {"a": "x", "k": "x"}, "s": {"1": "x"}}, ("r", "s"))
    new = bound(shelf, node, {"r": {"b": "x", "k": "x"}, "s": {"2": "x"}}, ("r", "s"))
    found = [(c.key, c.old is not None, c.new is not None) for c in old.delta(new)]
    assert found == [
        (b"a\x001", True, False),
        (b"b\x002", False, True),
        (b"k\x001", True, False),
        (b"k\x002", False, True),
    ]


def test_a_file_that_becomes_a_folder_is_another_datum() -> None:
    shelf = Shelf()
    node = Files(repo="r", glob="/*")
    old, new = bound(shelf, node, {"r": {"a": "x"}}), bound(shelf, node, {"r": {"a/b": "x"}})
    assert [(c.key, c.old is not None, c.new is not None) for c in old.delta(new)] == [
        (b"a", True, False),
        (b"a/", False, True),
    ]


def test_renaming_inside_a_folder_changes_the_folder() -> None:
    shelf = Shelf()
    node = Files(repo="r", glob="/*")
    old, new = bound(shelf, node, {"r": {"a/b": "x"}}), bound(shelf, node, {"r": {"a/c": "x"}})
    [change] = old.delta(new)
    assert change.old is not None
    assert change.new is not None
    assert contents(change.old) != contents(change.new)


def test_moving_a_folder_does_not_change_its_content_id() -> None:
    shelf = Shelf()
    node = Files(repo="r", glob="/*")
    old, new = bound(shelf, node, {"r": {"a/b": "x"}}), bound(shelf, node, {"r": {"z/b": "x"}})
    [left], [came] = [list(side.enumerate()) for side in (old, new)]
    assert contents(left) == contents(came)
    assert old.fingerprint(K, left) != new.fingerprint(K, came)


def test_captures_come_along() -> None:
    shelf = Shelf()
    [found] = bound(shelf, Files(repo="r", glob="/{split}/(*).x"), {"r": {"t/1.x": "v", "t/2.y": "v"}}).enumerate()
    assert pieces(found)[0].item.captures == {"split": "t", "1": "1"}
    assert pieces(found)[0].item.path == "t/1.x"


@pytest.mark.parametrize("key", [b"nope", b"a\0", b"a\0b\0c", b"a/", b"\xc3"])
def test_an_unknown_key_is_not_found(key: bytes) -> None:
    shelf = Shelf()
    node = Cross(inputs=(Files(repo="r", glob="/*"), values(C=[1])))
    side = bound(shelf, node, {"r": {"a": "x"}})
    assert side.get(b"a\x001") is not None
    assert side.get(key) is None


BIG = {f"{at // 100:04}/img_{at:06}.png": f"{at}" for at in range(100_000)}


@pytest.fixture(scope="module")
def big() -> tuple[Shelf, Tree, Tree]:
    """100,000 files, and the same with ten changes."""
    shelf = Shelf(tree_target=1024)
    tree = shelf.tree(BIG)
    edits = [(f"{at // 100:04}/img_{at:06}.png".encode(), b"new") for at in range(0, 100_000, 10_000)]
    return shelf, tree, tree.update(edits)


@pytest.mark.parametrize(("glob", "changed"), [("/*/{stem}.png", 10), ("/*", 10), ("/**", 10), ("/0000/*", 1)])
def test_ten_changes_among_100_000_read_the_nodes_that_changed(
    big: tuple[Shelf, Tree, Tree], glob: str, changed: int
) -> None:
    shelf, old, new = big
    cold = shelf.cold()
    before, after = (
        bind(Files(repo="r", glob=glob), {"r": Tree(cold.nodes, tree.root)}, read=cold.read) for tree in (old, new)
    )
    changes = list(before.delta(after))
    assert len(changes) == changed
    # Ten leaves and a root on either side; with folders, a leaf more on each side where a folder reaches over it.
    assert cold.nodes.reads <= 2 * (10 + 1) + (20 if glob == "/*" else 0)


def test_a_new_value_of_a_grid_lists_the_files_once(big: tuple[Shelf, Tree, Tree]) -> None:
    shelf, tree, _ = big
    cold = shelf.cold()
    total = sum(1 for _ in tree.walk_nodes())
    sides = [
        bind(
            Cross(inputs=(Files(repo="r", glob="/*"), values(C=grid))),
            {"r": Tree(cold.nodes, tree.root)},
            order=("r", "C"),
            read=cold.read,
        )
        for grid in ([1, 2], [1, 2, 3])
    ]
    assert sum(1 for _ in sides[0].delta(sides[1])) == 1000
    assert cold.nodes.reads <= total


def test_one_changed_file_times_a_grid_reads_that_file_only(big: tuple[Shelf, Tree, Tree]) -> None:
    shelf, old, _ = big
    new = old.update([(b"0000/img_000000.png", b"new")])
    cold = shelf.cold()
    node = Cross(inputs=(Files(repo="r", glob="/*/*"), values(C=[1, 2, 3])))
    before, after = (bind(node, {"r": Tree(cold.nodes, t.root)}, order=("r", "C"), read=cold.read) for t in (old, new))
    assert [change.key for change in before.delta(after)] == [b"0000/img_000000.png\0" + v for v in (b"1", b"2", b"3")]
    assert before.grown(after, 300_000) == 300_000
    assert cold.nodes.reads <= 4
