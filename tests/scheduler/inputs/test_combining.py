"""Unions, joins and groups, nested at will: against listings made the slow way, and in the nodes that they read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.scheduler.inputs.combine import cross, group, join, union
from dmlpipe.scheduler.inputs.expression import Cross, Files, Group, Input, Join, Union, Values, canonical_json
from dmlpipe.scheduler.inputs.leaf import files
from dmlpipe.scheduler.inputs.scope import scope
from dmlpipe.scheduler.inputs.templates import Template
from dmlpipe.scheduler.inputs.walk import constants, factors, followed, placed
from dmlpipe.scheduler.planning.datums import Bound, Combination, bind, rebind
from dmlpipe.storage.errors import InvalidInputError
from dmlpipe.storage.glob import compile_glob
from dmlpipe.storage.provenance.datum_key import read_key
from dmlpipe.storage.trees.prolly import Tree
from tests.scheduler.shelf import Listing, Shelf, edited, matches, values_lists

K = b"k" * 32

# --- the slow way -----------------------------------------------------------------------------------------------------


class Held(NamedTuple):
    """A file or folder in a datum."""

    path: str
    content: Any
    mark: bytes
    captures: dict[str, str]


class Slow(NamedTuple):
    """A datum."""

    key: tuple[str, ...]
    held: dict[str, list[Held]]
    """By slot; a slot that is not there has no file."""
    captures: dict[str, str]
    joined: str
    grouped: str


def slow_listing(node: Input, listings: Mapping[str, Listing | None], order: Sequence[str]) -> dict[bytes, list[Any]]:
    """Every datum and what it holds, in each slot of `order`."""
    entries = iter(placed(node))
    sides: list[tuple[int, list[Slow]]] = []
    for side in factors(node):
        constant = isinstance(side, Files) and side.repo in constants(node)
        if constant:
            if listings[next(entries).label] is None:
                return {}
            continue
        found = _slow(side, listings, entries)
        sides.append((min(order.index(name) for name in scope(side).slots), found))
    ordered = [found for _, found in sorted(sides, key=lambda side: side[0])]
    out = {}
    for combo in itertools.product(*ordered):
        key = "\0".join(part for one in combo for part in one.key).encode()
        held = {name: found for one in combo for name, found in one.held.items()}
        assert key not in out
        out[key] = [[(file.path, file.mark, file.content) for file in held.get(name, [])] for name in order]
    return out


def _slow(node: Input, listings: Mapping[str, Listing | None], entries: Any) -> list[Slow]:
    match node:
        case Values():
            label, mark, leaf = next(entries)
            texts = [canonical_json(value) for value in leaf.values]
            return [Slow((text,), {leaf.name: [Held(text, "", mark, {})]}, {}, "", "") for text in texts]
        case Files():
            label, mark, leaf = next(entries)
            return _slow_files(leaf, mark, listings[label])
        case Union():
            members = [_slow(child, listings, entries) for child in node.inputs]
            return [row._replace(key=(f"{at:02x}", *row.key)) for at, rows in enumerate(members) for row in rows]
        case Cross():
            sides = [_slow(child, listings, entries) for child in node.inputs]
            return [_together((), combo) for combo in itertools.product(*sides)]
        case Join():
            sides = [_slow(child, listings, entries) for child in node.inputs]
            found = []
            for key in {_key(node.on, row, "joined") for side in sides for row in side}:
                have = [[row for row in side if _key(node.on, row, "joined") == key] for side in sides]
                chosen = [at for at, rows in enumerate(have) if rows]
                if len(chosen) < len(sides):
                    chosen = [at for at in chosen if at in node.outer]
                mask = "".join("01"[at in chosen] for at in range(len(sides)))
                head = (*key, mask) if node.outer else key
                combos = itertools.product(*(have[at] for at in chosen)) if chosen else ()
                found += [_together(head, combo) for combo in combos]
            return found
        case Group():
            sides = [_slow(child, listings, entries) for child in node.inputs]
            names = list(scope(node).slots)
            found = []
            for key in {_key(node.by, row, "grouped") for side in sides for row in side}:
                rows = [row for side in sides for row in side if _key(node.by, row, "grouped") == key]
                held = {}
                for name in names:
                    files = [file for row in rows for file in row.held.get(name, [])]
                    once = {(file.path, file.mark, str(file.content)): file for file in files}
                    held[name] = [once[at] for at in sorted(once, key=lambda at: (at[0].encode(), at[1]))]
                captures = dict(zip(node.by, key, strict=False))
                joined, grouped = (
                    "".join(file.captures[what] for name in names for file in held[name])
                    for what in ("joined", "grouped")
                )
                found.append(Slow(key, held, captures, joined, grouped))
            return found
        case _:
            raise AssertionError(node)


def _key(names: Sequence[str], row: Slow, template: str) -> tuple[str, ...]:
    return tuple(row.captures[name] for name in names) if names else (getattr(row, template),)


def _together(head: tuple[str, ...], rows: Sequence[Slow]) -> Slow:
    return Slow(
        (*head, *(part for row in rows for part in row.key)),
        {name: found for row in rows for name, found in row.held.items()},
        {name: text for row in rows for name, text in row.captures.items()},
        "".join(row.joined for row in rows),
        "".join(row.grouped for row in rows),
    )


def _slow_files(leaf: Files, mark: bytes, listing: Listing | None) -> list[Slow]:
    if listing is None:
        return []
    found = []
    for path, content in matches(listing, leaf).items():
        captures = compile_glob(leaf.glob).match(path.rstrip("/")) or {}
        joined, grouped = (Template.parse(text).fill(captures) for text in (leaf.join_on, leaf.group_by))
        held = Held(path, content, mark, {"joined": joined, "grouped": grouped})
        found.append(Slow((path,), {leaf.name: [held]}, captures, joined, grouped))
    return found


# --- strategies -------------------------------------------------------------------------------------------------------

_PARTS = ("a", "b", "a.x", "b.x", "a-b", "b-a", "é")
_GLOBS = (
    "/{n}.x",
    "/{n}",
    "/{n}/*",
    "/*/{n}.x",
    "/{n}/{m}",
    "/{m}-{n}",
    "/{n}-*",
    "/**/{n}.x",
    "/{n}{m}",
    "/[ab]/{n}",
    "/{n}?(/*)",
)
_PLAIN = ("/", "/*", "/**", "/a")
_TEMPLATED = (("/(*).x", "$1", "$1"), ("/(*)/(*)", "$2", "$1"), ("/(*)-(*)", "k$1", "$2-$1"), ("/*", "", ""))


@st.composite
def shelves(draw: st.DrawFn) -> dict[str, str]:
    """Files, none of which stands where another has a folder."""
    paths = draw(st.lists(st.lists(st.sampled_from(_PARTS), min_size=1, max_size=2).map("/".join), max_size=10))
    found = {path: draw(st.sampled_from("xy")) for path in paths}
    return {path: v for path, v in found.items() if not any(other.startswith(path + "/") for other in found)}


class Grower:
    """Grows an expression; every leaf has a repo of its own."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.number = 0

    def leaf(self) -> Input:
        self.number += 1
        name = f"i{self.number}"
        kind = self.draw(st.sampled_from(["named", "named", "named", "plain", "values"]))
        if kind == "values":
            return Values(name=name, values=self.draw(values_lists()))
        glob = self.draw(st.sampled_from(_GLOBS if kind == "named" else _PLAIN))
        folders, reference, lazy = self.draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
        return files(name, glob, folders=folders, reference=reference, lazy=lazy)

    def files(self) -> Input:
        self.number += 1
        return files(f"i{self.number}", self.draw(st.sampled_from(_GLOBS)))

    def templated(self) -> Input:
        self.number += 1
        glob, join_on, group_by = self.draw(st.sampled_from(_TEMPLATED))
        return Files(repo=f"i{self.number}", glob=glob, join_on=join_on, group_by=group_by)

    def node(self, depth: int) -> Input:
        kinds = ["leaf", "cross", "union", "siblings", "join", "join", "group", "group", "specjoin", "specgroup"]
        kind = self.draw(st.sampled_from(kinds)) if depth else "leaf"
        if kind == "leaf":
            return self.leaf()
        if kind == "siblings":
            self.number += 1
            name = f"s{self.number}"
            return union(*(files(f"{name}{at}", self.draw(st.sampled_from(_GLOBS)), name=name) for at in range(2)))
        if kind in ("specjoin", "specgroup"):
            parts = tuple(self.spec(depth - 1) for _ in range(2))
            outer = self.draw(st.sampled_from([(), (0,), (0, 1)]))
            return Join(inputs=parts, outer=outer) if kind == "specjoin" else Group(inputs=parts)
        several = kind == "cross"
        children = [self.node(depth - 1) for _ in range(self.draw(st.integers(1 + several, 2)))]
        try:
            match kind:
                case "cross":
                    return cross(*children)
                case "union":
                    return union(*children)
                case "join":
                    return join(*children, outer=self.draw(st.booleans()))
                case _:
                    return group(*children, by=[] if self.draw(st.integers(0, 5)) == 0 else None)
        except InvalidInputError:
            pass
        both = [self.files(), self.files()]
        return join(*both, on="n", outer=self.draw(st.booleans())) if kind == "join" else group(*both, by="n")

    def spec(self, depth: int) -> Input:
        kind = self.draw(st.sampled_from(["leaf", "leaf", "union", "join", "cross"])) if depth else "leaf"
        if kind == "leaf":
            return self.templated()
        parts = (self.spec(depth - 1), self.spec(depth - 1))
        kinds: dict[str, Callable[..., Input]] = {"union": Union, "join": Join, "cross": Cross}
        return kinds[kind](inputs=parts)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Input, dict[str, Listing | None], dict[str, Listing | None], tuple[str, ...]]:
    """An expression, two states of its repos (of constants one), and an order of the sides."""
    node = Grower(draw).node(2)
    old: dict[str, Listing | None] = {}
    new: dict[str, Listing | None] = {}
    fixed = constants(node)
    for label, leaf in followed(node).items():
        before = draw(shelves())
        old[label] = new[label] = before
        if leaf.name not in fixed:
            new[label] = draw(st.one_of(st.just(before), edited(before), shelves()))
            if draw(st.integers(0, 9)) == 0:
                old[label] = None
    sides = [tuple(name for name in scope(side).slots if name not in fixed) for side in factors(node)]
    order = draw(st.permutations([side for side in sides if side]))
    return node, old, new, tuple(name for side in order for name in side)


Case = tuple[Input, dict[str, Listing | None], dict[str, Listing | None], tuple[str, ...]]


def bound(shelf: Shelf, node: Input, sides: Mapping[str, Listing | None], order: Sequence[str] = ()) -> Bound:
    trees = {label: None if listing is None else shelf.tree(listing) for label, listing in sides.items()}
    return bind(node, trees, order=order, read=shelf.read)


def held(found: Combination) -> list[list[tuple[str, bytes, bytes]]]:
    """What a datum holds: (path, mark, content id) for each slot."""
    pieces = [() if piece is None else piece.members or (piece,) for piece in found.pieces]
    return [[(file.key.decode(), file.mark, file.content) for file in files] for files in pieces]


def expected(shelf: Shelf, slots: list[Any]) -> list[list[tuple[str, bytes, bytes]]]:
    """The same of what the slow way lists: of a folder, the root of the tree that holds only it."""
    return [
        sorted(
            (path, mark, shelf.tree(content).root if isinstance(content, dict) else str(content).encode())
            for path, mark, content in files
        )
        for files in slots
    ]


@given(cases())
def test_enumerating_lists_every_datum_in_key_order(case: Case) -> None:
    node, sides, _, order = case
    shelf = Shelf()
    side = bound(shelf, node, sides, order)
    assert side.order == order
    slow = slow_listing(node, sides, order)
    found = list(side.enumerate())
    assert [datum.key for datum in found] == sorted(slow)
    for datum in found:
        assert held(datum) == expected(shelf, slow[datum.key])
        assert side.get(datum.key) == datum
        assert side.get(datum.key + b"\0") is None
        assert side.get(datum.key + b"x\0y") is None
    assert side.count() == len(slow)


@given(cases())
def test_the_delta_is_the_difference_of_the_full_listings(case: Case) -> None:
    node, before, after, order = case
    shelf = Shelf()
    old, new = bound(shelf, node, before, order), bound(shelf, node, after, order)
    was, now = slow_listing(node, before, order), slow_listing(node, after, order)
    changes = list(old.delta(new))
    assert [change.key for change in changes] == sorted(k for k in was.keys() | now.keys() if was.get(k) != now.get(k))
    for key, left, came in changes:
        assert (left is not None, came is not None) == (key in was, key in now)
        assert left is None or held(left) == expected(shelf, was[key])
        assert came is None or held(came) == expected(shelf, now[key])
    assert old.grown(new, len(was)) == len(now)
    again = rebind(node, old.record(), new, open_tree=shelf.open, read=shelf.read)
    assert [change.key for change in again.delta(new)] == [change.key for change in changes]


@given(cases())
def test_equal_fingerprints_mean_equal_content(case: Case) -> None:
    node, before, after, order = case
    shelf = Shelf()
    old, new = bound(shelf, node, before, order), bound(shelf, node, after, order)
    was, now = slow_listing(node, before, order), slow_listing(node, after, order)
    prints = {(d.key, old.fingerprint(K, d)) for d in old.enumerate()}
    again = {(d.key, new.fingerprint(K, d)) for d in new.enumerate()}
    assert {key for key, _ in prints & again} == {key for key in was if was[key] == now.get(key, ...)}


@given(cases())
def test_a_key_says_what_a_datum_holds(case: Case) -> None:
    node, sides, _, order = case
    shelf = Shelf()
    groups = {name for name, slot in scope(node).slots.items() if slot.many}
    leaves = {entry.label: entry.leaf.name for entry in placed(node)}
    for datum in bound(shelf, node, sides, order).enumerate():
        parts = read_key(msgspec.to_builtins(node), order, datum.key)
        assert parts is not None
        told = sorted((leaves[part.label], part.text) for part in parts if part.label and not part.grouped)
        slots = zip(order, held(datum), strict=True)
        assert told == sorted((name, file[0]) for name, files in slots if name not in groups for file in files)
        assert read_key(msgspec.to_builtins(node), order, datum.key + b"\0") is None


# --- what a change costs ----------------------------------------------------------------------------------------------

SHOPS = 20_000


@pytest.fixture(scope="module")
def shops() -> tuple[Shelf, Tree, Tree]:
    """Shops, and five purchases of each."""
    shelf = Shelf(tree_target=1024)
    places = shelf.tree({f"s{at:05}.json": f"{at}" for at in range(SHOPS)})
    bought = {f"s{at % SHOPS:05}/{at // SHOPS}.csv": f"{at}" for at in range(5 * SHOPS)}
    return shelf, places, shelf.tree(bought)


def cost(shelf: Shelf, node: Input, old: dict[str, Tree], new: dict[str, Tree]) -> tuple[list[tuple[bytes, str]], int]:
    """Keys of the delta and what became of them, and the nodes that were read for it."""
    cold = shelf.cold()
    before, after = (
        bind(node, {name: Tree(cold.nodes, tree.root) for name, tree in trees.items()}, read=cold.read)
        for trees in (old, new)
    )
    found = []
    for key, left, came in before.delta(after):
        found.append((key, "changed" if left and came else "new" if came else "gone"))
    return found, cold.nodes.reads


NODES: dict[str, Input] = {
    "join": join(files("places", "/{shop}.json"), files("purchases", "/{shop}/{day}.csv")),
    "group": group(files("places", "/{shop}.json"), files("purchases", "/{shop}/*.csv")),
    "union": union(files("places", "/*"), files("purchases", "/*/*")),
    "group of a join": group(join(files("places", "/{shop}.json"), files("purchases", "/{shop}/*")), by="shop"),
}


@pytest.mark.parametrize("kind", ["join", "group", "union", "group of a join"])
def test_a_changed_file_reads_what_has_its_key(shops: tuple[Shelf, Tree, Tree], kind: str) -> None:
    shelf, places, purchases = shops
    changed = purchases.update([(b"s00777/3.csv", b"new"), (b"s01234/1.csv", None)])
    old = {"places": places, "purchases": purchases}
    found, reads = cost(shelf, NODES[kind], old, {**old, "purchases": changed})
    assert (
        found
        == {
            "join": [(b"s00777\0s00777.json\0s00777/3.csv", "changed"), (b"s01234\0s01234.json\0s01234/1.csv", "gone")],
            "group": [(b"s00777", "changed"), (b"s01234", "changed")],
            "union": [(b"01\0s00777/3.csv", "changed"), (b"01\0s01234/1.csv", "gone")],
            "group of a join": [(b"s00777", "changed"), (b"s01234", "changed")],
        }[kind]
    )
    # A root and two leaves of each of three trees; each tree has a hundred leaves or twenty.
    assert reads <= 14


def test_a_new_shop_reads_its_purchases_only(shops: tuple[Shelf, Tree, Tree]) -> None:
    shelf, places, purchases = shops
    without = places.update([(b"s00042.json", None)])
    old, new = {"places": without, "purchases": purchases}, {"places": places, "purchases": purchases}
    found, reads = cost(shelf, NODES["join"], old, new)
    assert found == [(b"s00042\0s00042.json\0s00042/%d.csv" % day, "new") for day in range(5)]
    assert reads <= 9


def test_a_template_of_one_capture_is_sought_as_well(shops: tuple[Shelf, Tree, Tree]) -> None:
    shelf, places, purchases = shops
    node = Join(
        inputs=(
            Files(repo="places", glob="/(*).json", join_on="shop $1"),
            Files(repo="purchases", glob="/(*)/(*).csv", join_on="shop ${1}"),
        )
    )
    changed = places.update([(b"s00042.json", b"new")])
    old, new = {"places": places, "purchases": purchases}, {"places": changed, "purchases": purchases}
    found, reads = cost(shelf, node, old, new)
    assert [key.split(b"\0")[0] for key, _ in found] == [b"shop s00042"] * 5
    assert reads <= 9


# --- what comes along -------------------------------------------------------------------------------------------------


def only(node: Input, **listings: Listing) -> Combination:
    (found,) = bound(Shelf(), node, listings).enumerate()
    return found


def captures(found: Combination) -> list[dict[str, str]]:
    return [{} if piece is None else piece.item.captures for piece in found.pieces]


def test_commands_are_told_what_was_joined_and_grouped() -> None:
    leaves = [Files(repo=repo, glob="/(*)-(*)", join_on="$1", group_by="$2/$9") for repo in "ab"]
    joined = only(Join(inputs=tuple(leaves)), a={"k-1": "x"}, b={"k-2": "y"})
    assert joined.key == b"k\0k-1\0k-2"
    assert captures(joined)[1] == {"1": "k", "2": "2", "PACH_DATUM_b_JOIN_ON": "k", "PACH_DATUM_b_GROUP_BY": "2/$9"}
    grouped = only(Group(inputs=tuple(leaves)), a={"k-1": "x", "l-1": "x"}, b={})
    assert grouped.key == b"1/$9"
    assert captures(grouped) == [{"PACH_DATUM_a_JOIN_ON": "l", "PACH_DATUM_a_GROUP_BY": "1/$9"}, {}]


def test_a_group_has_the_captures_of_its_key() -> None:
    found = only(group(files("r", "/{shop}/{day}"), by="shop"), r={"n/1": "x", "n/2": "y"})
    assert captures(found) == [{"shop": "n"}]
    assert found.pieces[0] is not None
    item = found.pieces[0].item
    assert (item.kind, item.path) == ("l", "n")
    assert [(member.path, member.kind, member.value) for member in item.members()] == [
        ("n/1", "f", b"x"),
        ("n/2", "f", b"y"),
    ]


def test_files_of_one_path_in_two_members_have_one_result_only_if_read_alike() -> None:
    prints = []
    for glob in ("/{n}.x", "/{m}.x"):
        shelf = Shelf()
        side = bound(
            shelf,
            union(files("a", "/{n}.x", name="i"), files("b", glob, name="i")),
            {"i": {"p.x": "1"}, "i/2": {"p.x": "1"}},
        )
        prints.append({side.fingerprint(K, datum) for datum in side.enumerate()})
    assert [len(found) for found in prints] == [1, 2]


def test_members_that_share_a_name_tell_their_commit() -> None:
    shelf = Shelf()
    node = union(files("a", "/*", name="i"), files("b", "/*", name="i"))
    trees = {"i": shelf.tree({"x": "1"}), "i/2": shelf.tree({"y": "2"})}
    side = bind(node, trees, read=shelf.read, commits={"i": "c1", "i/2": "c2"})
    assert [captures(datum) for datum in side.enumerate()] == [[{"i_COMMIT": "c1"}], [{"i_COMMIT": "c2"}]]


@pytest.mark.parametrize(
    ("text", "filled", "inverted"),
    [
        ("$1", "ab", {"1": "z"}),
        ("x${1}y", "xaby", {"1": "\0"}),
        ("$$1", "$1", None),
        ("$1-${n}", "ab-cd", None),
        ("$7", "$7", None),
        ("", "", None),
    ],
)
def test_templates(text: str, filled: str, inverted: dict[str, str] | None) -> None:
    template = Template.parse(text)
    assert template.fill({"1": "ab", "n": "cd"}) == filled
    assert template.invert("z", ("1", "n")) == inverted
