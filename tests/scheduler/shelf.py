"""Trees, bindings and a full-listing oracle, shared by the tests of planning."""

from __future__ import annotations

import hashlib
import itertools
import json
import uuid
from collections.abc import Mapping, Sequence

import msgspec
from hypothesis import strategies as st

from dmlpipe.scheduler.inputs.expression import Cross, Files, Input, Values, canonical_json
from dmlpipe.scheduler.inputs.walk import leaves
from dmlpipe.scheduler.pipelines.spec import PipelineSpec
from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.digest import from_hex
from dmlpipe.storage.glob import compile_glob
from dmlpipe.storage.objects.node import NodeStore
from dmlpipe.storage.records import InputBinding
from dmlpipe.storage.trees.prolly import Tree, build
from dmlpipe.storage.trees.tree_node import EMPTY
from dmlpipe.worker.job import CommandTransform

Listing = Mapping[str, str]
"""Path to content."""


class Shelf:
    """A node store in memory."""

    def __init__(self, *, tree_target: int = 4) -> None:
        self.backend = MemoryBackend(uuid.uuid4().hex)
        self.nodes = NodeStore(self.backend, tree_target=tree_target)

    def tree(self, listing: Listing) -> Tree:
        return build(self.nodes, sorted((path.encode(), value.encode()) for path, value in listing.items()))

    def raw(self, entries: Mapping[bytes, bytes]) -> str:
        tree = build(self.nodes, sorted(entries.items()))
        return "" if tree.is_empty() else tree.root.hex()

    def open(self, root: str) -> Tree:
        return Tree(self.nodes, from_hex(root) if root else EMPTY)

    def cold(self) -> Shelf:
        """The same nodes with nothing read yet."""
        other = Shelf.__new__(Shelf)
        other.backend = self.backend
        other.nodes = NodeStore(self.backend, tree_target=self.nodes.tree_target)
        return other

    def read(self, value: bytes) -> bytes:
        return value


def binding(name: str, tree: Tree | None) -> InputBinding:
    """A commit of a repo that is named as the input."""
    root = "" if tree is None else tree.root.hex()
    commit = "" if tree is None else hashlib.sha256(root.encode()).hexdigest()
    return InputBinding(name=name, repo=name, branch="master", commit=commit, tree=root)


def pipeline(node: Input, **changes: object) -> PipelineSpec:
    """A version of a pipeline that reads `node`."""
    given: dict[str, object] = {"name": "p", "transform": CommandTransform(argv=("true",)), "code_id": "c0de"}
    return PipelineSpec(input=node, **{**given, **changes})  # type: ignore[arg-type]


def full_listing(
    node: Input, listings: Mapping[str, Listing | None], order: Sequence[str]
) -> dict[bytes, list[object]]:
    """Every datum and what it holds, the slow way: all files and all folders against each glob, then the product."""
    sides: dict[str, dict[str, object]] = {}
    for leaf in leaves(node):
        if isinstance(leaf, Values):
            sides[leaf.name] = {canonical_json(value): "" for value in leaf.values}
            continue
        assert isinstance(leaf, Files)
        listing = listings[leaf.name]
        sides[leaf.name] = {} if listing is None else matches(listing, leaf)
        if leaf.glob == "/" and not sides[leaf.name]:
            return {}
    combos = itertools.product(*(sides[name].items() for name in order))
    return {"\0".join(key for key, _ in combo).encode(): [value for _, value in combo] for combo in combos}


def matches(listing: Listing, leaf: Files) -> dict[str, object]:
    """What a glob matches, the slow way: path (of a folder, with a slash behind) to content, if that counts."""
    if leaf.reference:
        return dict.fromkeys(matches(listing, msgspec.structs.replace(leaf, reference=False)), "")
    if leaf.glob == "/":
        return {"": dict(listing)}
    glob = compile_glob(leaf.glob)
    found: dict[str, object] = {path: value for path, value in listing.items() if glob.match(path) is not None}
    if "**" not in leaf.glob or leaf.folders:
        parents = {path[:at] for path in listing for at, char in enumerate(path) if char == "/"}
        for folder in parents:
            if glob.match(folder) is not None:
                inside = {path[len(folder) + 1 :]: v for path, v in listing.items() if path.startswith(folder + "/")}
                found[folder + "/"] = inside
    return found


# --- strategies -------------------------------------------------------------------------------------------------

_PARTS = ("a", "b", "a.x", "a-", "b0", "é")
_GLOBS = (
    "/*",
    "/**",
    "/*/*",
    "/a",
    "/a/*",
    "/{n}.x",
    "/{a,b}/*",
    "/**/*.x",
    "/a*",
    "/*/a",
    "/[ab]",
    "/(*)/(*)",
    "/a?(/*)",
)


@st.composite
def listings(draw: st.DrawFn) -> dict[str, str]:
    """Files, none of which stands where another has a folder."""
    paths = draw(st.lists(st.lists(st.sampled_from(_PARTS), min_size=1, max_size=3).map("/".join), max_size=8))
    files = {path: draw(st.sampled_from("xyz")) for path in paths}
    return {path: v for path, v in files.items() if not any(other.startswith(path + "/") for other in files)}


@st.composite
def edited(draw: st.DrawFn, before: dict[str, str]) -> dict[str, str]:
    """A listing that differs in a few files."""
    after = dict(before)
    for path in draw(st.lists(st.sampled_from(sorted(before)), max_size=2)) if before else []:
        if draw(st.booleans()):
            after.pop(path, None)
        else:
            after[path] = draw(st.sampled_from("xyz"))
    after |= draw(listings()) if draw(st.booleans()) else {}
    return {path: v for path, v in after.items() if not any(other.startswith(path + "/") for other in after)}


def values_lists() -> st.SearchStrategy[tuple[object, ...]]:
    """Values of a grid."""
    plain = st.sampled_from([0, 1, 1.5, 10, "a", "a b", None, True])
    return st.lists(plain, min_size=1, max_size=3, unique_by=json.dumps).map(tuple)


@st.composite
def expressions(draw: st.DrawFn) -> Input:
    """Crosses, nested or not, of files and values."""
    count = draw(st.integers(1, 3))
    nodes: list[Input] = []
    for at in range(count):
        kind = draw(st.sampled_from(["files", "files", "constant", "values"]))
        name = f"i{at}"
        if kind == "values":
            nodes.append(Values(name=name, values=draw(values_lists())))
        else:
            glob = "/" if kind == "constant" else draw(st.sampled_from(_GLOBS))
            folders, reference, lazy = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
            nodes.append(Files(repo=name, glob=glob, folders=folders, reference=reference, lazy=lazy))
    if count == 1 and draw(st.booleans()):
        return nodes[0]
    if count == 3 and draw(st.booleans()):
        return Cross(inputs=(nodes[0], Cross(inputs=tuple(nodes[1:]))))
    return Cross(inputs=tuple(nodes))
