"""That everything the ledger refers to is there: follows it, and names what is missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from ..backend import Backend
from ..digest import Digest
from ..errors import BackendError, ConflictError, CorruptError, NotFoundError
from ..objects.content import Manifest, object_key
from ..objects.external import check_external
from ..objects.node import NodeStore, node_key
from ..objects.value import External, Inline, Pieces, Value, Whole, decode_value
from ..state import State
from ..trees.tree_node import EMPTY
from .contents import Contents
from .open_commits import OpenPart
from .report import Findings
from .roots import Root, roots
from .trees import VALUES, decode_tree_node


@dataclass(slots=True)
class Reached:
    """What following found."""

    keys: set[str] = field(default_factory=set)
    """Keys of the objects that something refers to."""
    links: set[External] = field(default_factory=set)
    commits: int = 0
    bad_nodes: dict[Digest, str] = field(default_factory=dict)
    """Node that is referred to and cannot be read, to the key that the problem is noted under."""
    bad_blobs: dict[Digest, str] = field(default_factory=dict)
    """The same of blobs."""
    bad_keys: set[str] = field(default_factory=set)
    """Other objects that an open commit needs and that cannot be read."""

    @property
    def broken(self) -> bool:
        """Whether something that is referred to cannot be read."""
        return bool(self.bad_nodes or self.bad_blobs or self.bad_keys)


class Follower:
    """Follows what a state refers to; what was followed before is passed over.

    Parameters
    ----------
    contents
        What there is, read already.
    look_at_links
        Ask where linked files are whether they are still what was put. One request each.
    """

    def __init__(
        self, backend: Backend, nodes: NodeStore, contents: Contents, findings: Findings, *, look_at_links: bool = False
    ) -> None:
        self._backend = backend
        self._nodes = nodes
        self._contents = contents
        self._findings = findings
        self._look_at_links = look_at_links
        self._walked: set[tuple[str, Digest]] = set()
        self.reached = Reached()

    def follow(self, state: State) -> Reached:
        """Follow everything."""
        for root in roots(state, _Present(self)):
            self._root(root)
        self.reached.keys.update(state.packs())
        self.reached.keys.update(state.indexes())
        return self.reached

    def follow_open(self, parts: Iterable[OpenPart]) -> None:
        """Follow what open commits need."""
        for part in parts:
            for key in (part.key, *part.objects):
                self._key(key)
            for _, value in part.files:
                self._value(decode_value(value))

    def _key(self, key: str) -> None:
        """Note an object that is named by its key, in whatever place its content stands."""
        listed = self._contents.listed[key.partition("/")[0]]
        places = self._contents.places.get(key, [key] if key in listed else [])
        self.reached.keys.update(places or [key])
        if any(place not in self._findings for place in places):
            return
        if not places:
            self._findings.bad("missing", key, "it does not exist")
        self.reached.bad_keys.add(places[0] if places else key)

    def follow_checkpoints(self, trees: Iterable[Digest]) -> None:
        """Follow the trees of checkpoints: derived, so that what is missing there harms nobody."""
        for root in trees:
            self._walk(root, "plain", derived=True)

    def _root(self, root: Root) -> None:
        if root.what == "commit" and root.node is not None:
            self.reached.commits += 1
            self._findings.progress("commits", self.reached.commits)
        if root.node is not None:
            self.present(root.node)
        if root.tree is not None:
            self._walk(root.tree, root.kind)
        if root.blob is not None:
            self._blob(root.blob)
        if root.unreadable is not None:
            name, why = root.unreadable
            if name not in self.reached.bad_nodes:
                self._findings.bad("unreadable", node_key(name), why)
                self.reached.bad_nodes[name] = node_key(name)

    def _walk(self, root: Digest, kind: str, *, derived: bool = False) -> None:
        open_ = [root]
        values = VALUES[kind]
        while open_:
            name = open_.pop()
            if name == EMPTY or (kind, name) in self._walked:
                continue
            self._walked.add((kind, name))
            if not self.present(name, derived=derived):
                continue
            try:
                level, _, entries = decode_tree_node(name, self._nodes.get(name))
            except (CorruptError, NotFoundError) as error:
                self._findings.bad("unreadable", node_key(name), str(error))
                self.reached.bad_nodes[name] = node_key(name)
                continue
            if level:
                open_.extend(Digest(entry[0]) for entry in entries)
            elif kind != "plain":
                for raw in entries:
                    for value in values(raw):
                        self._value(value)

    def present(self, name: Digest, *, derived: bool = False) -> bool:
        """Whether a node is there and sound; notes it if it is not."""
        key = node_key(name)
        if name in self.reached.bad_nodes:
            return False
        there = self._contents.places.get(key, [])
        self.reached.keys.update(there or [key])
        if any(place not in self._findings for place in there):
            return True
        if there or key in self._findings:
            self.reached.bad_nodes[name] = there[0] if there else key
            return False
        if self._backend.size(key) is None:
            self._findings.bad("derived" if derived else "missing", key, "it does not exist")
            self.reached.bad_nodes[name] = key
            return False
        return True

    def _value(self, value: Value) -> None:
        match value:
            case Whole():
                self._blob(Digest(value.hash))
            case Pieces():
                name = Digest(value.manifest)
                if ("manifest", name) in self._walked:
                    return
                self._walked.add(("manifest", name))
                if self.present(name):
                    self._manifest(name)
            case External():
                self._link(value)
            case Inline():
                pass

    def _manifest(self, name: Digest) -> None:
        try:
            manifest = msgspec.msgpack.decode(self._nodes.get(name), type=Manifest)
        except (msgspec.DecodeError, CorruptError, NotFoundError) as error:
            self._findings.bad("unreadable", node_key(name), f"it is no list of pieces: {error}")
            self.reached.bad_nodes[name] = node_key(name)
            return
        for piece in manifest.pieces:
            self._blob(Digest(piece.hash))

    def _link(self, value: External) -> None:
        if self._look_at_links and value not in self.reached.links:
            try:
                check_external(value)
            except (ConflictError, NotFoundError, BackendError) as error:
                self._findings.bad("link", value.url, error.message)
            self._findings.progress("links", len(self.reached.links) + 1)
        self.reached.links.add(value)

    def _blob(self, name: Digest) -> None:
        key = object_key(name)
        location = self._contents.locations.get(name)
        if location is not None:
            self.reached.keys.add(location.key)
            return
        if name in self.reached.bad_blobs:
            return
        there = self._contents.places.get(key, [])
        self.reached.keys.update(there or [key])
        if any(place not in self._findings for place in there):
            return
        if there or key in self._findings:
            self.reached.bad_blobs[name] = there[0] if there else key
        else:
            self._findings.bad("missing", key, "the blob is neither a loose object nor in a sound pack")
            self.reached.bad_blobs[name] = key


class _Present:
    """Reads bodies that are there and sound; a damaged one is as good as missing here."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    def get(self, name: Digest) -> bytes:
        if not self._follower.present(name):
            raise NotFoundError(f"node {name.hex()[:12]} is missing or damaged")
        return self._follower._nodes.get(name)
