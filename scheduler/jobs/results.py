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

import itertools
import logging
import os
import struct
from collections.abc import Iterator
from operator import itemgetter

import msgspec

from ...storage.digest import Digest
from ...storage.errors import CorruptError, NotFoundError
from ...storage.objects.fold import FoldObject, decode_fold, encode_fold, fold_key
from ...storage.objects.index import BlobIndex
from ...storage.objects.pack import Footer, Location, read_footer
from ...storage.objects.segment import SEGMENT_PREFIX, Failure, Outcome, Row, SegmentMeta, decode_rows
from ...storage.store import Store
from ...storage.trees.prolly import Tree
from .sorting import SortedRecords

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
        self._pending: dict[str, int] = {}
        """Segments since the last fold, with their numbers in the order in which they came."""
        self._arrived: list[str] = []
        self._fresh = SortedRecords()
        """Rows of `_pending`."""
        self._blobs = SortedRecords()
        """Where the blobs of the segments that were added are: hash to (number of the segment, place)."""
        self._with_blobs: list[str] = []
        self._flawed = False
        """Whether a row that is no success may be among them."""
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
                results._flawed = True
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
        number = self._note_places(key, footer)
        self._pending[key] = number
        self.segments.append(key)
        for position, row in enumerate(decode_rows(footer.rows)):
            self._flawed |= row.outcome != Outcome.OK
            self._fresh.add(row.key, _encode(_finished(row, number, position)))
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
        arrived, covered = self._arrived, self._covered
        fresh = self._fresh_rows()
        key, rows = next(fresh, _END)
        for old_key, raw in self._done.scan():
            while key is not None and key < old_key:
                yield key, rows[0], arrived[rows[0].segment]
                key, rows = next(fresh, _END)
            old, segment = _decode_finished(raw), ""
            if key == old_key:
                if old.outcome != Outcome.OK and rows[0].outcome == Outcome.OK:
                    old, segment = rows[0], arrived[rows[0].segment]
                key, rows = next(fresh, _END)
            yield old_key, old, segment or covered[old.segment]
        while key is not None:
            yield key, rows[0], arrived[rows[0].segment]
            key, rows = next(fresh, _END)

    def footers(self) -> Iterator[tuple[str, Footer]]:
        """Every segment with its footer, in fold order, each read again."""
        for key in self._order():
            yield key, read_footer(self._store.backend, key)

    def failed(self) -> int:
        """How many datums have failed so far."""
        return sum(row.outcome == Outcome.FAILED for _, row, _ in self.rows()) if self._flawed else 0

    def about(self) -> int:
        """How many rows there are, those that were computed twice counted twice."""
        return len(self._done) + len(self._fresh)

    def index(self) -> bytes | None:
        """Index over the blobs of all segments; None: they have none. Those of earlier controllers are read again."""
        known = set(self._arrived)
        for key in self._covered:
            if key not in known:
                self._note_places(key, read_footer(self._store.backend, key))
        if not len(self._blobs):
            return None
        return BlobIndex.build_sorted(self._places(), self._with_blobs)

    def _places(self) -> Iterator[tuple[Digest, Location]]:
        for name, group in itertools.groupby(self._blobs, key=itemgetter(0)):
            # Of several any will do; the first by name, so that the index does not depend on who came first.
            found = (_PLACE.unpack(place) for _, place in group)
            yield Digest(name), min(Location(self._arrived[number], *rest) for number, *rest in found)

    def _note_places(self, key: str, footer: Footer) -> int:
        """Remember where the blobs of a segment are; return its number."""
        number = len(self._arrived)
        self._arrived.append(key)
        if footer.blobs:
            self._with_blobs.append(key)
        for blob in footer.blobs:
            self._blobs.add(blob.hash, _PLACE.pack(number, blob.offset, blob.stored, blob.size, blob.codec))
        return number

    def _order(self) -> list[str]:
        return [*self._covered, *sorted(self._pending)]

    def _absorb(self) -> None:
        if not self._pending:
            return
        self._done = self._done.updated(self._better(), len(self._fresh))
        self._covered.extend(sorted(self._pending))
        self._pending.clear()
        self._fresh.close()

    def _better(self) -> Iterator[tuple[bytes, bytes]]:
        """Of the rows since the last fold those that the tree of finished datums lacks, or has as a failure."""
        numbers = {self._pending[key]: number for number, key in enumerate(sorted(self._pending), len(self._covered))}
        fresh = self._fresh_rows()
        while batch := list(itertools.islice(fresh, _TOGETHER)):
            for (key, rows), raw in zip(batch, self._done.get_many([key for key, _ in batch]), strict=True):
                best = rows[0]
                if raw is None or (best.outcome == Outcome.OK and _decode_finished(raw).outcome != Outcome.OK):
                    yield key, _encode(msgspec.structs.replace(best, segment=numbers[best.segment]))

    def _fresh_rows(self) -> Iterator[tuple[bytes, list[Finished]]]:
        """(datum key, its results since the last fold, the best first), sorted by key.

        Their segments have the numbers in which they came.
        """
        last: bytes | None = None
        rows: list[Finished] = []
        for key, raw in self._fresh:
            if key != last:
                if last is not None:
                    yield last, rows if len(rows) == 1 else self._ranked(rows)
                last, rows = key, []
            rows.append(_decode_finished(raw))
        if last is not None:
            yield last, self._ranked(rows)

    def _ranked(self, rows: list[Finished]) -> list[Finished]:
        """Successes first, then in fold order."""
        return sorted(rows, key=lambda row: (row.outcome != Outcome.OK, self._arrived[row.segment], row.row))


_PLACE = struct.Struct("<IQIIB")
_END: tuple[None, list[Finished]] = (None, [])
_TOGETHER = 4096


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
