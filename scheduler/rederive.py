"""Making files of commits again: the datum that made one runs once more, recorded code on recorded inputs.

What `fsck --repair` does about outputs that nobody has any more. The code runs in this process, in a layer over the
store (as in `trial`): nothing is written, and what was made again is an input of what comes after it. Jobs go in the
order in which they began, so that a chain of pipelines that lost everything but its first inputs is made again whole.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from ..storage import records as r
from ..storage.backend.layered import LayeredBackend
from ..storage.digest import from_hex
from ..storage.errors import DmlpipeError, NotFoundError
from ..storage.fsck import NOT_REPRODUCIBLE, FileRef
from ..storage.objects.bodies import read_job
from ..storage.objects.segment import Outcome, Row
from ..storage.objects.value import Value, decode_value
from ..storage.state import State
from ..storage.store import Store
from ..worker.inline import InlineWorker
from ..worker.job import Datum
from ..worker.segments import Unpublished
from .jobs.array_metadata import ARRAY_METADATA, array_metadata
from .jobs.worker_spec import worker_spec
from .pipelines.spec import PipelineSpec, decode_pipeline
from .planning.plan import JobPlan, plan_job

__all__ = ["Rederivation"]

_TOGETHER = 256
"""Datums computed between two looks at what they made."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Past:
    """A job that ended, as it can be done again."""

    id: str
    version: int
    began: int
    """Ledger entry: what it read was made by jobs that began before."""
    spec: PipelineSpec
    bindings: Mapping[str, r.InputBinding]
    provenance: str
    """Tree of path to datum key and origin job, hex."""
    plan: JobPlan


@dataclasses.dataclass(slots=True)
class _Todo:
    """What one job is to make again."""

    past: _Past
    datums: dict[bytes, Datum] = dataclasses.field(default_factory=dict)
    """By key."""
    files: dict[bytes, list[FileRef]] = dataclasses.field(default_factory=dict)
    """What each of them made, by its key."""
    metadata: list[FileRef] = dataclasses.field(default_factory=list)
    """What no datum made, but the job itself."""


class Rederivation:
    """Makes files of commits again; a `storage.fsck.Rederive`.

    Parameters
    ----------
    store
        Is read only.

    Notes
    -----
    Runs recorded code in this process, with neither time-outs nor a memory limit. Each datum runs once, whatever the
    number of its files. Memory: all that is made again, until the last of it was handed over.
    """

    def __init__(self, store: Store) -> None:
        self._below = store

    def __call__(self, files: Sequence[FileRef]) -> Iterator[tuple[FileRef, Path | str]]:
        """Yield each file with a local copy of its content, or with the reason why it cannot be made again.

        A datum all of whose files are equal to others that were made is passed over.
        """
        with tempfile.TemporaryDirectory(prefix="dmlpipe-rederive-") as scratch:
            yield from _Making(self._below, Path(scratch)).run(files)


class _Making:
    def __init__(self, below: Store, scratch: Path) -> None:
        self._store = Store(LayeredBackend(below.backend), below.info, cache_dir=below.cache_dir)
        self._state: State = self._store.refresh()
        self._scratch = scratch
        self._worker = InlineWorker(self._store, scratch / "work", worker="rederive")
        self._unpublished = Unpublished(self._store)
        self._made: set[bytes] = set()
        """Values of files that were made, encoded."""
        self._pasts: dict[str, _Past | DmlpipeError] = {}

    def run(self, files: Sequence[FileRef]) -> Iterator[tuple[FileRef, Path | str]]:
        todos: dict[str, _Todo] = {}
        for file in files:
            try:
                self._sort(file, todos)
            except DmlpipeError as error:
                yield file, f"how it was made is not known any more: {error.message}"
        for todo in sorted(todos.values(), key=lambda todo: todo.past.began):
            yield from self._metadata(todo)
            keys = (key for key in todo.datums if any(file.value not in self._made for file in todo.files[key]))
            while some := list(itertools.islice(keys, _TOGETHER)):
                yield from self._datums(todo, some)

    # --- what made it -------------------------------------------------------------------------------------------------

    def _sort(self, file: FileRef, todos: dict[str, _Todo]) -> None:
        """Add a file to what its job is to make again."""
        past = self._past(file.job)
        path = file.path.removeprefix("/")
        raw = self._store.tree(past.provenance).get(path.encode()) if past.provenance else None
        if raw is None and past.spec.writes is not None and path == ARRAY_METADATA:
            todos.setdefault(past.id, _Todo(past)).metadata.append(file)
            return
        if raw is None:
            raise NotFoundError(f"no datum of job {past.id[:6]} is recorded as its maker")
        key, origin = msgspec.msgpack.decode(raw, type=tuple[bytes, bytes])
        maker, datum = self._maker(origin.hex(), past, key)
        todo = todos.setdefault(maker.id, _Todo(maker))
        todo.datums[key] = datum
        todo.files.setdefault(key, []).append(file)

    def _maker(self, origin: str, past: _Past, key: bytes) -> tuple[_Past, Datum]:
        """The job that computed a datum, else the one that found its result known: its inputs are equal."""
        failure: DmlpipeError | None = None
        for job in dict.fromkeys((origin, past.id)):
            try:
                found = self._past(job)
                datum = found.plan.datum(key)
            except DmlpipeError as error:
                failure = failure or error
                continue
            if datum is not None:
                return found, datum
        raise failure or NotFoundError(f"job {origin[:6]} has no such datum on its recorded inputs")

    def _past(self, job: str) -> _Past:
        known = self._pasts.get(job)
        if known is None:
            try:
                known = self._recall(job)
            except DmlpipeError as error:
                known = error
            self._pasts[job] = known
        if isinstance(known, DmlpipeError):
            raise known
        return known

    def _recall(self, job: str) -> _Past:
        state = self._state.job(job)
        if state is None or not state.end.record:
            raise NotFoundError(f"job {job[:6]} is not in the ledger, or has no record")
        record = read_job(self._store.nodes, state.end.record)
        spec = decode_pipeline(self._store.nodes.get(from_hex(record.spec)))
        bindings = {bound.name: bound for bound in record.inputs}
        context = self._state.context(record.context)
        # Nothing is remembered but the order of the key's parts: every datum of these inputs is there to be had.
        plan = plan_job(
            spec,
            bindings,
            r.Context(inputs={}, order=context.order if context is not None else ()),
            self._store.tree,
            read=self._read,
        )
        return _Past(
            id=job,
            version=record.version,
            began=state.start_n,
            spec=spec,
            bindings=bindings,
            provenance=record.p,
            plan=plan,
        )

    def _read(self, value: bytes) -> bytes:
        return self._store.objects.read(decode_value(value))

    # --- making it ----------------------------------------------------------------------------------------------------

    def _metadata(self, todo: _Todo) -> Iterator[tuple[FileRef, Path | str]]:
        for file in todo.metadata:
            try:
                content = array_metadata(todo.past.spec, todo.past.bindings, self._store.tree, self._read)
            except DmlpipeError as error:
                yield file, f"an input is lost, too: {error.message}"
                continue
            local = self._scratch / "file"
            local.write_bytes(content)
            yield file, local
            local.unlink()

    def _datums(self, todo: _Todo, keys: Sequence[bytes]) -> Iterator[tuple[FileRef, Path | str]]:
        past = todo.past
        spec = worker_spec(past.spec, past.plan, job=past.id, run=past.id, version=past.version)
        try:
            rows, stored = self._worker.run(spec, [todo.datums[key] for key in keys])
        except DmlpipeError as error:
            for file in (file for key in keys for file in todo.files[key]):
                yield file, f"its code or an input is lost, too: {error.message}"
            return
        finally:
            shutil.rmtree(self._scratch / "work", ignore_errors=True)
        self._unpublished.add(stored)
        for row in rows:
            made = dict(row.outputs)
            for file in todo.files[row.key]:
                raw = made.get(file.path.removeprefix("/"))
                value = decode_value(raw) if raw is not None else None
                yield from self._compared(file, row, value)

    def _compared(self, file: FileRef, row: Row, value: Value | None) -> Iterator[tuple[FileRef, Path | str]]:
        if row.outcome != Outcome.OK:
            yield file, _why_failed(row)
        elif value is None or value != decode_value(file.value):
            yield file, NOT_REPRODUCIBLE
        else:
            self._made.add(file.value)
            local = self._scratch / "file"
            self._store.objects.copy_to(value, local)
            yield file, local
            local.unlink()


def _why_failed(row: Row) -> str:
    failure = row.failure
    if failure is None:
        return "its datum fails now"
    said = failure.message.partition("\n")[0]
    if failure.kind.rpartition(".")[2] in ("CorruptError", "NotFoundError"):
        return f"an input is lost, too: {said}"
    return f"its datum fails now: {failure.kind}: {said}"
