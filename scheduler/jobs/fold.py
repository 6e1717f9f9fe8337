"""From a plan and its results to the next context: the trees `out`, `T`, `P`, `S`, `F` (docs/format.md).

Pure over trees: reads and writes nodes, decides nothing about branches. What is not touched is not read: the cost
follows the datums that ran, were found, or left. They go by in the order of their keys, in which T is made
(`datum_edits.py`); what they do to paths is sorted, and P and out are made from that (`path_edits.py`).
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter

import msgspec

from ...storage.objects.segment import Outcome
from ...storage.records import Context, Counters
from ...storage.trees.prolly import Tree
from ...storage.trees.tree_update import Edit
from ..planning.memory import memo_key
from ..planning.plan_items import Drop, Hit
from ..report import FailureGroup
from .datum_edits import DatumEdits
from .failures import Failures
from .path_edits import Conflict, PathEdits
from .results import Finished
from .sorting import SortedRecords

_encode = msgspec.msgpack.Encoder().encode


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
        paths = PathEdits(out, p, shared=by_content)
        datums = DatumEdits(t, out, paths, job, by_content=by_content)
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
    failures = Failures()
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
