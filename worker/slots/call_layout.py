"""Laying out the calls of one lease: many together, again when the store fails, fewer when the disk is full."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ...storage.errors import BackendError, DmlpipeError, ErrorCode
from ..job import Datum
from .attempts import Call
from .job_work import JobWork
from .prepared import Prepared
from .slot import Slot

logger = logging.getLogger(__name__)

FRAME_MAX_FOLDERS = 32
"""Calls laid out here in one frame: twice as many folders are made when a job begins, and removed in the end."""
FRAME_MAX_BYTES = 4 << 20
"""Content in one frame that the child lays out: two frames are in memory, here and there."""
_BATCH_BY_CHILD_MAX = 32
"""A child holds three descriptors or more for each datum of a call; it may have a thousand."""


class CallLayout:
    """Lays out the calls of one lease.

    Parameters
    ----------
    stopping
        Whether nothing need be tried again.
    refused
        Handles a call whose inputs are not to be had.
    """

    def __init__(
        self,
        slot: Slot,
        job: JobWork,
        datums: Sequence[Datum],
        *,
        stopping: Callable[[], bool],
        refused: Callable[[Call, DmlpipeError], None],
    ) -> None:
        self._slot = slot
        self._job = job
        self._datums = datums
        self._stopping = stopping
        self._refused = refused
        self._ahead = slot.ahead_of(datums)
        self.cramped = False
        """The inputs of one frame did not fit on the disk: from then on one call is laid out at a time."""
        self.no_room = False
        """Nothing more can be laid out until a call has ended and its inputs are removed."""
        self.by_child = job.spec.batch <= _BATCH_BY_CHILD_MAX
        """The child lays out what it can; until it says that it cannot."""

    def share(self, call: Call) -> float:
        """Return how much of what a frame may hold a call takes: folders made here, or content that travels."""
        inputs = self._job.inputs
        if not inputs.in_folders:
            return 0.0
        travels = 0
        for index in call.indexes:
            size = inputs.left_bytes(self._datums[index]) if self.by_child else None
            if size is None:
                return 1.0 / FRAME_MAX_FOLDERS
            travels += size
        return travels / FRAME_MAX_BYTES

    def lay_out(self, calls: Sequence[Call], *, others: bool) -> list[list[Prepared] | None]:
        """Lay out calls together; one by one if that fails, to find the datum whose input is not to be had.

        Parameters
        ----------
        others
            The inputs of other calls are laid out: where the disk is full, these wait for their room.

        Returns
        -------
        list of (list of Prepared, or None)
            Of the first calls, in order: what was laid out, or None where the call cannot be made. It is shorter than
            `calls` where the disk is full of the inputs of those that are laid out: the others wait for them.
        """
        self._ahead.reached(max((index for call in calls for index in call.indexes), default=0))
        try:
            return [*self._lay_out(calls)]
        except DmlpipeError as err:
            if len(calls) == 1:
                return [*self._not_laid_out(calls[0], err, others=others)]
        found: list[list[Prepared] | None] = []
        for call in calls:
            try:
                found += self._lay_out([call])
            except DmlpipeError as err:
                one = self._not_laid_out(call, err, others=others or any(found))
                if not one:
                    break
                found += one
        return found

    def _lay_out(self, calls: Sequence[Call]) -> list[list[Prepared]]:
        wanted = [(self._datums[index], call.attempt) for call in calls for index in call.indexes]
        prepared = iter(self._retrying(wanted))
        return [[next(prepared) for _ in call.indexes] for call in calls]

    def _not_laid_out(self, call: Call, err: DmlpipeError, *, others: bool) -> Sequence[None]:
        """Handle a call whose inputs are not to be had; empty if it is to wait for the room that others hold."""
        if err.code is ErrorCode.DISK_FULL and others:
            self.cramped = self.no_room = True
            return []
        self._refused(call, err)
        return [None]

    def _retrying(self, wanted: Sequence[tuple[Datum, int]]) -> list[Prepared]:
        for pause_s in (0.1, 1.0, 4.0):
            try:
                return self._slot.prepare(self._job, wanted, by_child=self.by_child)
            except BackendError as err:
                if not err.retryable or self._stopping():
                    raise
                logger.warning("reading inputs failed (%s); trying again in %g s", err, pause_s)
                self._job.cancelled.wait(pause_s)
        return self._slot.prepare(self._job, wanted, by_child=self.by_child)

    def close(self) -> None:
        """Fetch nothing ahead any more."""
        self._ahead.close()
