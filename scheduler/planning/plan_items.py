"""What a plan says of one datum: compute it, take its result from memory, let its result go, or wait for its twin."""

from __future__ import annotations

import dataclasses

from ...worker.job import Datum
from .reasons import Reason

__all__ = [
    "Drop",
    "Hit",
    "PlanItem",
    "Run",
    "Twin",
]


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """A datum to compute."""

    datum: Datum
    reason: Reason
    detail: str = ""
    """Of `INPUT_CHANGED`: the inputs' names; of `FAILED_BEFORE`: why; else as in `Why`."""

    @property
    def key(self) -> bytes:
        """Key of the datum."""
        return self.datum.key


@dataclasses.dataclass(frozen=True, slots=True)
class Hit:
    """A datum whose result is known; it moves from S to T."""

    key: bytes
    fingerprint: bytes
    origin: bytes
    """Job that computed it, 8 bytes."""
    outputs: tuple[tuple[str, bytes], ...]
    """(path, encoded value)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Drop:
    """A result that leaves T (and moves to S)."""

    key: bytes
    old_fingerprint: bytes
    gone: bool = False
    """Whether the inputs have no datum with that key any more; else its `Run` or `Hit` follows, or is finished."""


@dataclasses.dataclass(frozen=True, slots=True)
class Twin:
    """A datum of which another one of this job has the content: what becomes of that becomes of it."""

    key: bytes
    fingerprint: bytes
    """Of both."""


PlanItem = Run | Hit | Drop | Twin
