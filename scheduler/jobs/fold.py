"""From a plan and its results to the next context: the trees `out`, `T`, `P`, `S`, `F` (docs/format.md).

Pure over trees: reads and writes nodes, decides nothing about branches. What is not touched is not read: the cost
follows the datums that ran, were found, or left. They go by in the order of their keys, in which T is made; what they
do to paths is sorted (`sorting.py`), and P and out are made from that.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter, itemgetter

import msgspec

from ...storage.objects.segment import Failure, Outcome
from ...storage.objects.value import decode_value
from ...storage.records import Context, Counters
from ...storage.trees.prolly import Tree
from ...storage.trees.tree_update import Edit
from ..planning.datums import SEPARATOR
from ..planning.memory import memo_key
from ..planning.plan_items import Drop, Hit
from ..report import FailureGroup
from .results import MAX_FAILURE_GROUPS, Finished, datum_id
from .sorting import SortedRecords

_encode = msgspec.msgpack.Encoder().encode
_decode_t = msgspec.msgpack.Decoder(tuple[list[str], bytes]).decode
_decode_p = msgspec.msgpack.Decoder(tuple[bytes, bytes]).decode


@dataclasses.dataclass(frozen=True, slots=True)
class Conflict:
    """Two datums want the same path, or one wants a file where another wants a folder."""

    path: str
    other_path: str
    key: bytes
    other_key: bytes | None
    """None: not a datum's but the array's own metadata."""


@dataclasses.dataclass(frozen=True, slots=True)
class Folded:
    """What a job leaves.

    Attributes
    ----------
    context
        The context record to write.
    out
        The output tree (of a failed job: that of the last success).
    counters
        Datums by what became of them.
    failures
        Grouped by cause, most frequent first.
    failed
        Datum keys to cause, of failures and recovered datums.
    conflict
        Why the outputs cannot be one tree; then `context` keeps the successes in S only.
    origins
        By how much the number of live datums in T changed, per job that computed them.
    """

    context: Context
    out: Tree
    counters: Counters
    failures: tuple[FailureGroup, ...]
    failed: Mapping[bytes, str]
    conflict: Conflict | None = None
    origins: Mapping[str, int] = dataclasses.field(default_factory=dict)


class _Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one datum does to one path of the output."""

    rank: int
    key: bytes
    origin: bytes
    value: bytes


_LEAVES, _KNOWN, _MADE = 0, 1, 2
"""Ranks: the datum's output leaves; it comes from memory; this job made it."""

_encode_event = msgspec.msgpack.Encoder().encode
_decode_event = msgspec.msgpack.Decoder(_Event).decode
_rank = attrgetter("rank")
_TOGETHER = 4096


def _events_of(groups: Iterable[tuple[bytes, Iterable[tuple[bytes, bytes]]]]) -> Iterator[tuple[bytes, list[_Event]]]:
    for name, records in groups:
        events = [_decode_event(raw) for _, raw in records]
        if len(events) > 1:
            events.sort(key=_rank)
        yield name, events


class _Paths:
    """From what datums do to paths to edits of P and out, path by path, with the checks that two datums do not meet.

    Parameters
    ----------
    shared
        Datums of equal content may share their outputs: P then holds (path, NUL, datum key) for all but one.
    """

    def __init__(self, out: Tree, p: Tree, *, shared: bool) -> None:
        self._old_out = out
        self._old_p = p
        self._shared = shared
        self._fresh = out.is_empty()
        self._events = SortedRecords()
        self._new_names = SortedRecords()
        """Paths that were not there before, where others were."""
        self.out = SortedRecords()
        """Edits of out, empty for what goes: known once those of P are."""
        self._above: list[tuple[bytes, bytes]] = []
        """(path, datum key) of files whose names the present path begins with."""
        self.conflict: Conflict | None = None
        self.size_change = 0

    def note(self, rank: int, path: str, key: bytes, origin: bytes, value: bytes) -> None:
        """Take what a datum does to a path."""
        self._events.add(path.encode(), _encode_event(_Event(rank, key, origin, value)))

    @property
    def about(self) -> int:
        """How many edits of P there will be at most, without what is shared."""
        return len(self._events)

    def edits(self) -> Iterator[Edit]:
        """Yield the edits of P, sorted; ends early at a conflict."""
        groups = itertools.groupby(self._events, key=itemgetter(0))
        while batch := list(_events_of(itertools.islice(groups, _TOGETHER))):
            names = [name for name, _ in batch]
            there: Sequence[bytes | None] = [None] * len(names)
            owners = there
            if not self._fresh:
                there, owners = self._old_out.get_many(names), self._old_p.get_many(names)
            for (name, events), value, owner in zip(batch, there, owners, strict=True):
                yield from (
                    self._share(name, events, value, owner) if self._shared else self._own(name, events, value, owner)
                )
                if self.conflict is not None:
                    return

    def _own(self, name: bytes, events: list[_Event], there: bytes | None, owner: bytes | None) -> Iterator[Edit]:
        """A path that one datum may have."""
        coming = events if events[0].rank != _LEAVES else events[1:]
        leaves = len(coming) < len(events)
        other: bytes | None = None
        for event in coming[1:]:
            other = event.key
        if coming and not leaves and there is not None and other is None:
            other = _decode_p(owner)[0] if owner is not None else None
            if other == coming[0].key:
                other = None
            else:
                self.conflict = _clash(name, name, coming[0].key, other)
                return
        if other is not None:
            self.conflict = _clash(name, name, other, coming[0].key)
            return
        if coming:
            yield name, _encode((coming[0].key, coming[0].origin))
            self._put(name, coming[0].key, coming[0].value, there)
        else:
            yield name, None
            self._take(name, there)

    def _share(self, name: bytes, events: list[_Event], there: bytes | None, owner: bytes | None) -> Iterator[Edit]:
        """A path that datums of equal content may have together."""
        gone = {event.key for event in events if event.rank == _LEAVES}
        prefix = name + SEPARATOR
        places = dict(self._old_p.prefix(prefix)) if owner is not None else {}
        first = owner
        edits: dict[bytes, bytes | None] = {prefix + key: None for key in gone if prefix + key in places}
        stay = sorted(place for place in places if place not in edits)
        if owner is not None and _decode_p(owner)[0] in gone:
            first = places[stay[0]] if stay else None
            if stay:
                edits[stay.pop(0)] = None
        value = there if first is not None else None
        for event in events:
            if event.rank == _LEAVES:
                continue
            if first is None and (owner is not None or there is None):
                first, value = _encode((event.key, event.origin)), event.value
            elif first is None or value != event.value:
                self.conflict = _clash(name, name, event.key, _decode_p(first)[0] if first is not None else None)
                return
            elif _decode_p(first)[0] == event.key:
                first = _encode((event.key, event.origin))
            else:
                edits[prefix + event.key] = _encode((event.key, event.origin))
        edits[name] = first
        if first is None:
            self._take(name, there)
        elif value is not None:
            self._put(name, _decode_p(first)[0], value, there)
        yield from sorted(edits.items())

    def _put(self, name: bytes, key: bytes, value: bytes, before: bytes | None) -> None:
        self.size_change += decode_value(value).size - (decode_value(before).size if before is not None else 0)
        self.out.add(name, value)
        while self._above and not name.startswith(self._above[-1][0]):
            self._above.pop()
        for path, other in self._above:
            if name[len(path)] == _SLASH:
                self.conflict = _clash(name, path, key, other)
        self._above.append((name, key))
        if before is None and not self._fresh:
            self._new_names.add(name, key)

    def _take(self, name: bytes, before: bytes | None) -> None:
        if before is not None:
            self.size_change -= decode_value(before).size
        self.out.add(name, b"")

    def check_folders(self, p: Tree) -> None:
        """Find a file where another datum has a folder, given the new P: of what is new, beside what was there."""
        fine: set[bytes] = set()
        empty: tuple[bytes, bool] = (b"", False)
        for name, key in self._new_names:
            at = name.rfind(b"/")
            parent = name[: at + 1]
            if parent != empty[0] or not parent:
                fine = set()
                empty = (parent, next(self._old_p.prefix(parent), None) is None)
            while at > 0 and (folder := name[:at]) not in fine:
                owner = p.get(folder)
                if owner is not None:
                    self.conflict = _clash(name, folder, key, _decode_p(owner)[0])
                    return
                fine.add(folder)
                at = name.rfind(b"/", 0, at)
            # Where its folder was empty it was none; what else is new was compared already.
            for below, raw in () if empty[1] else p.prefix(name + b"/"):
                if SEPARATOR not in below:
                    self.conflict = _clash(name, below, key, _decode_p(raw)[0])
                    return

    def close(self) -> None:
        """Give back what was sorted."""
        for records in (self._events, self._new_names, self.out):
            records.close()


_SLASH = ord("/")


def _clash(path: bytes, other_path: bytes, key: bytes, other_key: bytes | None) -> Conflict:
    return Conflict(path.decode(), other_path.decode(), key, other_key)


_Change = tuple[bytes, int, Drop | Hit | Finished]
"""Datum key, rank, what becomes of it."""


def _whole_batches(changes: Iterator[_Change]) -> Iterator[list[_Change]]:
    """Yield what has to be done, some together; what has to be done to one datum is never parted."""
    batch: list[_Change] = []
    while more := list(itertools.islice(changes, _TOGETHER)):
        batch += more
        last = batch[-1][0]
        # What there may be more of waits for the next.
        whole = len(batch)
        while whole and batch[whole - 1][0] == last:
            whole -= 1
        if whole:
            yield batch[:whole]
        batch = batch[whole:]
    if batch:
        yield batch


class _Datums:
    """What a job does, datum by datum: edits of T; what leaves T goes to S, what comes and goes to paths."""

    def __init__(self, t: Tree, out: Tree, paths: _Paths, job: str, *, by_content: bool) -> None:
        self._t = t
        self._out = out
        self._paths = paths
        self._origin = bytes.fromhex(job)
        self._by_content = by_content
        self.s = SortedRecords()
        """Edits of S, empty for what goes; of equal keys the last counts."""
        self._origins: dict[bytes, int] = {}
        self.removed = 0
        self.run = self.finished = 0
        self.failures = _Failures()

    def edits(
        self,
        drops: Iterable[Drop],
        hits: Iterable[Hit],
        rows: Iterable[tuple[bytes, Finished, str]],
        lost: Mapping[bytes, bytes],
    ) -> Iterator[Edit]:
        """Yield the edits of T, sorted; what they are made of has to be sorted, too."""
        merged: Iterator[_Change] = heapq.merge(
            ((drop.key, _LEAVES, drop) for drop in drops),
            ((hit.key, _KNOWN, hit) for hit in hits),
            ((key, _MADE, row) for key, row, _ in rows),
        )
        waiting: bytes | None = None
        """Key of a datum that left, if nothing took its place so far."""
        for batch in _whole_batches(merged):
            old = self._leaving([item for _, _, item in batch if isinstance(item, Drop)])
            edits: dict[bytes, bytes | None] = {}
            for key, rank, item in batch:
                if waiting is not None and key != waiting:
                    self.removed += waiting not in lost
                    waiting = None
                if isinstance(item, Drop):
                    waiting = key
                    if key in old:
                        edits[key] = None
                        self._leave(item, *old[key])
                    continue
                waiting = None
                if isinstance(item, Hit):
                    if not self._by_content:
                        self.s.add(key + item.fingerprint, b"")
                    edits[key] = self._come(rank, key, item.origin, item.outputs)
                    continue
                self.finished += 1
                if item.outcome != Outcome.OK:
                    self.failures.add(key, item)
                    continue
                self.run += 1
                origin = self._origin
                if self._by_content:
                    self.s.add(item.fingerprint, _encode((origin, list(item.outputs))))
                edits[key] = self._come(rank, key, origin, item.outputs)
            yield from edits.items()
        if waiting is not None:
            self.removed += waiting not in lost

    def _leaving(self, drops: Sequence[Drop]) -> dict[bytes, tuple[bytes, list[tuple[str, bytes]]]]:
        """(job that made it, outputs) of those that T has."""
        known = [
            (drop.key, *_decode_t(raw))
            for drop, raw in zip(drops, self._t.get_many([drop.key for drop in drops]), strict=True)
            if raw is not None
        ]
        # Together and sorted: one by one, each path would cost a way down the tree.
        names = sorted({path.encode() for _, paths, _ in known for path in paths})
        values = dict(zip(names, self._out.get_many(names), strict=True))
        return {
            key: (made_by, [(path, value) for path in paths if (value := values[path.encode()]) is not None])
            for key, paths, made_by in known
        }

    def _leave(self, drop: Drop, made_by: bytes, outputs: list[tuple[str, bytes]]) -> None:
        self.s.add(memo_key(drop.key, drop.old_fingerprint, self._by_content), _encode((made_by, outputs)))
        self._count(made_by, -1)
        for path, _ in outputs:
            self._paths.note(_LEAVES, path, drop.key, made_by, b"")

    def _come(self, rank: int, key: bytes, origin: bytes, outputs: Iterable[tuple[str, bytes]]) -> bytes:
        paths = []
        for path, value in outputs:
            paths.append(path)
            self._paths.note(rank, path, key, origin, value)
        self._count(origin, 1)
        return _encode((paths, origin))

    def _count(self, origin: bytes, change: int) -> None:
        self._origins[origin] = self._origins.get(origin, 0) + change

    def origins(self) -> dict[str, int]:
        """By how much the number of live datums changed, per job that computed them."""
        return {origin.hex(): change for origin, change in self._origins.items() if change}


def fold_results(
    context: Context,
    open_tree: Callable[[str], Tree],
    *,
    job: str,
    inputs: Mapping[str, str],
    order: tuple[str, ...],
    total: int,
    changes: int,
    drops: Iterable[Drop],
    hits: Iterable[Hit],
    rows: Iterable[tuple[bytes, Finished, str]],
    lost: Mapping[bytes, bytes],
    publish: bool,
    metadata: Mapping[str, bytes],
    describe: Callable[[bytes], str],
    by_content: bool = False,
) -> Folded:
    """Work what a job found and computed into its context.

    Parameters
    ----------
    context
        The record of K before the job (an empty one if K is new).
    job
        This job's id, the origin of `rows`.
    inputs, order
        What T will have been computed for.
    total
        All datums of the new inputs.
    changes
        How many `drops`, `hits` and `rows` there are, roughly.
    drops, hits
        From the plan, sorted by key.
    rows
        Finished datums sorted by key. Iterated again if outputs clash.
    lost
        Datum key to fingerprint of datums that were given up without a row.
    publish
        Whether failures are within bounds: else T, P and out stay and the successes go to S.
    metadata
        Path to value of outputs that belong to the job, not to a datum.
    describe
        Names a datum's input for people.
    by_content
        Of the pipeline: S has the fingerprint alone as its key and keeps what is in T; datums of equal content may
        write one path.

    Returns
    -------
    Folded
        With `conflict` set, nothing may be published.

    Notes
    -----
    Reads and writes O(changed datums x height) nodes, at most all of them once. Memory does not grow with the number of
    datums (but for those that failed): what has another order than the datums' is sorted in files.
    """
    origin = bytes.fromhex(job)
    out = open_tree(context.out)
    t, p, s, f = (open_tree(root) for root in (context.t, context.p, context.s, context.f))
    conflict: Conflict | None = None
    if publish:
        paths = _Paths(out, p, shared=by_content)
        datums = _Datums(t, out, paths, job, by_content=by_content)
        try:
            new_t = t.updated(datums.edits(drops, hits, rows, lost), changes)
            new_p = p.updated(paths.edits(), paths.about)
            if paths.conflict is None:
                paths.check_folders(new_p)
            if paths.conflict is None:
                new_out = out.updated(_with_metadata(paths.out, open_tree(context.metadata), metadata), len(paths.out))
                failures = datums.failures
                failures.add_lost(lost)
                new = Context(
                    inputs=dict(inputs),
                    order=order,
                    out=new_out.root.hex(),
                    t=_hex(new_t),
                    p=_hex(new_p),
                    s=_hex(s.updated(_last_of_each(datums.s), len(datums.s))),
                    f=_hex(open_tree("").update(failures.reasons())),
                    job=job,
                    size=context.size + paths.size_change,
                    metadata=_hex(open_tree("").update(sorted((k.encode(), v) for k, v in metadata.items()))),
                )
                counters = failures.counters(total, datums.run, datums.finished, lost)
                counters = msgspec.structs.replace(counters, removed=datums.removed)
                return Folded(
                    new, new_out, counters, failures.groups(describe), failures.failed, None, datums.origins()
                )
            conflict = paths.conflict
        finally:
            paths.close()
            datums.s.close()
    kept = SortedRecords()
    failures = _Failures()
    run = finished = 0
    for key, row, _ in rows:
        finished += 1
        if row.outcome == Outcome.OK:
            run += 1
            kept.add(memo_key(key, row.fingerprint, by_content), _encode((origin, list(row.outputs))))
        else:
            failures.add(key, row)
    failures.add_lost(lost)
    after = msgspec.structs.replace(
        context,
        order=context.order or order,
        s=_hex(s.updated(_last_of_each(kept), len(kept))),
        f=_hex(f.update(failures.reasons())),
    )
    kept.close()
    counters = failures.counters(total, run, finished, lost)
    return Folded(after, out, counters, failures.groups(describe), failures.failed, conflict)


def _hex(tree: Tree) -> str:
    return "" if tree.is_empty() else tree.root.hex()


def _last_of_each(records: SortedRecords) -> Iterator[Edit]:
    """Edits of records, of which the last with a key counts; an empty value removes."""
    for key, group in itertools.groupby(records, key=itemgetter(0)):
        *_, (_, value) = group
        yield key, value or None


def _with_metadata(edits: SortedRecords, before: Tree, now: Mapping[str, bytes]) -> Iterator[Edit]:
    """Edits of out, with what belongs to the job and to no datum in place of what did."""
    own: dict[bytes, bytes | None] = {key: None for key, _ in before.scan()}
    own |= {path.encode(): value for path, value in now.items()}
    theirs = ((path, value or None) for path, value in edits if path not in own)
    return heapq.merge(theirs, sorted(own.items()), key=itemgetter(0))


class _Failures:
    """Datums that failed or recovered, and why."""

    def __init__(self) -> None:
        self.failed: dict[bytes, str] = {}
        self._rows = 0
        self._recovered = 0
        self._groups: dict[tuple[str, str], tuple[Failure, int, bytes, bytes]] = {}
        """Kind and place to the first failure, how many, and the first datum's key and fingerprint."""

    def add(self, key: bytes, row: Finished) -> None:
        """Take a finished datum that is no success."""
        failure = row.failure or Failure("unknown", "no cause was recorded")
        self.failed[key] = f"{failure.kind}: {failure.message}".splitlines()[0][:200]
        if row.outcome == Outcome.FAILED:
            self._rows += 1
            self._group(failure, key, row.fingerprint)
        else:
            self._recovered += row.outcome == Outcome.RECOVERED

    def add_lost(self, lost: Mapping[bytes, bytes]) -> None:
        """Take datums that were given up."""
        failure = Failure("lost", "five workers were lost while they computed this datum alone")
        for key, fingerprint in lost.items():
            self.failed[key] = f"{failure.kind}: {failure.message}"
            self._group(failure, key, fingerprint)

    def _group(self, failure: Failure, key: bytes, fingerprint: bytes) -> None:
        # Messages name the file or the value at hand; failures of one cause share the kind and the place.
        cause = (failure.kind, failure.where or failure.message)
        first, count, its_key, its_fingerprint = self._groups.get(cause, (failure, 0, key, fingerprint))
        self._groups[cause] = (first, count + 1, its_key, its_fingerprint)

    def groups(self, describe: Callable[[bytes], str]) -> tuple[FailureGroup, ...]:
        """By cause, most frequent first."""
        found = [
            FailureGroup(failure=failure, count=count, datum=datum_id(fingerprint), path=describe(key))
            for failure, count, key, fingerprint in self._groups.values()
        ]
        return tuple(sorted(found, key=lambda group: (-group.count, group.path))[:MAX_FAILURE_GROUPS])

    def reasons(self) -> list[Edit]:
        """Edits of F."""
        return sorted((key, reason.encode()) for key, reason in self.failed.items())

    def counters(self, total: int, run: int, finished: int, lost: Mapping[bytes, bytes]) -> Counters:
        """Datums by what became of them."""
        return Counters(
            total=total,
            run=run,
            skipped=max(0, total - finished - len(lost)),
            failed=self._rows + len(lost),
            recovered=self._recovered,
        )
