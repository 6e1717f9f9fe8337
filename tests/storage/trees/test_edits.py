"""Edits on top of a tree look like the tree that they make."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.errors import InvalidInputError
from dmlpipe.storage.objects.node import NodeStore
from dmlpipe.storage.objects.value import Inline, encode_value
from dmlpipe.storage.trees.edits import Edits
from dmlpipe.storage.trees.folders import after_prefix, list_folder
from dmlpipe.storage.trees.operations import ListedFiles
from dmlpipe.storage.trees.prolly import build

_numbers = itertools.count()

PARTS = st.sampled_from([b"a", b"b", b"b.txt", b"c0", b"\xc3\xa9"])
PATHS = st.lists(PARTS, min_size=1, max_size=3).map(b"/".join)


@given(
    base=st.dictionaries(PATHS, st.just(b"old"), max_size=20),
    edits=st.lists(st.tuples(PATHS, st.sampled_from([b"new", None]), st.booleans()), max_size=40),
    folder=st.one_of(st.just(b""), PATHS),
    starting=st.sampled_from([b"", b"b", b"c", b"x"]),
)
def test_edits_are_seen_as_made(
    base: dict[bytes, bytes], edits: list[tuple[bytes, bytes | None, bool]], folder: bytes, starting: bytes
) -> None:
    nodes = NodeStore(MemoryBackend(f"edits-{next(_numbers)}"), tree_target=4)
    mine, model = Edits(build(nodes, sorted(base.items()))), dict(base)
    for path, value, look in edits:
        if value is not None:
            mine.put(path, value)
            model[path] = value
        else:
            mine.delete(path)
            model = {key: kept for key, kept in model.items() if key != path and not key.startswith(path + b"/")}
        if look:
            assert list(mine.scan()) == sorted(model.items())
    below = folder + b"/" if folder else b""
    assert list(mine.entries(below)) == sorted(item for item in model.items() if item[0].startswith(below))
    assert mine.is_folder(folder) == any(key.startswith(below) for key in model)
    found = list(list_folder(mine.scan, folder, starting))
    inside = [(key[len(below) :], value) for key, value in sorted(model.items()) if key.startswith(below)]
    want = {(name.partition(b"/")[0], None if b"/" in name else value) for name, value in inside}
    assert len(found) == len(set(found))
    assert set(found) == {item for item in want if item[0].startswith(starting)}


@given(
    content=st.dictionaries(PATHS, st.binary(max_size=9), min_size=1, max_size=30),
    more=st.dictionaries(PATHS, st.just(b"more"), max_size=2),
    base=st.dictionaries(PATHS, st.just(b"base"), max_size=2),
    begun=st.booleans(),
)
def test_a_first_put_of_many_makes_what_single_ones_make(
    content: dict[bytes, bytes], more: dict[bytes, bytes], base: dict[bytes, bytes], begun: bool
) -> None:
    def encoded(plain: dict[bytes, bytes]) -> dict[bytes, bytes]:
        return {path: encode_value(Inline(data)) for path, data in plain.items()}

    nodes = NodeStore(MemoryBackend(f"edits-{next(_numbers)}"), tree_target=4)
    tree = build(nodes, sorted(encoded(base).items()))
    many, single = (Edits.of_changes(tree, encoded(more)) if begun else Edits(tree) for _ in range(2))
    values = encoded(content)
    paths = sorted(values)
    if paths:
        files = ListedFiles(paths, [values[path] for path in paths], None, sum(map(len, content.values())))
        many.put_many(files)
    for path in paths:
        single.put(path, values[path])
    if not begun:
        for path, value in encoded(more).items():
            many.put(path, value)
            single.put(path, value)
    try:
        expected = single.finish()
    except InvalidInputError:
        with pytest.raises(InvalidInputError, match="both a file and a folder"):
            many.finish()
        return
    assert many.finish() == expected
    assert many.size_change() == single.size_change()


def test_a_listing_passes_over_the_insides_of_folders() -> None:
    nodes = NodeStore(MemoryBackend(f"edits-{next(_numbers)}"), tree_target=16)
    tree = build(nodes, ((b"f%d/%04d" % (n // 2000, n % 2000), b"v") for n in range(8000)))
    cold = NodeStore(nodes.backend, tree_target=16)
    tree.nodes = cold
    assert [name for name, _ in list_folder(Edits(tree).scan, b"")] == [b"f0", b"f1", b"f2", b"f3"]
    assert cold.reads <= 25


@given(prefix=st.binary(max_size=4), key=st.binary(max_size=6))
def test_what_comes_after_a_prefix(prefix: bytes, key: bytes) -> None:
    stop = after_prefix(prefix)
    assert key.startswith(prefix) == (key >= prefix and (stop is None or key < stop))
