"""A slot that runs leases one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from ..job import Datum
from .job_work import JobWork
from .lease_rows import LeaseReport
from .lease_run import LeaseRun
from .slot import Slot


class SlotWorker(Slot):
    """A slot: runs leases one after the other, keeping its child between them."""

    def run(
        self, job: JobWork, datums: Sequence[Datum], *, start: int, fold: int, lease: int, report: LeaseReport
    ) -> None:
        """Try every datum of a lease until it ended; rows go to the job's segment writer.

        Parameters
        ----------
        start
            Index of the first datum in its block.

        Raises
        ------
        ZygoteError
            No child can be started any more.
        BackendError
            Results cannot be stored.
        """
        seen = self._devices.acquire(self.number, job.spec.gpus, self._yield_devices)
        try:
            with self._busy:
                if seen != self._seen:
                    # What it was told of devices no longer holds.
                    self._child_job = None
                self._seen = seen
                LeaseRun(self, job, datums, start, fold, lease, report).run()
        finally:
            self._devices.release(seen)

    def _yield_devices(self) -> None:
        """End a child that holds devices which another slot was given. From that slot's thread."""
        with self._busy:
            if self._seen:
                self.end_child()
                self._seen = ()
