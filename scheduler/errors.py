"""Errors of the scheduler layer.

::

    DmlpipeError
    └── ClusterError (RuntimeError)   processes of a cluster do not start, do not answer, or refuse
"""

from __future__ import annotations

from ..storage.errors import DmlpipeError, ErrorCode

__all__ = ["ClusterError"]


class ClusterError(DmlpipeError, RuntimeError):
    """Processes of a cluster do not start, do not answer, or refuse; their logs say more."""

    default_code = ErrorCode.CLUSTER
