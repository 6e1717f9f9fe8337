"""What each record of the ledger does to the state.

A function of the state and the entry alone. Writes go to a `Scratch`: an entry counts whole or not at all.
"""

from __future__ import annotations

import msgspec

from .. import records as r
from ..errors import ConflictError, ErrorCode, InvalidInputError, NotFoundError
from .branches import fold_commit, fold_ref, fold_trigger
from .needs import need_commit, need_job, need_repo
from .pipelines import fold_pipeline, fold_tick
from .scratch import Scratch, add_content
from .space import fold_space
from .work import fold_control, fold_job_end, fold_job_start


def fold_record(s: Scratch, record: r.Record, entry: r.Entry, entry_hash: str) -> None:
    """Do to a state what a record of an entry does.

    Raises
    ------
    DmlpipeError
        The record is invalid where it stands.
    """
    match record:
        case r.RepoCreate():
            if s.repo(record.repo) is not None:
                raise ConflictError(f"repo {record.repo!r} exists already", code=ErrorCode.EXISTS)
            s.put(
                f"repo/{record.repo}",
                r.RepoState(created=entry.n, time=entry.ts, description=record.description, pipeline=record.pipeline),
            )
        case r.RepoDelete():
            need_repo(s, record.repo)
            s.drop(f"repo/{record.repo}")
            for branch in s.branches(record.repo):
                s.drop(f"branch/{record.repo}/{branch}")
            for tag in s.tags(record.repo):
                s.drop(f"tag/{record.repo}/{tag}")
            for branch in s.triggers(record.repo):
                s.drop(f"trigger/{record.repo}/{branch}")
        case r.CommitMade():
            fold_commit(s, record, entry)
        case r.RefSet():
            fold_ref(s, record, entry, entry_hash)
        case r.TagSet():
            need_repo(s, record.repo)
            if record.commit:
                need_commit(s, record.repo, record.commit)
                s.put_text(f"tag/{record.repo}/{record.tag}", record.commit)
            else:
                s.drop(f"tag/{record.repo}/{record.tag}")
        case (
            r.PipelineSet()
            | r.PipelineDelete()
            | r.PipelineStop()
            | r.PipelineStart()
            | r.Hold()
            | r.Release()
            | r.Retry()
            | r.DatumsRetry()
        ):
            fold_pipeline(s, record, entry, entry_hash)
        case r.ControllerTake() | r.ControllerEnd() | r.RunStart() | r.RunDone():
            fold_control(s, record, entry)
        case r.JobStart() | r.JobUnrunnable():
            fold_job_start(s, record, entry)
        case r.JobDone() | r.JobFailed() | r.JobStopped():
            fold_job_end(s, record, entry)
        case r.JobStop():
            job = need_job(s, record.job)
            s.put(f"job/{record.job}", msgspec.structs.replace(job, stop=record.why))
        case r.EgressDone():
            if s.pipeline(record.pipeline) is None:
                raise NotFoundError(f"no pipeline {record.pipeline!r}", code=ErrorCode.NO_PIPELINE)
            state = r.EgressState(commit=record.commit, target=record.target, n=entry.n, time=entry.ts)
            s.put(f"egress/{record.pipeline}", state)
        case r.CommitDrop() | r.KeepSet() | r.GcSweep() | r.GcDone():
            fold_space(s, record, entry)
        case r.Tick():
            fold_tick(s, record)
        case r.TriggerSet() | r.TriggerTick():
            fold_trigger(s, record, entry, entry_hash)
        case r.Damage():
            for key in record.objects:
                s.put_text(f"damage/{key}", str(entry.n))
        case r.Repair():
            for key in record.objects:
                s.drop(f"damage/{key}")
            add_content(s, entry, record.packs, record.index)
        case r.Redact():
            raise InvalidInputError(
                f"record {record.__struct_config__.tag!r} is reserved in this format version", code=ErrorCode.FORMAT
            )
