"""Which commits, files and datums a damaged object touches.

Trees share their nodes, so what is damaged below a node is found once, however many commits have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from ..digest import DIGEST_SIZE, Digest, from_hex
from ..errors import CorruptError, NotFoundError
from ..objects.bodies import read_job
from ..objects.content import Manifest
from ..objects.node import NodeStore
from ..objects.value import External, Pieces, Value, Whole, decode_value
from ..paths import show_path
from ..state import State
from ..trees.prolly import Tree
from ..trees.tree_node import EMPTY
from .open_commits import OpenPart
from .reach import Reached
from .report import Touch
from .roots import Root, roots
from .trees import VALUES, decode_tree_node


class _Hit(NamedTuple):
    """Something damaged below a tree node."""

    object: str
    key: bytes
    """The entry that needs it; of a damaged node, the last key below it."""
    files: int = 0
    """Of a damaged node: how many entries are below it; 0: one entry needs the object."""
    after: bytes = b""
    """Of a damaged node: the key before the first one below it."""
    value: bytes = b""
    """Of one entry: what stands there."""


class FileRef(NamedTuple):
    """A file of a commit, and the job that made the commit (empty: people did)."""

    commit: str
    """``repo@branch`` or ``repo@id``."""
    path: str
    job: str
    value: bytes
    """What the commit says of it, encoded: what `encode_value` makes of its content."""


@dataclass(slots=True)
class Touched:
    """What damaged objects touch."""

    touches: dict[str, tuple[Touch, ...]] = field(default_factory=dict)
    """By the object's key."""
    files: dict[str, list[FileRef]] = field(default_factory=dict)
    """The files of commits that a damaged object is, by its key: who made one can make it again. Of a path of a repo
    one, which a job made if any did."""


def find_touched(
    state: State, nodes: NodeStore, reached: Reached, bad_links: frozenset[str], parts: Iterable[OpenPart]
) -> Touched:
    """Follow everything once more, open commits last, for what it needs of what is damaged.

    Notes
    -----
    Memory: all that is touched.
    """
    return _Toucher(state, nodes, reached, bad_links).run(parts)


class _Toucher:
    def __init__(self, state: State, nodes: NodeStore, reached: Reached, bad_links: frozenset[str]) -> None:
        self._state = state
        self._nodes = nodes
        self._bad_nodes = reached.bad_nodes
        self._bad_blobs = reached.bad_blobs
        self._bad_keys = reached.bad_keys
        self._bad_links = bad_links
        self._memo: dict[tuple[str, Digest], tuple[_Hit, ...]] = {}
        # object -> (what, name without the commit) -> names with it, newest commit first
        self._found: dict[str, dict[tuple[str, str], dict[str, None]]] = {}
        self._files: dict[str, dict[tuple[str, str], FileRef]] = {}

    def run(self, parts: Iterable[OpenPart]) -> Touched:
        for root in roots(self._state, self):
            self._root(root)
        for part in parts:
            self._part(part)
        touches = {
            key: tuple(Touch(what, *_first_and_rest(names)) for (what, _), names in found.items())
            for key, found in self._found.items()
        }
        return Touched(touches, {key: list(files.values()) for key, files in self._files.items()})

    def get(self, name: Digest) -> bytes:
        """Return a node's bytes, for `roots`; what is damaged is as good as missing."""
        if name in self._bad_nodes:
            raise NotFoundError(f"node {name.hex()[:12]} is missing or damaged")
        return self._nodes.get(name)

    def _note(self, key: str, what: str, below: str, about: str) -> None:
        # Of datums, contexts and jobs each is a touch of its own; a commit's file is one, in all commits that have it.
        repo = about.partition("@")[0] if what in ("commit", "file", "files") and below else about
        commits = self._found.setdefault(key, {}).setdefault((what, repo + below), {})
        commits[about + below] = None

    def _root(self, root: Root) -> None:
        if root.node is not None and root.node in self._bad_nodes:
            self._note(self._bad_nodes[root.node], root.what, "", root.name)
        if root.unreadable is not None:
            self._note(self._bad_nodes[root.unreadable[0]], root.what, "", root.name)
        if root.blob is not None and root.blob in self._bad_blobs:
            self._note(self._bad_blobs[root.blob], root.what, "", root.name)
        if root.tree is None:
            return
        if root.tree in self._bad_nodes:
            self._note(self._bad_nodes[root.tree], root.what, "", root.name)
            return
        for hit in self._below(root.kind, root.tree):
            if root.what == "commit" and root.kind == "files":
                self._file(root, hit)
            elif root.kind == "memo" and not hit.files:
                self._note(hit.object, "datum", "", f"datum {_show_key(hit.key[:-DIGEST_SIZE])} of {root.name}")
            else:
                self._note(hit.object, root.what, "", root.name)

    def _part(self, part: OpenPart) -> None:
        for key in (part.key, *part.objects):
            if key in self._bad_keys:
                self._note(key, "open commit", "", part.name)
        for path, raw in part.files:
            for key in dict.fromkeys(self._needs(decode_value(raw))):
                self._note(key, "open commit", f":{show_path(path)}", part.name)

    def _file(self, root: Root, hit: _Hit) -> None:
        if hit.files:
            after = f" after {show_path(hit.after)}" if hit.after else ""
            below = f" ({hit.files:,} files{after} up to {show_path(hit.key)})"
            self._note(hit.object, "files", below, root.name)
            return
        path = show_path(hit.key)
        self._note(hit.object, "file", f":{path}", root.name)
        files = self._files.setdefault(hit.object, {})
        place = (root.name.partition("@")[0], path)
        if place not in files or (root.job and not files[place].job):
            files[place] = FileRef(root.name, path, root.job, hit.value)
        if root.job:
            datum = self._datum(root.job, hit.key)
            if datum:
                self._note(hit.object, "datum", "", datum)

    def _datum(self, name: str, path: bytes) -> str:
        """Name the datum that made a file; empty if the provenance itself cannot be read."""
        job = self._state.job(name)
        if job is None or not job.end.record:
            return ""
        try:
            record = read_job(self, job.end.record)
            raw = Tree(self._nodes, from_hex(record.p)).get(path) if record.p else None
        except (CorruptError, NotFoundError):
            return ""
        if raw is None:
            return ""
        key, origin = msgspec.msgpack.decode(raw, type=tuple[bytes, bytes])
        return f"datum {_show_key(key)} of job {origin.hex()}"

    def _below(self, kind: str, name: Digest) -> tuple[_Hit, ...]:
        """What is damaged below a sound tree node."""
        if name == EMPTY:
            return ()
        known = self._memo.get((kind, name))
        if known is None:
            try:
                level, keys, entries = decode_tree_node(name, self._nodes.get(name))
            except (CorruptError, NotFoundError):
                return ()
            hits: list[_Hit] = []
            before = b""
            for key, entry in zip(keys, entries, strict=True):
                if level:
                    child = Digest(entry[0])
                    if child in self._bad_nodes:
                        hits.append(_Hit(self._bad_nodes[child], key, int(entry[1]), before))
                    else:
                        hits.extend(self._below(kind, child))
                elif kind != "plain":
                    needed = (need for value in VALUES[kind](entry) for need in self._needs(value))
                    hits.extend(_Hit(need, key, value=bytes(entry)) for need in dict.fromkeys(needed))
                before = key
            known = self._memo[(kind, name)] = tuple(hits)
        return known

    def _needs(self, value: Value) -> Iterator[str]:
        """Yield the damaged objects that a file needs."""
        match value:
            case Whole():
                if value.hash in self._bad_blobs:
                    yield self._bad_blobs[Digest(value.hash)]
            case Pieces():
                name = Digest(value.manifest)
                if name in self._bad_nodes:
                    yield self._bad_nodes[name]
                    return
                for piece in msgspec.msgpack.decode(self._nodes.get(name), type=Manifest).pieces:
                    if piece.hash in self._bad_blobs:
                        yield self._bad_blobs[Digest(piece.hash)]
            case External():
                if value.url in self._bad_links:
                    yield value.url
            case _:
                pass


def _first_and_rest(names: dict[str, None]) -> tuple[str, tuple[str, ...]]:
    first, *others = names
    return first, tuple(others)


def _show_key(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace").replace("\0", " ") or "(the only one)"
