"""Rows of a job, gathered from its segments, with folds so that an interrupted controller resumes cheaply.

Rules
-----
1. A datum is finished iff its row is in a stored segment. What is finished in a job is not computed again in it.
2. Every `fold_segments` segments the controller writes ``results/<job>/fold-<k>``: the segments covered, the rows so
   far as a tree, the oldest fold that segments may still arrive for. Leases carry the current fold.
3. Resuming costs one LIST, at most two tries for the last fold object, one LIST per open fold and its segments:
   constant in the job's size. Fold objects are derived: one that is damaged costs reading all segments.
4. Segments are folded in order of (fold, name). Of two rows for one datum a success wins over a failure, else the
   first.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import msgspec

from ...storage.errors import CorruptError, NotFoundError
from ...storage.objects.fold import FoldObject, decode_fold, encode_fold, fold_key
from ...storage.objects.pack import Footer, read_footer
from ...storage.objects.segment import SEGMENT_PREFIX, Failure, Outcome, Row, SegmentMeta, decode_rows
from ...storage.store import Store
from ...storage.trees.prolly import Tree

logger = logging.getLogger(__name__)

FOLD_SEGMENTS = 64
MAX_FAILURE_GROUPS = 20


class Finished(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One finished datum."""

    fingerprint: bytes
    outcome: int
    outputs: tuple[tuple[str, bytes], ...]
    segment: int
    """Position in the covered segments."""
    row: int
    failure: Failure | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode_finished = msgspec.msgpack.Decoder(Finished).decode


class Results:
    """The finished datums of one job.

    Parameters
    ----------
    store
        Where the segments are.
    job
        The job's id.
    fold_segments
        Segments per fold; `DMLPIPE_FOLD_SEGMENTS` overrides the default.
    """

    def __init__(self, store: Store, job: str, *, fold_segments: int | None = None) -> None:
        self._store = store
        self._job = job
        self._fold_segments = fold_segments or int(os.environ.get("DMLPIPE_FOLD_SEGMENTS", FOLD_SEGMENTS))
        self._done: Tree = store.tree("")
        self._covered: list[str] = []
        self._pending: dict[str, Footer] = {}
        self._decoded: dict[bytes, Finished] | None = None
        """Rows of `_pending`, once somebody asked: the end of a job reads them four times."""
        self._versions: dict[str, str] = {}
        self._hosts: list[str] = []
        self.fold = 0
        self.segments: list[str] = []

    @classmethod
    def resume(cls, store: Store, job: str, *, fold_segments: int | None = None) -> Results:
        """Find what an interrupted controller's workers left."""
        results = cls(store, job, fold_segments=fold_segments)
        prefix = f"{SEGMENT_PREFIX}/{job}/"
        folds = sorted(int(name) for name in store.backend.list_folders(prefix) if name.isdigit())
        first = 0
        for number in [folds[-1], folds[-1] - 1] if folds else []:
            # Leases carry a fold's number only after the object that closes the one before is stored.
            raw = _read_fold(store, job, number)
            if raw is not None:
                results._done = store.tree(raw.done)
                results._covered = list(raw.segments)
                results.segments = list(raw.segments)
                results.fold = number + 1
                first = raw.open
                break
        known = set(results._covered)
        for number in folds:
            if number >= first:
                for key, _ in store.backend.list(f"{prefix}{number:06d}/"):
                    if key not in known and key.endswith(".seg"):
                        results.add(key)
        results.fold = max([results.fold, *folds])
        return results

    def add(self, key: str) -> None:
        """Take a stored segment. Idempotent."""
        if key in self._pending or key in self._covered:
            return
        footer = read_footer(self._store.backend, key)
        self._pending[key] = footer
        self._decoded = None
        self.segments.append(key)
        if footer.meta is not None:
            meta = msgspec.convert(footer.meta, SegmentMeta)
            self._versions.update(meta.versions)
            if meta.host not in self._hosts:
                self._hosts.append(meta.host)

    @property
    def versions(self) -> dict[str, str]:
        """Third-party packages that the user code had imported."""
        return dict(sorted(self._versions.items()))

    @property
    def host(self) -> str:
        """Where it ran: `a` or `a, b`."""
        return ", ".join(self._hosts)

    def should_fold(self) -> bool:
        """Enough segments came since the last fold."""
        return len(self._pending) >= self._fold_segments

    def close_fold(self, oldest_open: int) -> int:
        """Write a fold object for everything so far; return the number of the fold that begins."""
        self._absorb()
        fold = FoldObject(segments=tuple(self._covered), done=self._done.root.hex(), open=oldest_open)
        self._store.backend.put_if_absent(fold_key(self._job, self.fold), encode_fold(fold))
        self.fold += 1
        return self.fold

    def finished(self) -> Tree:
        """Tree whose keys are the finished datums, for `plan_job`."""
        self._absorb()
        return self._done

    def rows(self) -> Iterator[tuple[bytes, Finished, str]]:
        """(datum key, result, segment key), sorted by datum key."""
        order = self._order()
        for key, finished in self._merged():
            yield key, finished, order[finished.segment]

    def footers(self) -> Iterator[tuple[str, Footer]]:
        """Every segment with its footer, in fold order; those of earlier folds are read again."""
        for key in self._order():
            footer = self._pending.get(key)
            yield key, footer if footer is not None else read_footer(self._store.backend, key)

    def _order(self) -> list[str]:
        return [*self._covered, *sorted(self._pending)]

    def _fresh(self) -> dict[bytes, Finished]:
        if self._decoded is not None:
            return self._decoded
        fresh: dict[bytes, Finished] = {}
        for number, key in enumerate(sorted(self._pending), len(self._covered)):
            for position, row in enumerate(decode_rows(self._pending[key].rows)):
                new = _finished(row, number, position)
                old = fresh.get(row.key)
                if old is None or (old.outcome != Outcome.OK and new.outcome == Outcome.OK):
                    fresh[row.key] = new
        self._decoded = fresh
        return fresh

    def _absorb(self) -> None:
        if not self._pending:
            return
        fresh = self._fresh()
        edits: list[tuple[bytes, bytes | None]] = []
        keys = sorted(fresh)
        for key, old in zip(keys, self._done.get_many(keys), strict=True):
            if old is None or (_decode_finished(old).outcome != Outcome.OK and fresh[key].outcome == Outcome.OK):
                edits.append((key, _encode(fresh[key])))
        self._done = self._done.update(edits)
        self._covered.extend(sorted(self._pending))
        self._pending.clear()
        self._decoded = None

    def _merged(self) -> Iterator[tuple[bytes, Finished]]:
        fresh = self._fresh()
        keys = sorted(fresh)
        position = 0
        for key, raw in self._done.scan():
            while position < len(keys) and keys[position] < key:
                yield keys[position], fresh[keys[position]]
                position += 1
            old = _decode_finished(raw)
            if position < len(keys) and keys[position] == key:
                new = fresh[key]
                position += 1
                yield key, new if old.outcome != Outcome.OK and new.outcome == Outcome.OK else old
            else:
                yield key, old
        for key in keys[position:]:
            yield key, fresh[key]


def _read_fold(store: Store, job: str, number: int) -> FoldObject | None:
    if number < 0:
        return None
    key = fold_key(job, number)
    try:
        fold = decode_fold(store.backend.get(key), key)
        store.tree(fold.done).get(b"")  # its root is there, and sound
    except NotFoundError:
        return None
    except CorruptError as error:
        logger.warning("%s; the job's segments are read instead", error)
        return None
    return fold


def _finished(row: Row, segment: int, position: int) -> Finished:
    return Finished(row.fingerprint, int(row.outcome), tuple(row.outputs), segment, position, row.failure)


def datum_id(fingerprint: bytes) -> str:
    """How a datum is named in messages: 12 hex digits."""
    return fingerprint.hex()[:12]


__all__ = ["FOLD_SEGMENTS", "Finished", "Results", "datum_id"]
