"""What one state of a store refers to and an older one does not: the objects that a copy at the older state lacks.

The older state's copy holds everything that the older state refers to. So subtrees that a new tree shares with the one
it followed are passed over without being read, and a walk costs what changed.

Records of jobs outlive what they describe: their trees may have been collected, which is no damage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from ..digest import Digest, digest, from_hex, short
from ..errors import CorruptError, NotFoundError
from ..objects.bodies import code_trees
from ..objects.compression import decompress
from ..objects.condemned import displaced, place_for
from ..objects.content import Manifest, object_key
from ..objects.index import BlobIndex, index_key
from ..objects.node import NodeStore, node_key
from ..objects.value import External, Inline, Pieces, Value, Whole
from ..records import Commit, CommitState, Context, JobRecord, JobState, SweepState, VersionState
from ..state import State
from ..store import Store
from ..trees.tree_node import EMPTY
from ..trees.tree_values import ValuesOf, code_values, file_values, no_values, success_values

_TOGETHER = 64
_Inner = tuple[int, int, list[bytes], list[Any]]
_tree_node = msgspec.msgpack.Decoder(_Inner)
_commit = msgspec.msgpack.Decoder(Commit)
_job = msgspec.msgpack.Decoder(JobRecord)
_manifest = msgspec.msgpack.Decoder(Manifest)


class Stored(NamedTuple):
    """A node as it is stored."""

    key: str
    body: bytes


Sink = Callable[[Sequence[Stored]], None]
"""Takes verified nodes, a batch at a time."""


@dataclass(slots=True)
class Needed:
    """What else is needed besides the nodes."""

    loose: dict[str, int] = field(default_factory=dict)
    """Key of a loose object to its size in bytes."""
    packs: list[str] = field(default_factory=list)
    """Packs and segments."""
    indexes: dict[str, bytes] = field(default_factory=dict)
    """Key of an index to its bytes, verified."""


def find_needed(source: Store, base: State, base_nodes: NodeStore, sink: Sink) -> Needed:
    """Walk what `source` refers to and `base` does not.

    Parameters
    ----------
    source
        Read at the state that it has.
    base
        State of the copy: the fold of a beginning of the same ledger.
    base_nodes
        The copy's nodes.
    sink
        Gets each node that is needed, verified.

    Returns
    -------
    Needed
        The other objects that are needed.

    Raises
    ------
    CorruptError
        An object of the source is damaged.
    NotFoundError
        One is missing.

    Notes
    -----
    Reads each needed node once, 64 together. Holds the names of all needed objects in memory.
    """
    return _Walk(source, base, base_nodes, sink).run()


def changed(new: State, old: State, prefix: str) -> Iterator[tuple[str, bytes, bytes | None]]:
    """Yield (key, value, old value or None) of what `new` has below `prefix` and `old` has not, or has otherwise."""
    theirs = old.scan(prefix.encode())
    there = next(theirs, None)
    for key, value in new.scan(prefix.encode()):
        while there is not None and there[0] < key:
            there = next(theirs, None)
        before = there[1] if there is not None and there[0] == key else None
        if before != value:
            yield key.decode(), value, before


@dataclass(slots=True)
class _Walk:
    source: Store
    base: State
    base_nodes: NodeStore
    sink: Sink
    walked: set[Digest] = field(default_factory=set)
    needed: Needed = field(default_factory=Needed)
    _packed: set[Digest] = field(default_factory=set)
    """Blobs that the new indexes name."""
    _before: dict[str, str] = field(default_factory=dict)

    def run(self) -> Needed:
        state = self.source.state
        self._containers(state)
        self._commits(state)
        for _, context in state.replaced_contexts():
            self._context(context)
        steps = {
            "ver/": self._versions,
            "ctx/": self._contexts,
            "job/": self._jobs,
            "sweep/": self._sweeps,
        }
        for prefix, step in steps.items():
            items = changed(state, self.base, prefix)
            while batch := list(islice(items, _TOGETHER)):
                step(batch)
        return self.needed

    # --- what the state's keys refer to ---------------------------------------------------------------------------

    def _commits(self, state: State) -> None:
        found: list[tuple[int, str, str]] = []
        for key, value, _ in changed(state, self.base, "commit/"):
            _, repo, commit = key.split("/")
            found.append((msgspec.msgpack.decode(value, type=CommitState).n, repo, commit))
        found.sort()  # parents first
        for first in range(0, len(found), _TOGETHER):
            repos = {commit: repo for _, repo, commit in found[first : first + _TOGETHER]}
            for name, raw in self._read([from_hex(commit) for commit in repos]):
                body = _decode(_commit, raw, name, "commit")
                before = self._tree_before(repos[name.hex()], body)
                self._before[name.hex()] = before
                self._walk(body.tree, file_values, before)
                self._walk(body.failed, no_values)

    def _tree_before(self, repo: str, body: Commit) -> str:
        """Tree of the nearest ancestor that the copy has; empty: it has none."""
        for parent in body.parents:
            there = self.base.commit(repo, parent)
            tree = there.tree if there is not None else self._before.get(parent, "")
            if tree:
                return tree
        return ""

    def _versions(self, batch: Sequence[tuple[str, bytes, bytes | None]]) -> None:
        self._specs(msgspec.msgpack.decode(value, type=VersionState).spec for _, value, _ in batch)

    def _specs(self, specs: Iterable[str]) -> None:
        for name, raw in self._read([from_hex(spec) for spec in specs if spec]):
            try:
                body = msgspec.msgpack.decode(raw, type=dict[str, Any])
            except msgspec.DecodeError as error:
                raise CorruptError(f"node {short(name)} is no pipeline spec: {error}") from error
            transform = body.get("transform")
            if isinstance(transform, dict):
                for tree in code_trees(transform):
                    self._walk(tree, code_values)
                pickled = str(transform.get("pickled") or "")
                if pickled and not self._is_packed(from_hex(pickled)):
                    self._loose(from_hex(pickled))

    def _contexts(self, batch: Sequence[tuple[str, bytes, bytes | None]]) -> None:
        for _, value, before in batch:
            old = msgspec.msgpack.decode(before, type=Context) if before is not None else None
            self._context(msgspec.msgpack.decode(value, type=Context), old)

    def _context(self, context: Context, old: Context | None = None) -> None:
        for root, values in (
            ("out", file_values),
            ("metadata", file_values),
            ("s", success_values),
            ("t", no_values),
            ("p", no_values),
            ("f", no_values),
        ):
            self._walk(getattr(context, root), values, getattr(old, root) if old is not None else "")

    def _jobs(self, batch: Sequence[tuple[str, bytes, bytes | None]]) -> None:
        jobs = [msgspec.msgpack.decode(value, type=JobState) for _, value, _ in batch]
        for job in jobs:
            self._walk(job.end.rows, no_values, optional=not self._keeps_results(job))
        records = {from_hex(job.end.record): job for job in jobs if job.end.record}
        for name, raw in self._read(records):
            record = _decode(_job, raw, name, "job record")
            gone = not self._keeps_results(records[name])
            self._walk(record.out, file_values, optional=gone)
            for root in (record.t, record.p):
                self._walk(root, no_values, optional=gone)
            self._specs([record.spec])
            self._walk(record.bundle, code_values)

    def _keeps_results(self, job: JobState) -> bool:
        return job.state == "done" and self.source.state.commit(job.pipeline, job.commit) is not None

    def _sweeps(self, batch: Sequence[tuple[str, bytes, bytes | None]]) -> None:
        sweeps = [msgspec.msgpack.decode(value, type=SweepState) for _, value, _ in batch]
        for _ in self._read([from_hex(sweep.list) for sweep in sweeps], optional=True):
            pass

    def _containers(self, state: State) -> None:
        held = set(self.base.indexes())
        new = [key for key in state.indexes() if key not in held]
        packs = dict.fromkeys(state.packs())
        for first in range(0, len(new), _TOGETHER):
            keys = new[first : first + _TOGETHER]
            bodies = self.source.backend.get_many([(key, None, None) for key in keys])
            for key, body in zip(keys, bodies, strict=True):
                if index_key(body) != key:
                    raise CorruptError(f"{key} is corrupt: its bytes hash to {index_key(body)}")
                index = BlobIndex(body, key)
                self.needed.indexes[key] = body
                self._packed.update(name for name, _ in index)
                # Where a record has too many packs to name, its index does.
                live = [pack for pack in index.containers if state.get(f"dead/{pack}".encode()) is None]
                packs |= dict.fromkeys(live)
        before = set(self.base.packs())
        self.needed.packs = [key for key in packs if key not in before]

    # --- trees and contents ---------------------------------------------------------------------------------------

    def _walk(self, root: str, values: ValuesOf, base: str = "", *, optional: bool = False) -> None:
        """Follow a tree level by level, past what the tree `base` of the copy has as well."""
        if not root or root == base or from_hex(root) in self.walked or from_hex(root) == EMPTY:
            return
        frontier = {from_hex(root)}
        known = _Known(self.base_nodes, from_hex(base) if base else EMPTY)
        while frontier:
            children: set[Digest] = set()
            level = 0
            known_values: set[bytes] | None = None
            for name, raw in self._read(frontier, optional=optional):
                _, level, _, entries = _decode(_tree_node, raw, name, "tree")
                if level:
                    children.update(Digest(entry[0]) for entry in entries)
                else:
                    if known_values is None:
                        known_values = known.leaf_values()
                    self._values(value for entry in entries if entry not in known_values for value in values(entry))
            frontier = known.without(children, level - 1) if children else set()

    def _values(self, values: Iterable[Value]) -> None:
        manifests = []
        for value in values:
            match value:
                case Whole(size, name):
                    if not self._is_packed(Digest(name)):
                        self._loose(Digest(name), size)
                case Pieces(_, manifest):
                    manifests.append(Digest(manifest))
                case Inline() | External():
                    pass
        for name, raw in self._read(manifests):
            for piece in _decode(_manifest, raw, name, "list of pieces").pieces:
                if not self._is_packed(Digest(piece.hash)):
                    self._loose(Digest(piece.hash), piece.size)

    def _is_packed(self, name: Digest) -> bool:
        return name in self._packed or self.source.locate(name) is not None

    def _loose(self, name: Digest, size: int = 0) -> None:
        self.needed.loose.setdefault(object_key(name), size)

    def _read(self, names: Iterable[Digest], *, optional: bool = False) -> Iterator[tuple[Digest, bytes]]:
        """Yield the nodes that were not read before, having given them to the sink."""
        new = [name for name in dict.fromkeys(names) if name not in self.walked and name != EMPTY]
        for first in range(0, len(new), _TOGETHER):
            batch = new[first : first + _TOGETHER]
            self.walked.update(batch)
            found = list(self._fetch(batch, optional=optional))
            raws = [(name, _verified(name, stored)) for name, stored in found]
            self.sink([stored for _, stored in found])
            yield from raws

    def _fetch(self, names: Sequence[Digest], *, optional: bool) -> Iterator[tuple[Digest, Stored]]:
        backend, condemned = self.source.backend, self.source.nodes.condemned
        keys = [place_for(backend, condemned, node_key(name)) for name in names]
        try:
            bodies = backend.get_many([(key, None, None) for key in keys])
        except NotFoundError:
            for name in names:
                found = fetch_displaced(self.source, node_key(name))
                if found is not None:
                    yield name, found
                elif not optional:
                    raise
            return
        for name, key, body in zip(names, keys, bodies, strict=True):
            yield name, Stored(key, body)


class _Known:
    """The nodes of a tree that the copy has, a level at a time, without those already met."""

    def __init__(self, nodes: NodeStore, root: Digest) -> None:
        self._nodes = nodes
        self._names = {root} - {EMPTY}
        self._level = self._load()[0][1] if self._names else -1

    def _load(self) -> list[_Inner]:
        names = sorted(self._names)
        raws = self._nodes.get_many(names)
        return [_decode(_tree_node, raw, name, "tree") for name, raw in zip(names, raws, strict=True)]

    def leaf_values(self) -> set[bytes]:
        """Return the entries of the leaves that are left; none if the leaves are not reached yet."""
        if self._level != 0 or not self._names:
            return set()
        return {entry for node in self._load() for entry in node[3]}

    def without(self, names: set[Digest], level: int) -> set[Digest]:
        """Return `names`, which are of `level`, without those of the tree."""
        while self._names and self._level > level:
            self._names = {Digest(entry[0]) for node in self._load() for entry in node[3]}
            self._level -= 1
        if self._level != level:
            return names
        shared = names & self._names
        self._names -= shared
        return names - shared


def fetch_displaced(source: Store, key: str) -> Stored | None:
    """Return the object whose plain key is `key`, wherever it is now; None if it is gone."""
    for place in (key, *displaced(source.backend, key)):
        if not source.nodes.condemned.doomed(place):
            try:
                return Stored(place, source.backend.get(place))
            except NotFoundError:
                continue
    return None


def _verified(name: Digest, stored: Stored) -> bytes:
    raw = decompress(stored.body, f"node {short(name)}")
    if digest(raw) != name:
        raise CorruptError(f"{stored.key} is corrupt: its {len(raw)} bytes hash to {short(digest(raw))}")
    return raw


def _decode(decoder: msgspec.msgpack.Decoder[Any], raw: bytes, name: Digest, what: str) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as error:
        raise CorruptError(f"node {short(name)} is no {what}: {error}") from error
