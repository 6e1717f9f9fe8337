"""What dropped commits, retention rules and sweeps do to the state."""

from __future__ import annotations

import msgspec

from .. import records as r
from ..errors import ConflictError
from .needs import need_commit, need_repo
from .scratch import Scratch, add_content
from .view import down, up


def fold_space(s: Scratch, record: r.CommitDrop | r.KeepSet | r.GcSweep | r.GcDone, entry: r.Entry) -> None:
    """Commits go, rules of what stays change, a sweep begins or ends."""
    match record:
        case r.CommitDrop():
            _fold_drop(s, record, entry)
        case r.KeepSet():
            need_repo(s, record.repo)
            if record.last or record.days:
                s.put(f"keep/{record.repo}", record)
            else:
                s.drop(f"keep/{record.repo}")
        case r.GcSweep():
            for n, index in record.drop_indexes:
                key = f"index/{down(n)}/{index}"
                if s.get(key.encode()) is None:
                    raise ConflictError(f"{index} is not an index of entry {n}")
                s.drop(key)
            for pack in record.drop_packs:
                s.put_text(f"dead/{pack}", "")
            add_content(s, entry, record.packs, record.index)
            s.put(f"sweep/{up(entry.n)}", r.SweepState(list=record.list, token=record.token, time=entry.ts))
        case r.GcDone():
            key = f"sweep/{up(record.sweep)}"
            sweep = s._value(key, r.SweepState)
            if sweep is None or not sweep.open:
                raise ConflictError(f"there is no open sweep in entry {record.sweep}")
            s.put(key, msgspec.structs.replace(sweep, open=False))


def _fold_drop(s: Scratch, record: r.CommitDrop, entry: r.Entry) -> None:
    kept = {(record.repo, commit) for commit in (*s.branches(record.repo).values(), *s.tags(record.repo).values())}
    kept |= s.pinned()
    for commit in record.commits:
        need_commit(s, record.repo, commit.id)
        if (record.repo, commit.id) in kept:
            raise ConflictError(f"commit {commit.id[:12]} of {record.repo!r} is in use: a head, tagged, held or run on")
        s.drop(f"commit/{record.repo}/{commit.id}")
        s.put(f"drop/{record.repo}/{commit.id}", r.DropState(n=entry.n, parents=commit.parents, why=record.why))
    gone = {commit.id for commit in record.commits}
    for key, head in list(s._names(f"hist/{record.repo}/", r.HeadState)):
        if head.commit in gone:
            s.drop(f"hist/{record.repo}/{key}")
