"""From a plan and its results to the next context: the trees `out`, `T`, `P`, `S`, `F` (docs/format.md).

Pure over trees: reads and writes nodes, decides nothing about branches. What is not touched is not read: the cost
follows the datums that ran, were found, or left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from ...storage.objects.segment import Failure, Outcome
from ...storage.objects.value import decode_value
from ...storage.records import Context, Counters
from ...storage.trees.prolly import Tree
from ..planning.datums import SEPARATOR
from ..planning.plan import Drop, Hit, memo_key
from ..report import FailureGroup
from .results import MAX_FAILURE_GROUPS, Finished, datum_id

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


class _Outputs:
    """Edits of T, P and out, with the checks that two datums do not meet."""

    def __init__(self, out: Tree, p: Tree, *, shared: bool) -> None:
        self._out = out
        self._p = p
        self._shared = shared
        """Datums of equal content may share their outputs: P then holds (path, NUL, datum key) for all but one."""
        self.t: dict[bytes, bytes | None] = {}
        self.p: dict[bytes, bytes | None] = {}
        self.out: dict[bytes, bytes | None] = {}
        self.owner: dict[str, bytes] = {}
        self._left: dict[bytes, bytes | None] = {}
        """Outputs of the datums that were taken out."""
        self.conflict: Conflict | None = None
        self.size_change = 0
        self._fresh = out.is_empty()

    def drop_all(self, datums: Iterable[tuple[bytes, list[str]]]) -> Iterator[list[tuple[str, bytes]]]:
        """Take datums out; yield the outputs of each."""
        given = list(datums)
        # Together and sorted: one by one, each path would cost a way down the tree.
        order = sorted({path.encode() for _, paths in given for path in paths})
        self._left = dict(zip(order, self._out.get_many(order), strict=True))
        for key, paths in given:
            yield self._drop(key, paths)

    def _drop(self, key: bytes, paths: list[str]) -> list[tuple[str, bytes]]:
        self.t[key] = None
        outputs = []
        for path in paths:
            name = path.encode()
            value = self._left[name]
            if value is not None:
                outputs.append((path, value))
            if self._shared and self._leave(name, key):
                continue
            self.p[name] = None
            self.out[name] = None
            if value is not None:
                self.size_change -= decode_value(value).size
        return outputs

    def _leave(self, name: bytes, key: bytes) -> bool:
        """Take a datum off an output that others have, too; return whether it stays."""
        mine = name + SEPARATOR + key
        if self._get_p(mine) is not None:
            self.p[mine] = None
            return True
        for place, raw in self._p.prefix(name + SEPARATOR):
            if self.p.get(place, raw) is not None:
                self.p[name], self.p[place] = raw, None
                return True
        return False

    def _get_p(self, place: bytes) -> bytes | None:
        return self.p[place] if place in self.p else self._p.get(place)

    def _join(self, name: bytes, key: bytes, origin: bytes, value: bytes) -> bool:
        """Let a datum share an output that is there with equal content; return whether it is."""
        owner = self._get_p(name)
        there = self.out[name] if name in self.out else self._out.get(name)
        if owner is None or there != value or _decode_p(owner)[0] == key:
            return False
        self.p[name + SEPARATOR + key] = _encode((key, origin))
        return True

    def add(self, key: bytes, origin: bytes, outputs: Iterable[tuple[str, bytes]]) -> None:
        """Put a datum's outputs in."""
        paths = []
        for path, value in outputs:
            name = path.encode()
            paths.append(path)
            if self._shared and self._join(name, key, origin, value):
                continue
            other = self.owner.get(path)
            if other is None and not self._fresh:
                owner = self._get_p(name)
                if owner is not None:
                    other = _decode_p(owner)[0]
                elif name not in self.p and self._out.get(name) is not None:
                    self.conflict = self.conflict or Conflict(path, path, key, None)
            if other is not None and other != key:
                self.conflict = self.conflict or Conflict(path, path, key, other)
            self.owner[path] = key
            self.p[name] = _encode((key, origin))
            self.out[name] = value
            self.size_change += decode_value(value).size
        self.t[key] = _encode((paths, origin))

    def check_folders(self) -> None:
        """Find a file where another datum needs a folder."""
        fine: set[str] = set()
        for path, key in self.owner.items():
            if self.conflict is not None:
                return
            at = path.rfind("/")
            while at > 0 and (folder := path[:at]) not in fine:
                other = self.owner.get(folder)
                if other is None and not self._fresh and self.out.get(folder.encode(), b"") is not None:
                    owner = self._p.get(folder.encode())
                    other = _decode_p(owner)[0] if owner is not None else None
                if other is not None:
                    self.conflict = Conflict(path, folder, key, other)
                    return
                fine.add(folder)
                at = path.rfind("/", 0, at)
            # Where a file stood there was no folder, and who makes one now has looked up, above.
            if not self._fresh and path.encode() not in self._left:
                for below, raw in self._p.prefix(path.encode() + b"/"):
                    if SEPARATOR not in below and self.out.get(below, b"") is not None:
                        self.conflict = Conflict(path, below.decode(), key, _decode_p(raw)[0])
                        return


def fold_results(
    context: Context,
    open_tree: Callable[[str], Tree],
    *,
    job: str,
    inputs: Mapping[str, str],
    order: tuple[str, ...],
    total: int,
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
    drops, hits
        From the plan.
    rows
        Finished datums sorted by key.
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
    Reads and writes O(changed datums x height) nodes; memory O(changed datums).
    """
    hits = list(hits)
    drops = list(drops)
    done = list(rows)
    failures, failed = _failures(done, lost, describe)
    ok = [(key, row) for key, row, _ in done if row.outcome == Outcome.OK]
    recovered = sum(1 for _, row, _ in done if row.outcome == Outcome.RECOVERED)
    n_failed = sum(1 for _, row, _ in done if row.outcome == Outcome.FAILED) + len(lost)
    counters = Counters(
        total=total,
        run=len(ok),
        skipped=max(0, total - len(done) - len(lost)),
        failed=n_failed,
        recovered=recovered,
    )
    origin = bytes.fromhex(job)
    out = open_tree(context.out)
    t, p, s, f = (open_tree(root) for root in (context.t, context.p, context.s, context.f))

    if publish:
        outputs = _Outputs(out, p, shared=by_content)
        s_edits: dict[bytes, bytes | None] = {}
        origins: dict[str, int] = {}
        removed = {drop.key for drop in drops}
        known = [
            (drop, *_decode_t(raw))
            for drop, raw in zip(drops, t.get_many([drop.key for drop in drops]), strict=True)
            if raw is not None
        ]
        left = outputs.drop_all((drop.key, paths) for drop, paths, _ in known)
        for (drop, _, made_by), made in zip(known, left, strict=True):
            s_edits[memo_key(drop.key, drop.old_fingerprint, by_content)] = _encode((made_by, made))
            origins[made_by.hex()] = origins.get(made_by.hex(), 0) - 1
        for hit in hits:
            if not by_content:
                s_edits[hit.key + hit.fingerprint] = None
            outputs.add(hit.key, hit.origin, hit.outputs)
            origins[hit.origin.hex()] = origins.get(hit.origin.hex(), 0) + 1
        for key, row in ok:
            outputs.add(key, origin, row.outputs)
            if by_content:
                s_edits[row.fingerprint] = _encode((origin, list(row.outputs)))
        if ok:
            origins[job] = origins.get(job, 0) + len(ok)
        outputs.check_folders()
        if outputs.conflict is None:
            removed -= {hit.key for hit in hits} | {key for key, _, _ in done} | set(lost)
            extra = _metadata_edits(open_tree(context.metadata), metadata)
            new_out = out.update(sorted({**outputs.out, **extra}.items()))
            new = Context(
                inputs=dict(inputs),
                order=order,
                out=new_out.root.hex(),
                t=_hex(t.update(sorted(outputs.t.items()))),
                p=_hex(p.update(sorted(outputs.p.items()))),
                s=_hex(s.update(sorted(s_edits.items()))),
                f=_hex(open_tree("").update(sorted((key, reason.encode()) for key, reason in failed.items()))),
                job=job,
                size=context.size + outputs.size_change,
                metadata=_hex(open_tree("").update(sorted((k.encode(), v) for k, v in metadata.items()))),
            )
            counters = msgspec.structs.replace(counters, removed=len(removed))
            return Folded(new, new_out, counters, failures, failed, None, origins)
        conflict: Conflict | None = outputs.conflict
    else:
        conflict = None
    kept = {memo_key(key, row.fingerprint, by_content): _encode((origin, list(row.outputs))) for key, row in ok}
    again = sorted((key, reason.encode()) for key, reason in failed.items())
    after = msgspec.structs.replace(
        context,
        order=context.order or order,
        s=_hex(s.update(sorted(kept.items()))),
        f=_hex(f.update(again)),
    )
    return Folded(after, out, counters, failures, failed, conflict)


def _hex(tree: Tree) -> str:
    return "" if tree.is_empty() else tree.root.hex()


def _metadata_edits(before: Tree, now: Mapping[str, bytes]) -> dict[bytes, bytes | None]:
    edits: dict[bytes, bytes | None] = {key: None for key, _ in before.scan()}
    edits |= {path.encode(): value for path, value in now.items()}
    return edits


def _failures(
    done: Iterable[tuple[bytes, Finished, str]], lost: Mapping[bytes, bytes], describe: Callable[[bytes], str]
) -> tuple[tuple[FailureGroup, ...], dict[bytes, str]]:
    groups: dict[tuple[str, str, str], FailureGroup] = {}
    failed: dict[bytes, str] = {}
    for key, row, _ in done:
        if row.outcome == Outcome.OK:
            continue
        failure = row.failure or Failure("unknown", "no cause was recorded")
        failed[key] = f"{failure.kind}: {failure.message}".splitlines()[0][:200]
        if row.outcome == Outcome.FAILED:
            _count(groups, failure, key, row.fingerprint, describe)
    for key, fingerprint in lost.items():
        failure = Failure("lost", "five workers were lost while they computed this datum alone")
        failed[key] = f"{failure.kind}: {failure.message}"
        _count(groups, failure, key, fingerprint, describe)
    ranked = sorted(groups.values(), key=lambda group: (-group.count, group.path))
    return tuple(ranked[:MAX_FAILURE_GROUPS]), failed


def _count(
    groups: dict[tuple[str, str, str], FailureGroup],
    failure: Failure,
    key: bytes,
    fingerprint: bytes,
    describe: Callable[[bytes], str],
) -> None:
    # Messages name the file or the value at hand; failures of one cause share the kind and the place.
    cause = (failure.kind, failure.where or failure.message, "")
    group = groups.get(cause)
    if group is None:
        groups[cause] = FailureGroup(failure=failure, count=1, datum=datum_id(fingerprint), path=describe(key))
    else:
        groups[cause] = msgspec.structs.replace(group, count=group.count + 1)
