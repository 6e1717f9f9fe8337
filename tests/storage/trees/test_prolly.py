from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.digest import Digest, digest
from dmlpipe.storage.errors import CorruptError, FormatError, InvalidInputError
from dmlpipe.storage.objects.node import NodeStore, OverlayNodes
from dmlpipe.storage.testing import CountingBackend
from dmlpipe.storage.trees import cuts
from dmlpipe.storage.trees.prolly import Tree, build, empty
from dmlpipe.storage.trees.tree_node import EMPTY, MAX_KEY_BYTES

_numbers = itertools.count()


def new_nodes(target: int = 4) -> NodeStore:
    return NodeStore(MemoryBackend(f"prolly-{next(_numbers)}"), tree_target=target)


# Few letters and short keys, so that edits meet what is there and folders have several files.
keys = st.text("ab/\x00é", min_size=0, max_size=5).map(str.encode) | st.binary(max_size=3)
values = st.binary(max_size=4)
contents = st.dictionaries(keys, values, max_size=120)
edits = st.dictionaries(keys, st.none() | values, max_size=60)


def numbered(count: int, step: int = 1) -> dict[bytes, bytes]:
    return {b"%05d" % number: b"v%d" % number for number in range(0, count, step)}


def grow(nodes: NodeStore, content: dict[bytes, bytes]) -> Tree:
    return build(nodes, sorted(content.items()))


# --- shape ---


@given(contents, st.lists(edits, max_size=4), st.sampled_from([2, 3, 4, 8]))
def test_equal_content_has_an_equal_root_whatever_the_history(
    start: dict[bytes, bytes], history: list[dict[bytes, bytes | None]], target: int
) -> None:
    nodes = new_nodes(target)
    model = dict(start)
    tree = grow(nodes, model)
    for step in history:
        tree = tree.update(sorted(step.items()))
        for key, value in step.items():
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
        assert tree.root == grow(new_nodes(target), model).root
        assert dict(tree.scan()) == model


@pytest.mark.parametrize("seed", range(3))
def test_long_histories_at_full_size_are_canonical(seed: int) -> None:
    rng = random.Random(seed)
    nodes = new_nodes(64)
    model = numbered(8000)
    tree = grow(nodes, model)
    for _ in range(12):
        first = rng.randrange(8000)
        chosen = rng.sample(range(9000), 5) if rng.random() < 0.6 else range(first, first + 600)
        step = {b"%05d" % n: None if rng.random() < 0.5 else b"%d" % rng.randrange(9) for n in chosen}
        tree = tree.update(sorted(step.items()))
        model.update({key: value for key, value in step.items() if value is not None})
        model = {key: value for key, value in model.items() if key not in step or step[key] is not None}
    assert tree.root == grow(nodes, model).root
    assert len(tree) == len(model)


def test_the_root_of_no_entries_is_a_constant_that_needs_no_node() -> None:
    tree = Tree(new_nodes(), EMPTY)
    assert digest(msgspec.msgpack.encode([1, 0, [], []])) == EMPTY
    assert list(tree.scan()) == []
    assert list(tree.list_dir()) == []
    assert (len(tree), tree.get(b"a"), tree.first(), bool(tree), tree.is_empty()) == (0, None, None, False, True)
    assert tree.get_many([b"a", b"b"]) == [None, None]
    assert build(tree.nodes, []).root == empty(tree.nodes).root == EMPTY
    assert list(tree.walk_nodes()) == []


@given(contents)
def test_removing_everything_leaves_the_empty_tree(content: dict[bytes, bytes]) -> None:
    tree = grow(new_nodes(), content)
    assert tree.update((key, None) for key in sorted(content)).root == EMPTY


def test_the_format_of_a_node_is_fixed() -> None:
    # docs/format.md: a change here is a new format.
    nodes = new_nodes(1024)
    tree = grow(nodes, numbered(3000))
    assert tree.root.hex() == "ed169de5a6474f4640bec6a461b3be4b53b98823379ee8b853dce4fe4b8d17f5"
    version, level, node_keys, node_values = msgspec.msgpack.decode(nodes.get(tree.root))
    assert (version, level, len(node_keys)) == (1, 1, len(node_values))
    assert sum(count for _, count in node_values) == 3000
    leaf = msgspec.msgpack.decode(nodes.get(Digest(node_values[0][0])))
    assert leaf[:2] == [1, 0]
    assert leaf[2][-1] == node_keys[0]
    assert leaf[3][0] == b"v0"


def test_nodes_have_between_a_quarter_of_and_four_times_the_target() -> None:
    nodes = new_nodes(64)
    tree = grow(nodes, numbered(20_000))
    sizes = []
    for name in tree.walk_nodes():
        node = msgspec.msgpack.decode(nodes.get(name))
        if node[1] == 0:
            sizes.append(len(node[2]))
    assert all(16 <= size <= 256 for size in sizes[:-1])
    assert 32 <= sum(sizes) / len(sizes) <= 128


# --- reading ---


@given(contents, st.lists(keys, max_size=20))
def test_get_agrees_with_a_dict(content: dict[bytes, bytes], others: list[bytes]) -> None:
    tree = grow(new_nodes(), content)
    asked = sorted({*content, *others})
    expected = [content.get(key) for key in asked]
    assert [tree.get(key) for key in asked] == expected
    assert tree.get_many(asked) == expected
    assert list(tree.lacking(asked)) == [key for key in asked if key not in tree]
    assert [key in tree for key in asked] == [key in content for key in asked]
    assert tree.first() == (min(content.items()) if content else None)


@given(contents, keys, st.none() | keys)
def test_scan_gives_the_range_in_order(content: dict[bytes, bytes], start: bytes, stop: bytes | None) -> None:
    tree = grow(new_nodes(), content)
    expected = [(k, v) for k, v in sorted(content.items()) if start <= k and (stop is None or k < stop)]
    assert list(tree.scan(start, stop)) == expected


@given(contents, keys | st.sampled_from([b"\xff", b"a\xff\xff"]))
def test_prefix_gives_the_keys_that_begin_with_it(content: dict[bytes, bytes], prefix: bytes) -> None:
    content |= {b"\xff\xff": b"1", b"a\xff\xff\x01": b"2"}
    expected = [(k, v) for k, v in sorted(content.items()) if k.startswith(prefix)]
    assert list(grow(new_nodes(), content).prefix(prefix)) == expected


paths = st.lists(st.sampled_from([b"a", b"b", b"a-", b"ab", b"a0"]), min_size=1, max_size=4).map(b"/".join)


@given(st.dictionaries(paths, values, max_size=40), st.lists(st.sampled_from([b"a", b"ab"]), max_size=2))
def test_list_dir_gives_what_is_right_below(content: dict[bytes, bytes], parts: list[bytes]) -> None:
    tree = grow(new_nodes(), content)
    folder = b"".join(part + b"/" for part in parts)
    below = [key[len(folder) :] for key in content if key.startswith(folder)]
    expected: set[tuple[bytes, bool, bytes | None]]
    expected = {(key, False, content[folder + key]) for key in below if b"/" not in key}
    expected |= {(key.partition(b"/")[0], True, None) for key in below if b"/" in key}
    found = list(tree.list_dir(folder.rstrip(b"/")))
    assert len(found) == len(expected)
    assert set(found) == expected
    assert found == sorted(found, key=lambda item: item[0] + b"/" * item[1])
    for begins in (b"a", b"a-", b"b", b"\xff"):
        assert list(tree.list_dir(folder, begins)) == [item for item in found if item[0].startswith(begins)]


@given(st.dictionaries(paths, values, max_size=40), st.sampled_from([b"", b"a", b"a/", b"a/b", b"none"]))
def test_the_subtree_of_a_folder_is_the_tree_of_its_files(content: dict[bytes, bytes], prefix: bytes) -> None:
    nodes = new_nodes()
    tree = grow(nodes, content)
    writes = nodes.writes
    folder = prefix.rstrip(b"/") + b"/" if prefix else b""
    inside = {key[len(folder) :]: value for key, value in content.items() if key.startswith(folder)}
    sub = tree.subtree(prefix)
    assert dict(sub.scan()) == inside
    assert nodes.writes == writes
    assert sub.root == grow(new_nodes(), inside).root


# --- diff ---


@given(contents, edits)
def test_diff_gives_exactly_what_differs(before: dict[bytes, bytes], step: dict[bytes, bytes | None]) -> None:
    nodes = new_nodes()
    old = grow(nodes, before)
    new = old.update(sorted(step.items()))
    after = dict(new.scan())
    expected = [
        (key, before.get(key), after.get(key)) for key in sorted({*before, *after}) if before.get(key) != after.get(key)
    ]
    assert list(old.diff(new)) == expected
    assert list(new.diff(old)) == [(key, b, a) for key, a, b in expected]


@given(contents, contents)
def test_diff_of_unrelated_trees_in_two_stores(one: dict[bytes, bytes], two: dict[bytes, bytes]) -> None:
    expected = [(k, one.get(k), two.get(k)) for k in sorted({*one, *two}) if one.get(k) != two.get(k)]
    assert list(grow(new_nodes(), one).diff(grow(new_nodes(), two))) == expected


# --- cost ---


def cold(nodes: NodeStore) -> NodeStore:
    return NodeStore(nodes.backend, tree_target=nodes.tree_target)


def test_a_small_edit_costs_its_path_and_a_diff_what_differs() -> None:
    nodes = new_nodes(64)
    tree = grow(nodes, numbered(50_000))
    reader = cold(nodes)
    edited = Tree(reader, tree.root).update([(b"%05d" % n, b"new") for n in (7, 25_000, 49_999)])
    assert reader.reads <= 1 + 3 * 3
    assert reader.writes <= 1 + 3 * 3
    reader = cold(nodes)
    assert len(list(Tree(reader, tree.root).diff(Tree(reader, edited.root)))) == 3
    assert reader.reads <= 2 * (1 + 3 * 3)


def test_other_values_move_no_end_of_a_node_and_ask_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = new_nodes(64)
    content = numbered(5_000)
    tree = grow(nodes, content)
    news = dict.fromkeys(list(content)[::7], b"new")
    expected = grow(new_nodes(64), content | news)
    asked: list[bytes] = []
    real = cuts.mix

    def mix(key: bytes, level: int) -> int:
        asked.append(key)
        return real(key, level)

    monkeypatch.setattr(cuts, "mix", mix)
    assert tree.update(sorted(news.items())).root == expected.root
    assert asked == []
    assert tree.update([(b"00000", b"new"), (b"000005", b"more")]).root != tree.root
    assert asked, "here an entry more may move them"


def test_an_edit_that_changes_nothing_writes_nothing() -> None:
    nodes = new_nodes(16)
    tree = grow(nodes, numbered(2000))
    writes = nodes.writes
    assert tree.update([(b"00100", b"v100"), (b"none", None)]).root == tree.root
    assert tree.update([]).root == tree.root
    assert nodes.writes == writes


def test_equal_trees_are_compared_without_reading_more_than_roots() -> None:
    nodes = new_nodes(16)
    tree = grow(nodes, numbered(2000))
    reader = cold(nodes)
    assert list(Tree(reader, tree.root).diff(Tree(reader, tree.root))) == []
    assert reader.reads <= 1


def test_a_listing_skips_what_is_inside_folders() -> None:
    nodes = new_nodes(16)
    content = {b"d%d/%05d" % (folder, number): b"" for folder in range(4) for number in range(4000)}
    tree = grow(nodes, content)
    reader = cold(nodes)
    assert len(list(Tree(reader, tree.root).list_dir())) == 4
    assert reader.reads < 40


def test_reading_many_keys_fetches_level_by_level() -> None:
    nodes = new_nodes(16)
    tree = grow(nodes, numbered(4000))
    counting = CountingBackend(nodes.backend)
    reader = NodeStore(counting, tree_target=16)
    wanted = [b"%05d" % number for number in range(0, 4000, 400)]
    assert all(Tree(reader, tree.root).get_many(wanted))
    assert counting.counts["get_many"] <= 4


def test_a_first_entry_costs_one_path() -> None:
    nodes = new_nodes(16)
    tree = grow(nodes, numbered(20_000))
    reader = cold(nodes)
    assert Tree(reader, tree.root).first() == (b"00000", b"v0")
    assert reader.reads <= 5


def test_walk_names_every_node_once_and_skips_known_ones() -> None:
    nodes = new_nodes(16)
    tree = grow(nodes, numbered(3000))
    edited = tree.update([(b"01000", b"new")])
    seen: set[Digest] = set()
    first = list(tree.walk_nodes(skip=seen))
    assert len(first) == len(set(first)) == nodes.writes - len(set(edited.walk_nodes()) - set(first))
    assert first[0] == tree.root
    more = list(edited.walk_nodes(skip=seen))
    assert set(more) == set(edited.walk_nodes()) - set(first)
    assert len(more) <= 6


# --- wrong use, damage ---


@pytest.mark.parametrize("items", [[(b"b", b""), (b"a", b"")], [(b"a", b""), (b"a", b"")]])
def test_unsorted_input_is_refused(items: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(InvalidInputError, match="must rise"):
        build(new_nodes(), items)
    with pytest.raises(InvalidInputError, match="must rise"):
        grow(new_nodes(), {b"x": b""}).update(items)


def test_a_key_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="too large"):
        build(new_nodes(), [(b"k" * (MAX_KEY_BYTES + 1), b"")])


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (msgspec.msgpack.encode([2, 0, [], []]), FormatError),
        (msgspec.msgpack.encode({"not": "a node"}), CorruptError),
        (b"\xc1", CorruptError),
    ],
)
def test_what_is_no_node_of_this_format_is_refused(raw: bytes, error: type[Exception]) -> None:
    nodes = new_nodes()
    with pytest.raises(error):
        Tree(nodes, nodes.put(raw)).get(b"a")


def test_trees_above_an_overlay_read_through_and_write_nothing() -> None:
    nodes = new_nodes(16)
    tree = grow(nodes, numbered(1000))
    writes = nodes.writes
    above = Tree(OverlayNodes(nodes), tree.root).update([(b"00500", b"new")])
    assert above.get(b"00500") == b"new"
    assert above.get(b"00501") == b"v501"
    assert nodes.writes == writes


class TreeMachine(RuleBasedStateMachine):
    """A tree with its history against dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes = new_nodes(3)
        self.tree = empty(self.nodes)
        self.model: dict[bytes, bytes] = {}
        self.older: list[tuple[Tree, dict[bytes, bytes]]] = []

    @rule(step=edits)
    def edit(self, step: dict[bytes, bytes | None]) -> None:
        self.older.append((self.tree, dict(self.model)))
        self.tree = self.tree.update(sorted(step.items()))
        for key, value in step.items():
            if value is None:
                self.model.pop(key, None)
            else:
                self.model[key] = value

    @rule(number=st.integers(0, 100))
    def go_back(self, number: int) -> None:
        if self.older:
            tree, model = self.older[number % len(self.older)]
            assert dict(tree.scan()) == model
            back = self.tree.update((key, new) for key, _, new in self.tree.diff(tree))
            assert back.root == tree.root
            self.tree, self.model = tree, dict(model)

    @rule()
    def reopen(self) -> None:
        self.nodes = cold(self.nodes)
        self.tree = Tree(self.nodes, self.tree.root)

    @invariant()
    def agrees(self) -> None:
        assert dict(self.tree.scan()) == self.model
        assert len(self.tree) == len(self.model)


TestTreeMachine: Callable[..., object] = TreeMachine.TestCase
