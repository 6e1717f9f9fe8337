"""What the ledger's state refers to, directly or not: everything that a sweep must leave.

Roots: every commit that was not dropped (so the histories of all refs, and tags), every context record with its memo,
every recorded version of a pipeline with its code, job records, every job that began and did not end (all of its
``results/`` folder, and what the rows there name), all checkpoints, the lists of sweeps that somebody may still read.

Reads only. Marking again with a newer state costs what that state has more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..backend import Backend
from ..digest import Digest, from_hex
from ..errors import CorruptError, NotFoundError
from ..ledger import checkpoint as ckpt
from ..objects.bodies import code_trees, read_commit, read_job
from ..objects.content import Manifest
from ..objects.fold import decode_fold
from ..objects.node import NodeStore
from ..objects.pack import read_footer
from ..objects.segment import SEGMENT_PREFIX, decode_rows
from ..objects.value import External, Inline, Pieces, Value, Whole, decode_value
from ..records import Context, JobState
from ..state import State
from ..trees.codetree import code_value
from ..trees.tree_node import EMPTY

Leaf = Callable[[bytes], Iterable[Value]]


@dataclass(slots=True)
class Marked:
    """What is referred to."""

    nodes: set[Digest] = field(default_factory=set)
    blobs: set[Digest] = field(default_factory=set)
    """Packed or loose."""
    segments: set[str] = field(default_factory=set)
    """Packs that stay whole, for the rows in them."""
    running: set[str] = field(default_factory=set)
    """Jobs whose results folder stays whole."""


class Marker:
    """Marks from states, each newer than the one before.

    Parameters
    ----------
    backend, nodes
        Of the store.
    """

    def __init__(self, backend: Backend, nodes: NodeStore) -> None:
        self._backend = backend
        self._nodes = nodes
        self._walked: dict[str, set[Digest]] = {}
        self._done: set[str] = set()
        self._origins: dict[str, frozenset[str]] = {}
        self._remembered: set[str] = set()
        self.marked = Marked()

    def mark(self, state: State) -> Marked:
        """Mark everything that `state` refers to; return all that was marked so far.

        Raises
        ------
        NotFoundError, CorruptError
            Something that must be followed is missing or damaged: then nobody can tell what hangs below it.
        """
        for key, _ in state.scan(b"commit/"):
            self._once(key.decode(), lambda key=key: self.mark_commit(key.decode().rpartition("/")[2]))  # type: ignore[misc]
        for name, context in (*state.contexts(), *state.replaced_contexts()):
            self._context(name, context)
        for key, raw in state.scan(b"ver/"):
            spec = msgspec.msgpack.decode(raw, type=dict[str, Any])["spec"]
            self._once(key.decode(), lambda spec=spec: self._spec(str(spec)))  # type: ignore[misc]
        self._jobs(state)
        oldest = min((job.start_n for _, job in state.running_jobs()), default=state.n + 1)
        for n, sweep in state.sweeps():
            if sweep.open or n > oldest:
                self.marked.nodes.add(from_hex(sweep.list))
        self._checkpoints()
        return self.marked

    def _once(self, key: str, mark: Callable[[], None]) -> None:
        if key not in self._done:
            mark()
            self._done.add(key)

    # --- roots ----------------------------------------------------------------------------------------------------

    def mark_commit(self, commit: str) -> None:
        """Mark what one commit refers to."""
        self.marked.nodes.add(from_hex(commit))
        body = read_commit(self._nodes, commit)
        self._tree("files", body.tree, _files)
        self._tree("plain", body.failed, _nothing)

    def _context(self, name: str, context: Context) -> None:
        del name
        self._tree("files", context.out, _files)
        self._tree("files", context.metadata, _files)
        self._tree("memo", context.s, _successes)
        self._tree("t", context.t, _nothing)
        for root in (context.p, context.f):
            self._tree("plain", root, _nothing)
        for root in input_trees(context):
            # What the next job is compared with: paths and ids, and what an array's metadata says.
            self._tree("inputs", root, _nothing)

    def _spec(self, spec: str) -> None:
        if not spec:
            return
        self.marked.nodes.add(from_hex(spec))
        try:
            body = msgspec.msgpack.decode(self._nodes.get(from_hex(spec)), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise CorruptError(f"node {spec[:12]} is no pipeline spec: {error}") from error
        transform = body.get("transform")
        if isinstance(transform, dict):
            for tree in code_trees(transform):
                self._tree("code", tree, _code)
            pickled = str(transform.get("pickled") or "")
            if pickled:
                self.marked.blobs.add(from_hex(pickled))

    def _jobs(self, state: State) -> None:
        self.marked.running = set()
        # What is remembered may be published again, with the job that computed it.
        wanted = set(self._remembered)
        jobs = dict(state.jobs())
        for name, job in jobs.items():
            if job.state == "running":
                self._running(name)
                continue
            origins = self._record(job)
            if keeps_rows(state, job):
                wanted |= {name, *origins}
            if keeps_results(state, job):
                self._once(f"job/{name}", lambda job=job: self._results(job))  # type: ignore[misc]
        # Seconds and logs of live datums, also of those that an older job computed.
        for root in sorted({jobs[name].end.rows for name in wanted if name in jobs}):
            self._tree("rows", root, _nothing)

    def _record(self, job: JobState) -> frozenset[str]:
        record = job.end.record
        if not record:
            return frozenset()
        if record not in self._origins:
            self.marked.nodes.add(from_hex(record))
            body = read_job(self._nodes, record)
            self._spec(body.spec)
            self._tree("code", body.bundle, _code)
            self._origins[record] = frozenset(body.origins)
        return self._origins[record]

    def _results(self, job: JobState) -> None:
        if job.end.record:
            body = read_job(self._nodes, job.end.record)
            self._tree("files", body.out, _files)
            for root in (body.t, body.p):
                self._tree("plain", root, _nothing)

    def _running(self, name: str) -> None:
        """A job under way: its segments and folds, as far as they are stored. Those that come are its own affair."""
        self.marked.running.add(name)
        for key, _ in self._backend.list(f"{SEGMENT_PREFIX}/{name}/"):
            self._once(key, lambda key=key: self._result(key))  # type: ignore[misc]

    def _result(self, key: str) -> None:
        if key.endswith(".seg"):
            footer = read_footer(self._backend, key)
            for row in decode_rows(footer.rows):
                for _, raw in row.outputs:
                    self._value(decode_value(raw))
            return
        try:
            fold = decode_fold(self._backend.get(key), key)
        except CorruptError:
            return  # nobody believes it; the segments, which are marked by themselves, are read instead
        self._tree("done", fold.done, _finished)

    def _checkpoints(self) -> None:
        for key, _ in self._backend.list("ledger/ckpt/"):
            stem = key.rpartition("/")[2].partition(".")[0]
            if key in self._done or not stem.isdigit():
                continue
            found = ckpt.read_checkpoint(self._backend, int(stem))
            if found is not None:
                # Derived: one that is damaged is passed over, as its readers do.
                self._tree("plain", found.state, _nothing, must=False)
            self._done.add(key)

    # --- walking --------------------------------------------------------------------------------------------------

    def _tree(self, kind: str, root: str, leaf: Leaf, *, must: bool = True) -> None:
        """Follow a tree's nodes and what its leaves name; what was followed as this kind before is passed over."""
        if not root:
            return
        walked = self._walked.setdefault(kind, set())
        open_ = [from_hex(root)]
        while open_:
            name = open_.pop()
            if name == EMPTY or name in walked:
                continue
            try:
                raw = self._nodes.get(name)
            except (NotFoundError, CorruptError):
                if must:
                    raise
                continue
            walked.add(name)
            self.marked.nodes.add(name)
            _, level, keys, entries = msgspec.msgpack.decode(raw, type=tuple[int, int, list[bytes], list[Any]])
            if level:
                open_.extend(Digest(entry[0]) for entry in entries)
            elif kind == "inputs":
                for key, entry in zip(keys, entries, strict=True):
                    if is_metadata(key):
                        self._value(decode_value(entry))
            elif kind == "rows":
                self.marked.segments.update(msgspec.msgpack.decode(entry)[0] for entry in entries)
            else:
                for entry in entries:
                    if kind in ("t", "memo"):
                        self._remembered.add(_origin(entry, 1 if kind == "t" else 0))
                    for value in leaf(entry):
                        self._value(value)

    def _value(self, value: Value) -> None:
        match value:
            case Whole():
                self.marked.blobs.add(Digest(value.hash))
            case Pieces():
                name = Digest(value.manifest)
                if name not in self.marked.nodes:
                    manifest = msgspec.msgpack.decode(self._nodes.get(name), type=Manifest)
                    self.marked.blobs.update(Digest(piece.hash) for piece in manifest.pieces)
                    self.marked.nodes.add(name)
            case Inline() | External():
                pass


def input_trees(context: Context) -> list[str]:
    """Return the trees that a context's memo was computed for (inputs of listed values have none)."""
    return [root for root in context.inputs.values() if root and not root.startswith("[")]


def is_metadata(path: bytes) -> bool:
    """Whether a file of an input is read to compare it with a newer one."""
    return path.rpartition(b"/")[2] == b"zarr.json"


def keeps_results(state: State, job: JobState) -> bool:
    """Whether the trees of an ended job's record are kept: as long as its commit is."""
    return job.state == "done" and state.commit(job.pipeline, job.commit) is not None


def keeps_rows(state: State, job: JobState) -> bool:
    """Whether an ended job's rows are kept, whoever else computed what it published: logs of failed jobs are."""
    return job.state in ("failed", "stopped") or keeps_results(state, job)


def _files(raw: bytes) -> Iterator[Value]:
    yield decode_value(raw)


def _code(raw: bytes) -> Iterator[Value]:
    yield decode_value(code_value(raw))


def _successes(raw: bytes) -> Iterator[Value]:
    _, outputs = msgspec.msgpack.decode(raw, type=tuple[bytes, list[tuple[str, bytes]]])
    for _, value in outputs:
        yield decode_value(value)


def _origin(raw: bytes, place: int) -> str:
    return bytes(msgspec.msgpack.decode(raw)[place]).hex()


def _finished(raw: bytes) -> Iterator[Value]:
    for _, value in msgspec.msgpack.decode(raw)[2]:
        yield decode_value(value)


def _nothing(raw: bytes) -> Iterator[Value]:
    del raw
    return iter(())
