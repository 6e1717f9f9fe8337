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
from ...storage.objects.pack import read_footer
from ...storage.objects.segment import SEGMENT_PREFIX, Failure, Outcome, Row, decode_rows
from ...storage.paths import normalize_folder
from ...storage.refs import parse_ref
from ...storage.store import Store
from ..inputs.expression import Input
from ..pipelines.spec import decode_pipeline
from .datums import SEPARATOR
from .summary import describe_key

__all__ = ["DatumRow", "datum_rows", "find_datum", "read_log"]

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
    state = store.state.job(job)
    if state is None:
        raise NotFoundError(f"no job {job!r}", code=ErrorCode.NO_JOB, hint="list: dmlpipe job list")
    context = store.state.context(state.context)
    order = context.order if context is not None else ()
    version = store.state.version(state.pipeline, state.version)
    if version is None:
        raise CorruptError(f"job {job} ran {state.pipeline} v{state.version}, which the ledger does not have")
    node = decode_pipeline(store.nodes.get(from_hex(version.spec))).input
    for key, _ in store.backend.list(f"{SEGMENT_PREFIX}/{job}/"):
        if key.endswith(".seg"):
            for row in decode_rows(read_footer(store.backend, key).rows):
                yield _datum(job, state, row, order, node)


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
    """Return what a datum printed."""
    return store.objects.get_blob(Digest(bytes.fromhex(row.log))) if row.log else b""


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


def _datum(job: str, state: r.JobState, row: Row, order: Sequence[str], node: Input) -> DatumRow:
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
    )
