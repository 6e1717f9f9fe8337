"""Failures that a slot finds by itself: not user code raised, but what it did was seen."""

from __future__ import annotations

from ...storage.objects.segment import Failure


def memory_failure(used_bytes: int, limit_bytes: int) -> Failure:
    """The failure of a datum that was ended because it held too much memory."""
    return Failure(
        kind="memory",
        message=f"held {used_bytes / 2**20:,.0f} MiB, more than the {limit_bytes / 2**20:,.0f} MiB of memory=",
    )


def wrote_to_input(path: str) -> Failure:
    """The failure of a datum that changed what it was given."""
    return Failure(
        kind="dmlpipe",
        message=f"wrote to its input {path}: inputs are read-only, write to `out` or return files",
    )
