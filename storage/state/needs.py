"""What must be there for a record to be valid, or the error that says that it is not."""

from __future__ import annotations

from .. import records as r
from ..errors import ErrorCode, HeldError, NotFoundError
from .view import StateView


def need_repo(s: StateView, repo: str) -> r.RepoState:
    """Return a repo, or raise that there is none."""
    found = s.repo(repo)
    if found is None:
        raise NotFoundError(f"no repo {repo!r}", code=ErrorCode.NO_REPO, hint="list: dmlpipe repo list")
    return found


def need_commit(s: StateView, repo: str, commit: str) -> r.CommitState:
    """Return a commit of a repo, or raise that there is none."""
    found = s.commit(repo, commit)
    if found is None:
        raise NotFoundError(f"no commit {commit[:12]} in repo {repo!r}", code=ErrorCode.NO_COMMIT)
    return found


def need_pipeline(s: StateView, name: str) -> r.PipelineState:
    """Return a pipeline, or raise that there is none."""
    found = s.pipeline(name)
    if found is None:
        raise NotFoundError(f"no pipeline {name!r}", code=ErrorCode.NO_PIPELINE, hint="list: dmlpipe pipeline list")
    return found


def need_job(s: StateView, job: str) -> r.JobState:
    """Return a job, or raise that there is none."""
    found = s.job(job)
    if found is None:
        raise NotFoundError(f"no job {job!r}", code=ErrorCode.NO_JOB, hint="list: dmlpipe job list")
    return found


def need_epoch(s: StateView, epoch: int) -> r.ControllerState:
    """Return the controller if it is of this epoch, or raise that another one has the store."""
    now = s.controller()
    if now is None or now.epoch != epoch:
        raise HeldError(f"epoch {epoch} has passed: the store is at epoch {now.epoch if now else 0}")
    return now
