"""Errors of the scheduler layer.

::

    DmlpipeError
    ├── JobFailed                     a run ended with jobs that failed; `summary` says which
    └── ClusterError (RuntimeError)   processes of a cluster do not start, do not answer, or refuse
"""

from __future__ import annotations

from typing import Any

from ..storage.errors import DmlpipeError, ErrorCode
from .report import RunSummary

__all__ = ["ClusterError", "JobFailed"]


class JobFailed(DmlpipeError):  # noqa: N818 - the public name says what happened, as `JobFailed` in the API contract
    """A run ended with jobs that failed, were stopped or could not run.

    Attributes
    ----------
    summary
        What was done all the same.
    """

    default_code = ErrorCode.JOB_FAILED

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode | None = None,
        hint: str | None = None,
        summary: RunSummary | None = None,
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.summary = summary or RunSummary()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild_failed, (self.message, self.code, self.hint, self.summary))


def _rebuild_failed(message: str, code: ErrorCode, hint: str | None, summary: RunSummary) -> JobFailed:
    return JobFailed(message, code=code, hint=hint, summary=summary)


class ClusterError(DmlpipeError, RuntimeError):
    """Processes of a cluster do not start, do not answer, or refuse; their logs say more."""

    default_code = ErrorCode.CLUSTER
