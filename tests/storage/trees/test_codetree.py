"""Code trees: paths, contents and the one bit of mode; naming one writes nothing."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from dmlpipe.storage.objects.node import OverlayNodes
from dmlpipe.storage.store import Store
from dmlpipe.storage.trees.codetree import ValuesOnly, read_code, write_code
from dmlpipe.storage.trees.prolly import Tree

_names = itertools.count()

FILES = st.dictionaries(
    st.text("abc/._", min_size=1, max_size=8).filter(lambda path: path.strip("/") == path and "//" not in path),
    st.tuples(st.binary(max_size=300), st.sampled_from([0o600, 0o644, 0o700, 0o755])),
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(FILES)
def test_what_is_written_is_read_and_naming_it_gives_the_same_id(files: dict[str, tuple[bytes, int]]) -> None:
    store = Store.init(f"memory://codetree-{next(_names)}")
    named = write_code(ValuesOnly(), Tree(OverlayNodes(store.nodes)), files)
    assert store.nodes.writes == 0
    writer = store.objects.writer()
    root = write_code(writer, store.tree(""), files)
    writer.flush()
    assert named == root
    found = {path: (data, mode) for path, data, mode in read_code(store.tree(root), store.objects)}
    assert found == {path: (data, 0o755 if mode & 0o111 else 0o644) for path, (data, mode) in files.items()}


def test_a_large_file_is_named_as_it_is_stored() -> None:
    store = Store.init(f"memory://codetree-{next(_names)}")
    files = {"big.bin": (bytes(17 << 20), 0o644)}
    named = write_code(ValuesOnly(), Tree(OverlayNodes(store.nodes)), files)
    assert named == write_code(store.objects.writer(), store.tree(""), files)
