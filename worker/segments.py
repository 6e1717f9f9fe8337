"""Results on their way to the store: one segment writer per job and worker.

Store first, report then: `Stored` is made after the segment is in the store, and nothing else is ever reported as
finished. Rows are taken before the pack is swapped, so a row's blobs are in its own segment or in an earlier one of
this worker and job.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from ..storage.backend import Backend
from ..storage.digest import Digest
from ..storage.errors import ConflictError
from ..storage.logs import FIELDS, is_json
from ..storage.objects.object_store import Objects, ObjectWriter
from ..storage.objects.pack import Location, PackBuilder, read_footer
from ..storage.objects.segment import Outcome, Row, SegmentMeta, encode_rows, segment_key
from ..storage.objects.value import Value
from .messages import Stored, StoredLease

logger = logging.getLogger(__name__)

_ROW_BYTES = 160
FULL_FLUSHES = 8
"""Results of one job that a worker keeps in memory at most, in segments: a store that is slow slows its slots."""


class FlushLimits(NamedTuple):
    """When a segment is written, if nobody asks for it."""

    seconds: float = 2.0
    size_bytes: int = 8 << 20

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> FlushLimits:
        """Read `DMLPIPE_FLUSH_S` and `DMLPIPE_FLUSH_BYTES`."""
        default = cls()
        return cls(
            float(environ.get("DMLPIPE_FLUSH_S", default.seconds)),
            int(environ.get("DMLPIPE_FLUSH_BYTES", default.size_bytes)),
        )


class SegmentStore(Protocol):
    """What of a store this module needs."""

    @property
    def backend(self) -> Backend: ...  # noqa: D102
    @property
    def objects(self) -> Objects: ...  # noqa: D102


class _Waiting(NamedTuple):
    lease: int
    rows: Sequence[tuple[int, Row]]


class SegmentWriter:
    """Collects rows and blobs of one job and stores them as segments. Safe for use by many threads.

    Parameters
    ----------
    job, worker, host
        As they stand in the segments' keys and metadata.
    next_seq
        A number that this worker never used before.
    clock
        Monotonic seconds.
    """

    def __init__(
        self,
        store: SegmentStore,
        job: str,
        *,
        worker: str,
        host: str,
        next_seq: Callable[[], int],
        limits: FlushLimits,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._job = job
        self._worker = worker
        self._host = host
        self._next_seq = next_seq
        self._limits = limits
        self._clock = clock
        self._told = is_json()
        """A line of the log for each datum: for machines, which read millions."""
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._rows: dict[int, list[_Waiting]] = {}
        self._row_bytes = 0
        self._leaving_bytes = 0
        """On their way to the store."""
        self._since: float | None = None
        self._versions: dict[str, str] = {}
        self._unknown: list[Callable[[], Mapping[str, str]]] = []
        """What finds the versions of packages that were imported since the last segment."""
        self._writer: ObjectWriter = store.objects.writer(builder=PackBuilder())

    def put(self, data: bytes) -> Value:
        """Store the content of an output file."""
        return self._writer.put(data)

    def put_file(self, fd: int) -> Value:
        """Store the content of an open file."""
        return self._writer.put_file(fd)

    def put_log(self, log: bytes) -> bytes:
        """Store what a datum printed; return the blob's hash, empty for nothing."""
        return self._writer.add_blob(log) if log else b""

    def add(self, fold: int, lease: int, rows: Sequence[tuple[int, Row]]) -> None:
        """Add the results of datums, each with its index in the lease's block; their content was put before."""
        size = 0
        for _, row in rows:
            size += _ROW_BYTES + len(row.key)
            for path, value in row.outputs:
                size += len(path) + len(value)
            if row.failure is not None:
                size += len(row.failure.traceback) + len(row.failure.message)
        if self._told:
            self._tell(rows)
        with self._lock:
            if self._since is None:
                self._since = self._clock()
            self._rows.setdefault(fold, []).append(_Waiting(lease, rows))
            self._row_bytes += size

    def _tell(self, rows: Sequence[tuple[int, Row]]) -> None:
        for _, row in rows:
            fields: dict[str, Any] = {
                "event": "datum",
                "job": self._job,
                "datum": row.fingerprint.hex()[:12],
                "outcome": row.outcome.name.lower(),
                "tries": row.tries,
                "seconds": row.seconds,
                "worker": self._worker,
                "slot": row.slot,
            }
            if row.failure is not None:
                fields["failure"] = f"{row.failure.kind}: {row.failure.message}"
            logger.info("datum %s %s", fields["datum"], fields["outcome"], extra={FIELDS: fields})

    def note_versions(self, find: Callable[[], Mapping[str, str]]) -> None:
        """Let the next segment, and all after it, name packages that user code imported.

        Parameters
        ----------
        find
            Returns their versions, or waits for them: called when a segment is written.
        """
        with self._lock:
            self._unknown.append(find)

    @property
    def waiting(self) -> int:
        """Rows that are not stored yet."""
        with self._lock:
            return sum(len(part.rows) for parts in self._rows.values() for part in parts)

    def due(self) -> bool:
        """Whether a limit is reached."""
        with self._lock:
            if self._since is None:
                return False
            if self._row_bytes + self._writer.size >= self._limits.size_bytes:
                return True
            return self._clock() - self._since >= self._limits.seconds

    @property
    def full(self) -> bool:
        """So much waits for the store that no more should be computed before some of it is there."""
        return self._row_bytes + self._writer.size + self._leaving_bytes >= FULL_FLUSHES * self._limits.size_bytes

    def flush(self) -> list[Stored]:
        """Store what is there now, one segment per fold; return what to report.

        Raises
        ------
        BackendError
            It could not be stored; the rows are lost to this worker, and the scheduler must not hear of them.
        """
        with self._flushing:
            with self._lock:
                rows, self._rows = self._rows, {}
                self._leaving_bytes = self._row_bytes
                self._row_bytes, self._since = 0, None
                unknown, self._unknown = self._unknown, []
            # Only here, one flush at a time.
            for find in unknown:
                self._versions.update(find())
            if not rows:
                return []
            versions = dict(self._versions)
            self._leaving_bytes += self._writer.size
            builder = self._writer.swap(PackBuilder())
            stored = []
            try:
                for fold in sorted(rows):
                    stored.append(self._store_segment(fold, rows[fold], builder, versions))
                    builder = PackBuilder()
            finally:
                self._leaving_bytes = 0
            return stored

    def _store_segment(
        self, fold: int, waiting: list[_Waiting], builder: PackBuilder, versions: dict[str, str]
    ) -> Stored:
        seq = self._next_seq()
        meta = SegmentMeta(job=self._job, fold=fold, worker=self._worker, seq=seq, host=self._host, versions=versions)
        rows = [row for part in waiting for _, row in part.rows]
        body = builder.finish(rows=encode_rows(rows), meta=msgspec.to_builtins(meta, builtin_types=(bytes,)))
        key = segment_key(self._job, fold, self._worker, seq)
        if not self._store.backend.put_if_absent(key, body):
            raise ConflictError(f"segment {key} exists already: two workers have the name {self._worker}")
        leases: dict[int, list[int]] = {}
        for part in waiting:
            leases.setdefault(part.lease, []).extend(index for index, _ in part.rows)
        return Stored(
            job=self._job,
            key=key,
            fold=fold,
            leases=tuple(StoredLease(lease, tuple(sorted(found))) for lease, found in sorted(leases.items())),
            rows=len(rows),
            failed=sum(row.outcome is Outcome.FAILED for row in rows),
        )

    def close(self) -> None:
        """Forget what was not flushed."""
        self._writer.close()


class Unpublished:
    """What segments hold that no ledger entry names: for whoever reads back what was computed and not published.

    Parameters
    ----------
    store
        Where they are. Its objects find their blobs from then on.

    Notes
    -----
    Memory: about 200 bytes a blob, for as long as the store.
    """

    def __init__(self, store: SegmentStore) -> None:
        self._store = store
        self._places: dict[Digest, Location] = {}

    def add(self, stored: Iterable[Stored]) -> None:
        """Read the footers of segments: one request each."""
        backend = self._store.backend
        for each in stored:
            self._places.update(read_footer(backend, each.key).locations(each.key))
        # Once more at the front: of many finders, the oldest are forgotten.
        self._store.objects.forget(self._find)
        self._store.objects.remember(self._find)

    def _find(self, name: Digest) -> Location | None:
        return self._places.get(name)


def worker_host() -> str:
    """Name of this machine, for people."""
    return os.uname().nodename
