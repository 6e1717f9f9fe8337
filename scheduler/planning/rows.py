"""Datums of jobs, read back from the segments: what `datum list` shows and `datum logs` prints.

Nothing here is needed to run: seconds, tries and logs stand in segments alone.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ...storage import records as r
from ...storage.digest import Digest, from_hex
from ...storage.errors import CorruptError, ErrorCode, NotFoundError
from ...storage.objects.pack import check_blob, read_footer, unpack
from ...storage.objects.segment import SEGMENT_PREFIX, Failure, Outcome, Row, decode_rows
from ...storage.paths import normalize_folder
from ...storage.refs import parse_ref
from ...storage.store import Store
from ..inputs.expression import Input
from ..inputs.scope import scope
from ..inputs.walk import constants
from ..pipelines.spec import decode_pipeline
from .datums import SEPARATOR
from .summary import describe_key

__all__ = ["DatumRow", "datum_rows", "find_datum", "follow_rows", "read_log"]

_ID = re.compile(r"[0-9a-f]{4,64}")


@dataclasses.dataclass(frozen=True, slots=True)
class DatumRow:
    """One try of a datum that came to an end, in one job."""

    job: str
    pipeline: str
    id: str
    """Fingerprint, hex."""
    key: tuple[str, ...]
    """Path, value or region of each varying input."""
    shown: str
    """The key as people write it: `images:/a.png C=0.1`; empty if the job has a single datum."""
    outcome: str
    """`ok`, `failed` or `recovered`."""
    outputs: tuple[str, ...]
    seconds: float
    tries: int
    log: str
    """Blob with what it printed, hex; empty if it printed nothing."""
    failure: Failure | None = None
    ended: float = 0.0
    """Unix seconds, by its worker's clock; 0: not known."""
    worker: str = ""
    slot: int = -1
    """Of that worker; -1: not known."""
    segment: str = ""
    """Key of the segment that holds the row, and the log unless other content is equal to it."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        failure = self.failure
        return {
            "datum": self.id,
            "job": self.job,
            "pipeline": self.pipeline,
            "key": list(self.key),
            "outcome": self.outcome,
            "outputs": list(self.outputs),
            "seconds": self.seconds,
            "tries": self.tries,
            "log": self.log,
            "failure": None
            if failure is None
            else {
                "kind": failure.kind,
                "message": failure.message,
                "where": failure.where,
                "line": failure.line,
                "traceback": failure.traceback,
            },
        }


def datum_rows(store: Store, job: str) -> Iterator[DatumRow]:
    """Yield the datums that a job computed, segment by segment.

    Notes
    -----
    One LIST, and one footer for each segment. A datum that was requeued can come twice.
    """
    yield from _new_rows(store, job, set())


def follow_rows(store: Store, job: str) -> Iterator[DatumRow]:
    """Yield the datums that a job computed, and those that it computes, until it has ended.

    Notes
    -----
    Asks the store for new segments as often as the ledger is looked at, at most twice a second.
    """
    seen: set[str] = set()
    while True:
        state = store.refresh()
        found = state.job(job)
        # Segments are stored before the job's end is recorded: asked for after it, none is missed.
        yield from _new_rows(store, job, seen)
        if found is None or found.state != "running":
            return
        store.ledger.wait(state.n, _LOOK_S)


_LOOK_S = 0.5


def _new_rows(store: Store, job: str, seen: set[str]) -> Iterator[DatumRow]:
    """Rows of the segments that are not in `seen`, which they then are."""
    state = store.state.job(job)
    if state is None:
        raise NotFoundError(f"no job {job!r}", code=ErrorCode.NO_JOB, hint="list: dmlpipe job list")
    context = store.state.context(state.context)
    order: Sequence[str] = context.order if context is not None else ()
    version = store.state.version(state.pipeline, state.version)
    if version is None:
        raise CorruptError(f"job {job} ran {state.pipeline} v{state.version}, which the ledger does not have")
    node = decode_pipeline(store.nodes.get(from_hex(version.spec))).input
    if not order:
        # The order is recorded with the context's first results; of one input there is no choice.
        varying = [slot for slot in scope(node).slots if slot not in constants(node)]
        order = varying if len(varying) == 1 else ()
    for key, _ in store.backend.list(f"{SEGMENT_PREFIX}/{job}/"):
        if key.endswith(".seg") and key not in seen:
            seen.add(key)
            worker = key.rpartition("/")[2].rpartition("-")[0]
            for row in decode_rows(read_footer(store.backend, key).rows):
                yield _datum(job, state, row, order, node, segment=key, worker=worker)


def find_datum(store: Store, name: str) -> DatumRow:
    """Return the newest try of the datum that `name` means.

    Parameters
    ----------
    name
        The first digits of its id (4 or more), an output ``predictions:/a.json``, or an input ``images:/a.png``.

    Raises
    ------
    NotFoundError
        No job computed such a datum, or its segments are gone.
    """
    store.refresh()
    rows: Iterator[DatumRow]
    if _ID.fullmatch(name):
        rows = (row for job, _ in store.state.jobs() for row in datum_rows(store, job) if row.id.startswith(name))
    else:
        ref = parse_ref(name)
        if store.state.pipeline(ref.repo) is not None:
            rows = _of_output(store, name)
        else:
            rows = _of_input(store, ref.repo, normalize_folder(ref.path or "").decode())
    found = next(rows, None)
    if found is None:
        raise NotFoundError(
            f"no datum {name!r} in any job", code=ErrorCode.NO_DATUM, hint="list: dmlpipe datum list PIPELINE"
        )
    return found


def read_log(store: Store, row: DatumRow) -> bytes:
    """Return what a datum printed, in a job under way, too."""
    if not row.log:
        return b""
    name = Digest(bytes.fromhex(row.log))
    try:
        return store.objects.get_blob(name)
    except NotFoundError:
        # Segments of a job that has not ended are in no index yet.
        at = dict(read_footer(store.backend, row.segment).locations(row.segment)).get(name)
        if at is None:
            raise
    content = unpack(store.backend.get(at.key, at.offset, at.offset + at.stored), at.codec, name)
    check_blob(name, content, at.key)
    return content


def _of_output(store: Store, name: str) -> Iterator[DatumRow]:
    made = store.why(name)
    if made.datum is None or made.computed_by is None:
        return
    for row in datum_rows(store, made.computed_by.id):
        if row.id == made.datum.id:
            yield row


def _of_input(store: Store, repo: str, path: str) -> Iterator[DatumRow]:
    for job, state in store.state.jobs():
        if any(bound.repo == repo for bound in state.inputs):
            for row in datum_rows(store, job):
                if f"{repo}:/{path}" in (word.rstrip("/") for word in row.shown.split(" ")):
                    yield row


def _datum(
    job: str, state: r.JobState, row: Row, order: Sequence[str], node: Input, *, segment: str, worker: str
) -> DatumRow:
    parts = tuple(part.decode("utf-8", "backslashreplace") for part in row.key.split(SEPARATOR)) if row.key else ()
    shown = describe_key(row.key, node, order)
    return DatumRow(
        job=job,
        pipeline=state.pipeline,
        id=row.fingerprint.hex(),
        key=parts,
        shown=shown,
        outcome=Outcome(row.outcome).name.lower(),
        outputs=tuple(path for path, _ in row.outputs),
        seconds=row.seconds,
        tries=row.tries,
        log=row.log.hex(),
        failure=row.failure,
        ended=row.ended,
        worker=worker,
        slot=row.slot,
        segment=segment,
    )
