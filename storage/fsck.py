"""Check a store: the ledger's chain, that everything it refers to is there, and that all bytes are what they are named.

Two passes. The first reads every object and compares it with its name. The second folds the ledger from its first
entry and follows everything that it refers to, so that each damaged or missing object comes with what it touches: the
heads of branches first, then older commits, then what the engine keeps of jobs.

Reads only. Checkpoints and indexes are derived: a bad one is reported as such and costs time, not data. Objects that
nothing refers to are counted; a crash leaves them, and they harm nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from .backend import Backend
from .digest import Digest, digest, from_hex
from .errors import BackendError, ConflictError, CorruptError, FormatError, NotFoundError
from .gc.mark import input_trees, keeps_results, keeps_rows
from .ledger import checkpoint as ckpt
from .ledger.heads import SeenHead
from .ledger.ledger import PREFIX, decode_entry, entry_key
from .objects.bodies import read_commit, read_job
from .objects.condemned import plain_key
from .objects.content import OBJECT_PREFIX, Manifest, object_key
from .objects.external import check_external
from .objects.index import INDEX_PREFIX, BlobIndex, index_key
from .objects.node import NODE_PREFIX, NodeStore, OverlayNodes, node_key, unpack_node
from .objects.pack import PACK_PREFIX, Location, read_footer, verify_pack
from .objects.segment import SEGMENT_PREFIX
from .objects.value import External, Inline, Pieces, Value, Whole, decode_value
from .paths import show_path
from .records import Commit
from .refs import show_commit
from .state import State
from .trees.codetree import code_value
from .trees.prolly import EMPTY, Tree

TOUCHES_SHOWN = 10

Progress = Callable[[str, int], None]
"""Called with what is being read and how many objects of it were."""


class Problem(NamedTuple):
    """Something that is not as it should be."""

    kind: str
    """`ledger`, `missing`, `damaged`, `unreadable`, `link` (a linked file is not what was put) or `derived` (can be
    made anew from the rest)."""
    object: str
    """Key of the object; of a link, its URL."""
    message: str
    touches: tuple[str, ...] = ()
    """What cannot be read because of it, the first ten; empty: nothing that the ledger refers to."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with stable keys."""
        return {"kind": self.kind, "object": self.object, "message": self.message, "touches": list(self.touches)}


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found."""

    problems: tuple[Problem, ...]
    entries: int
    """Ledger entries read."""
    commits: int
    objects: int
    """Objects read and compared with their names."""
    size_bytes: int
    """Bytes of these."""
    orphans: int
    """Objects that nothing refers to."""
    ignored: tuple[str, ...] = ()
    """Ledger entries that every reader ignores, with the reason."""
    links: int = 0
    """Linked files that something refers to, whether or not they were looked at."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with stable keys."""
        return {
            "ok": self.ok,
            "problems": [problem.to_dict() for problem in self.problems],
            "entries": self.entries,
            "commits": self.commits,
            "objects": self.objects,
            "size": self.size_bytes,
            "orphans": self.orphans,
            "ignored": list(self.ignored),
            "links": self.links,
        }


def fsck(
    backend: Backend, *, seen: SeenHead | None = None, links: bool = False, progress: Progress | None = None
) -> Report:
    """Check everything in a store.

    Parameters
    ----------
    backend
        Where the store is.
    seen
        The last ledger entry that this machine saw: the chain alone cannot tell whether its own end is genuine.
    links
        Look whether linked files are still what was put. One request each, to where they are.
    progress
        Hears how far the check is.

    Returns
    -------
    Report
        Complete: a damaged object does not end the check.

    Raises
    ------
    BackendError
        The medium failed.
    """
    return _Check(backend, seen, progress or _silent, links).run()


def _silent(what: str, count: int) -> None:
    del what, count


@dataclass(slots=True)
class _Check:
    backend: Backend
    seen: SeenHead | None
    progress: Progress
    look_at_links: bool
    found: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Key to (kind, message)."""
    touches: dict[str, list[str]] = field(default_factory=dict)
    nodes: NodeStore = field(init=False)
    locations: dict[Digest, Location] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)
    """Key of a node or loose object to the keys that hold its content: it, and what stands beside it."""
    reached: set[str] = field(default_factory=set)
    """Keys of the objects that something refers to."""
    walked: set[Digest] = field(default_factory=set)
    links: set[External] = field(default_factory=set)
    checkpoints: list[tuple[int, Digest]] = field(default_factory=list)
    """Number and root of the good ones."""
    commits: int = 0
    objects: int = 0
    size_bytes: int = 0
    ignored: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nodes = NodeStore(self.backend, cache_nodes=64)

    def run(self) -> Report:
        state = self._ledger()
        keys = {prefix: self._list(f"{prefix}/") for prefix in (NODE_PREFIX, OBJECT_PREFIX, PACK_PREFIX, INDEX_PREFIX)}
        for key in (*keys[NODE_PREFIX], *keys[OBJECT_PREFIX]):
            self.places.setdefault(plain_key(key), []).append(key)
        self._each("nodes", keys[NODE_PREFIX], self._node)
        self._each("objects", keys[OBJECT_PREFIX], self._object)
        segments = {key: 0 for key in state.packs() if key.startswith(f"{SEGMENT_PREFIX}/")}
        self._each("packs", keys[PACK_PREFIX], self._pack)
        self._each("segments", segments, self._pack)
        self._indexes(state, keys[INDEX_PREFIX])
        self._follow(state)
        problems = sorted(
            Problem(kind, key, message, tuple(self.touches.get(key, ()))) for key, (kind, message) in self.found.items()
        )
        orphans = sum(key not in self.reached for listed in keys.values() for key in listed)
        return Report(
            problems=tuple(problems),
            entries=state.n + 1,
            commits=self.commits,
            objects=self.objects,
            size_bytes=self.size_bytes,
            orphans=orphans,
            ignored=tuple(self.ignored),
            links=len(self.links),
        )

    def _bad(self, kind: str, key: str, message: str, touches: str = "") -> None:
        self.found.setdefault(key, (kind, message))
        if touches:
            known = self.touches.setdefault(key, [])
            if touches not in known and len(known) < TOUCHES_SHOWN:
                known.append(touches)

    # --- ledger ---------------------------------------------------------------------------------------------------

    def _ledger(self) -> State:
        """Fold the ledger from its first entry, checking the chain and the checkpoints on the way."""
        state = State()
        tree = Tree(OverlayNodes(self.nodes))
        last = -1
        for key, _ in self.backend.list(PREFIX):
            stem = key.rpartition("/")[2].removesuffix(".json")
            if stem.isdigit():
                last = max(last, int(stem))
        while state.n < last:
            n = state.n + 1
            try:
                data = self.backend.get(entry_key(n))
                entry = decode_entry(data, n)
                if entry.prev != state.chain:
                    self._broken(n, entry.prev, state.chain, digest(data).hex())
                    break
                self.ignored.extend(state.apply(entry, digest(data).hex()))
            except NotFoundError:
                self._bad("ledger", entry_key(n), f"entry {n} is missing; the ledger goes on to entry {last}")
                break
            except (CorruptError, FormatError) as error:
                self._bad("ledger", entry_key(n), str(error))
                break
            self.objects += 1
            self.size_bytes += len(data)
            self.progress("ledger", n + 1)
            if ckpt.is_due(n):
                tree = tree.update(state.overlay())
                state.rebase(ckpt.TreeBase(tree))
                self._checkpoint(n, state.chain, tree.root)
            if self.seen is not None and self.seen.n == n and self.seen.hash != state.chain:
                message = f"it is {state.chain[:12]}, and this machine has seen {self.seen.hash[:12]}"
                self._bad("ledger", entry_key(n), message)
        if self.seen is not None and self.seen.n > last:
            self._bad("ledger", entry_key(self.seen.n), f"this machine has seen it; the ledger ends at entry {last}")
        return state

    def _broken(self, n: int, prev: str, before: str, here: str) -> None:
        """Entry `n` does not follow the one before it: the entry after it knows which of the two is genuine."""
        try:
            genuine = decode_entry(self.backend.get(entry_key(n + 1)), n + 1).prev == here
        except (NotFoundError, CorruptError, FormatError):
            genuine = False
        if genuine and n > 0:
            message = f"its bytes hash to {before[:12]}, but entry {n} says {prev[:12]}"
            self._bad("ledger", entry_key(n - 1), message)
        else:
            self._bad("ledger", entry_key(n), f"it follows {prev[:12]}, but the entry before it is {before[:12]}")

    def _checkpoint(self, n: int, chain: str, root: Digest) -> None:
        key = ckpt.checkpoint_key(n)
        try:
            found = ckpt.decode_checkpoint(self.backend.get(key), n)
        except NotFoundError:
            return  # whoever appended the entry died before writing it
        if found is None:
            self._bad("derived", key, "the checkpoint is unreadable")
        elif (found.chain, found.state) != (chain, root.hex()):
            self._bad("derived", key, "the checkpoint is not what the ledger folds to")
        else:
            self.checkpoints.append((n, root))

    # --- objects against their names ------------------------------------------------------------------------------

    def _list(self, prefix: str) -> dict[str, int]:
        return dict(self.backend.list(prefix))

    def _each(self, what: str, keys: Iterable[str], check: Callable[[str], int]) -> None:
        for count, key in enumerate(keys, 1):
            try:
                self.size_bytes += check(key)
            except NotFoundError:
                self._bad("missing", key, "it does not exist")
            except (CorruptError, FormatError) as error:
                self._bad("damaged", key, str(error))
            self.objects += 1
            self.progress(what, count)

    def _node(self, key: str) -> int:
        name = _name_in(key, NODE_PREFIX)
        # Past the cache: what was read on the way to here must not hide what is stored.
        return len(unpack_node(name, self.backend.get(key)))

    def _object(self, key: str) -> int:
        data = self.backend.get(key)
        actual = digest(data)
        if actual != _name_in(key, OBJECT_PREFIX):
            raise CorruptError(f"its {len(data)} bytes hash to {actual.hex()[:12]}")
        return len(data)

    def _pack(self, key: str) -> int:
        data = self.backend.get(key)
        try:
            verify_pack(data, key)
        except CorruptError:
            self._sound_blobs(key)
            raise
        for name, location in read_footer(self.backend, key).locations(key):
            self.locations.setdefault(name, location)
        return len(data)

    def _sound_blobs(self, key: str) -> None:
        """Of a damaged pack, keep what can be read; the rest is missing."""
        try:
            footer = read_footer(self.backend, key)
        except (CorruptError, FormatError):
            return
        for name, location in footer.locations(key):
            raw = self.backend.get(key, location.offset, location.offset + location.stored)
            if location.codec or digest(raw) == name:
                self.locations.setdefault(name, location)

    def _indexes(self, state: State, stored: dict[str, int]) -> None:
        named = set(state.indexes())
        self.reached |= named
        for key in sorted(named | set(stored)):
            try:
                data = self.backend.get(key)
                if index_key(data) != key:
                    raise CorruptError(f"its {len(data)} bytes hash to {index_key(data)}")
                index = BlobIndex(data, key)
            except NotFoundError:
                self._bad("derived", key, "it does not exist")
                continue
            except (CorruptError, FormatError) as error:
                self._bad("derived", key, str(error))
                continue
            self.objects += 1
            self.size_bytes += len(data)
            if key in named:
                self._index(key, index)

    def _index(self, key: str, index: BlobIndex) -> None:
        for name, location in index:
            there = self.locations.get(name)
            if there is None and location.key not in self.found:
                self._bad("derived", key, f"it names blob {name.hex()[:12]} in {location.key}, which does not hold it")

    # --- what the ledger refers to --------------------------------------------------------------------------------

    def _follow(self, state: State) -> None:
        heads = [
            (repo, commit, f"{repo}@{branch}")
            for repo, _ in state.repos()
            for branch, commit in sorted(state.branches(repo).items())
        ]
        for repo, commit, shown in heads:
            self._commit(repo, commit, shown)
        done = {(repo, commit) for repo, commit, _ in heads}
        for key, _ in state.scan(b"commit/"):
            _, repo, commit = key.decode().split("/", 2)
            if (repo, commit) not in done:
                self._commit(repo, commit, show_commit(repo, commit))
        for name, context in state.contexts():
            about = f"context {name[:12]}"
            self._tree(context.out, about, _file_values)
            self._tree(context.s, about, _success_values)
            for root in (context.t, context.p, context.f, *input_trees(context)):
                self._tree(root, about, _no_values)
        for name, context in state.replaced_contexts():
            self._tree(context.out, f"context {name[:12]}", _file_values)
            self._tree(context.s, f"context {name[:12]}", _success_values)
        with_rows: set[str] = set()
        for name, job in state.jobs():
            origins = self._job(name, job.end.record, results=keeps_results(state, job))
            if keeps_rows(state, job):
                with_rows |= {name, *origins}
        for name, job in state.jobs():
            if name in with_rows:
                self._tree(job.end.rows, f"job {name}", _no_values)
        for name, _ in state.pipelines():
            for version, recorded in state.versions(name):
                self._spec(recorded.spec, f"pipeline {name} version {version}")
        for n, top in self.checkpoints:
            self._walk(top, f"checkpoint {n}", _no_values, kind="derived")
        self.reached.update(key for key in state.packs())

    def _commit(self, repo: str, commit: str, shown: str) -> None:
        self.commits += 1
        self.progress("commits", self.commits)
        body = self._body(commit, shown)
        if body is not None:
            self._tree(body.tree, shown, _file_values, paths=True)
            self._tree(body.failed, shown, _no_values)

    def _body(self, commit: str, shown: str) -> Commit | None:
        if not self._present(from_hex(commit), shown):
            return None
        try:
            return read_commit(self.nodes, commit)
        except CorruptError as error:
            self._bad("unreadable", node_key(from_hex(commit)), str(error), shown)
            return None

    def _job(self, name: str, record: str, *, results: bool) -> Iterable[str]:
        """Follow a job's record; return the jobs that computed what it published."""
        shown = f"job {name}"
        if not record or not self._present(from_hex(record), shown):
            return ()
        try:
            body = read_job(self.nodes, record)
        except CorruptError as error:
            self._bad("unreadable", node_key(from_hex(record)), str(error), shown)
            return ()
        if results:
            self._tree(body.out, shown, _file_values)
            for root in (body.t, body.p):
                self._tree(root, shown, _no_values)
        self._spec(body.spec, shown)
        self._tree(body.bundle, shown, _code_values)
        return body.origins

    def _spec(self, spec: str, shown: str) -> None:
        if not spec or not self._present(from_hex(spec), shown):
            return
        try:
            body = msgspec.msgpack.decode(self.nodes.get(from_hex(spec)), type=dict[str, Any])
        except msgspec.DecodeError as error:
            self._bad("unreadable", node_key(from_hex(spec)), f"it is no pipeline spec: {error}", shown)
            return
        transform = body.get("transform")
        if isinstance(transform, dict):
            self._tree(str(transform.get("bundle") or transform.get("code") or ""), shown, _code_values)
            pickled = str(transform.get("pickled") or "")
            if pickled:
                self._blob(from_hex(pickled), shown)

    def _tree(self, root: str, shown: str, values: ValuesOf, *, paths: bool = False) -> None:
        if root:
            self._walk(from_hex(root), shown, values, paths=paths)

    def _walk(self, root: Digest, shown: str, values: ValuesOf, *, paths: bool = False, kind: str = "missing") -> None:
        """Follow a tree's nodes and the content that its leaves name; what was followed before is passed over."""
        open_ = [root]
        while open_:
            name = open_.pop()
            if name == EMPTY or name in self.walked:
                continue
            if not self._present(name, shown, kind=kind):
                continue
            self.walked.add(name)
            _, level, keys, entries = msgspec.msgpack.decode(
                self.nodes.get(name), type=tuple[int, int, list[bytes], list[Any]]
            )
            if level:
                open_.extend(Digest(entry[0]) for entry in entries)
                continue
            for key, raw in zip(keys, entries, strict=True):
                for value in values(raw):
                    self._value(value, f"{shown}:{show_path(key)}" if paths else shown)

    def _present(self, name: Digest, shown: str, *, kind: str = "missing") -> bool:
        """Whether a node is there and sound; notes what it touches if it is not."""
        key = node_key(name)
        there = self.places.get(key, [])
        self.reached.update(there or [key])
        if any(place not in self.found for place in there):
            return True
        if there or key in self.found:
            self._bad("damaged", there[0] if there else key, "", shown)
            return False
        if self.backend.size(key) is None:
            self._bad(kind, key, "it does not exist", shown)
            return False
        return True

    def _value(self, value: Value, shown: str) -> None:
        match value:
            case Whole():
                self._blob(Digest(value.hash), shown)
            case Pieces():
                name = Digest(value.manifest)
                if self._present(name, shown):
                    manifest = msgspec.msgpack.decode(self.nodes.get(name), type=Manifest)
                    for piece in manifest.pieces:
                        self._blob(Digest(piece.hash), shown)
            case External():
                self._link(value, shown)
            case Inline():
                pass

    def _link(self, value: External, shown: str) -> None:
        if self.look_at_links and value not in self.links:
            try:
                check_external(value)
            except (ConflictError, NotFoundError, BackendError) as error:
                self._bad("link", value.url, error.message)
            self.progress("links", len(self.links) + 1)
        self.links.add(value)
        if value.url in self.found:
            self._bad("link", value.url, "", shown)

    def _blob(self, name: Digest, shown: str) -> None:
        key = object_key(name)
        if name in self.locations:
            self.reached.add(self.locations[name].key)
            return
        there = self.places.get(key, [])
        self.reached.update(there or [key])
        if any(place not in self.found for place in there):
            return
        if there or key in self.found:
            self._bad("damaged", there[0] if there else key, "", shown)
        else:
            self._bad("missing", key, "the blob is neither a loose object nor in a sound pack", shown)


ValuesOf = Callable[[bytes], Iterable[Value]]


def _file_values(raw: bytes) -> Iterator[Value]:
    yield decode_value(raw)


def _code_values(raw: bytes) -> Iterator[Value]:
    yield decode_value(code_value(raw))


def _success_values(raw: bytes) -> Iterator[Value]:
    _, outputs = msgspec.msgpack.decode(raw, type=tuple[bytes, list[tuple[str, bytes]]])
    for _, value in outputs:
        yield decode_value(value)


def _no_values(raw: bytes) -> Iterator[Value]:
    del raw
    return iter(())


def _name_in(key: str, prefix: str) -> Digest:
    try:
        return from_hex(plain_key(key)[len(prefix) + 1 :].replace("/", ""))
    except ValueError as error:
        raise CorruptError(f"{key} is no name of content") from error
