"""A million datums, ten changed files: nodes read and datums made go with the change. Counts, no seconds."""

from __future__ import annotations

import dataclasses

import pytest

from dmlpipe.scheduler.inputs.combine import cross, group, join, union
from dmlpipe.scheduler.inputs.expression import Input
from dmlpipe.scheduler.inputs.leaf import files, values
from dmlpipe.scheduler.planning.datums import Bound, Combination
from dmlpipe.scheduler.planning.plan import plan_job
from dmlpipe.scheduler.planning.plan_items import Drop, Run
from dmlpipe.storage.records import Context
from dmlpipe.storage.trees.prolly import Tree, build
from tests.scheduler.shelf import Shelf, binding, pipeline

FOLDERS = 1000
MILLION = 1_000_000
SALES = "/{shop}/{day}.csv"


@dataclasses.dataclass(frozen=True)
class Shops:
    """A thousand shops with a thousand files each, before and after ten of them changed, in ten shops."""

    shelf: Shelf
    places: Tree
    """A file for each shop."""
    old: Tree
    new: Tree


@pytest.fixture(scope="module")
def shops() -> Shops:
    shelf = Shelf(tree_target=1024)
    places = build(shelf.nodes, ((b"%03d.json" % at, b"p") for at in range(FOLDERS)))
    old = build(shelf.nodes, ((b"%03d/%03d.csv" % divmod(at, FOLDERS), b"x") for at in range(MILLION)))
    changed = [(b"%03d/500.csv" % at, b"new") for at in range(50, 450, 100)]
    added = [(b"%03d/500-b.csv" % at, b"new") for at in range(500, 800, 100)]
    removed = [(b"%03d/250.csv" % at, None) for at in range(800, 1000, 90)]
    return Shops(shelf, places, old, old.update(sorted([*changed, *added, *removed])))


@dataclasses.dataclass(frozen=True)
class Cost:
    """What planning took."""

    reads: int
    """Nodes; the trees have about a thousand for a million files."""
    made: int
    """Datums."""
    runs: int
    drops: int


def cost(shops: Shops, node: Input, monkeypatch: pytest.MonkeyPatch, *, total: int | None = MILLION) -> Cost:
    cold = shops.shelf.cold()
    made = 0
    real = Bound.datum

    def counted(self: Bound, context: bytes, found: Combination) -> object:
        nonlocal made
        made += 1
        return real(self, context, found)

    monkeypatch.setattr(Bound, "datum", counted)
    bindings = {"sales": binding("sales", shops.new), "places": binding("places", shops.places)}
    first = plan_job(pipeline(node), bindings | {"sales": binding("sales", shops.old)}, None, cold.open)
    inputs = {name: root for name, root in first.inputs.items() if root}
    # Of the tree of results only the number of keys is asked for: any with a million of them will do.
    context = Context(inputs=inputs, order=first.order, t=shops.old.root.hex())
    fresh = shops.shelf.cold()
    plan = plan_job(pipeline(node), bindings, context, fresh.open)
    items = list(plan.items())
    if total is not None:
        assert plan.total == total
    kinds = [type(item) for item in items]
    return Cost(fresh.nodes.reads, made, kinds.count(Run), kinds.count(Drop))


def test_files(shops: Shops, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cost(shops, files("sales", "/**"), monkeypatch)
    assert (found.runs, found.drops, found.made) == (7, 7, 7)
    assert found.reads <= 40


def test_files_by_their_captures(shops: Shops, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cost(shops, files("sales", SALES), monkeypatch)
    assert (found.runs, found.drops, found.made) == (7, 7, 7)
    assert found.reads <= 40


def test_folders_are_read_where_they_changed(shops: Shops, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cost(shops, files("sales", "/*"), monkeypatch, total=None)
    assert (found.runs, found.drops, found.made) == (10, 10, 10)
    # Ten folders of a thousand files, before and after: a leaf or two each, and the tree of each folder.
    assert found.reads <= 120


def test_a_cross_with_an_unchanged_side(shops: Shops, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cost(shops, cross(files("sales", "/**"), files("places", "/04?.json")), monkeypatch, total=None)
    assert (found.runs, found.drops, found.made) == (70, 70, 70)
    assert found.reads <= 45


def test_a_cross_with_a_whole_repo(shops: Shops, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cost(shops, cross(files("sales", "/**"), files("places")), monkeypatch)
    assert (found.runs, found.drops, found.made) == (7, 7, 7)
    assert found.reads <= 40


def test_a_cross_with_a_grid(shops: Shops, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cost(shops, cross(files("sales", "/**"), values(c=[1, 2, 3])), monkeypatch, total=None)
    assert (found.runs, found.drops, found.made) == (21, 21, 21)
    assert found.reads <= 40


def test_a_union(shops: Shops, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cost(shops, union(files("places", "/*"), files("sales", "/**")), monkeypatch)
    assert (found.runs, found.drops, found.made) == (7, 7, 7)
    assert found.reads <= 45


def test_a_join(shops: Shops, monkeypatch: pytest.MonkeyPatch) -> None:
    node = join(files("places", "/{shop}.json"), files("sales", SALES))
    found = cost(shops, node, monkeypatch)
    assert (found.runs, found.drops, found.made) == (7, 7, 7)
    # All of ten shops is looked at: what else has the key.
    assert found.reads <= 120


def test_a_group_by_one_key(shops: Shops, monkeypatch: pytest.MonkeyPatch) -> None:
    node = group(files("places", "/{shop}.json"), files("sales", SALES), by="shop")
    found = cost(shops, node, monkeypatch, total=None)
    assert (found.runs, found.drops, found.made) == (10, 10, 10)
    assert found.reads <= 120


def test_a_group_of_a_million_keys(shops: Shops, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cost(shops, group(files("sales", SALES), by=["shop", "day"]), monkeypatch)
    assert (found.runs, found.drops, found.made) == (7, 7, 7)
    assert found.reads <= 40
