"""A slot: its child, its folder, its devices, whoever runs leases there."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..child.commands import remove_container
from ..child.zygote import Zygote
from ..job import Datum
from .ahead import Ahead
from .devices import Devices
from .job_work import JobWork, WorkerStore, scratch_folder
from .materialize import Materializer
from .prepared import Prepared
from .slot_child import ChildDiedError, SlotChild


class Slot:
    """What a slot has: its child, kept between leases, and the folders that datums are laid out in.

    Parameters
    ----------
    number
        Of the slot.
    folder
        Private to the slot; made here.
    devices
        GPUs of the worker.
    clock
        Monotonic seconds, the child's clock.
    """

    def __init__(
        self,
        store: WorkerStore,
        zygote: Zygote,
        number: int,
        folder: Path,
        *,
        devices: Devices | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.number = number
        self._store = store
        self._zygote = zygote
        self._clock = clock
        self._folder = folder
        (folder / "d").mkdir(parents=True)
        self._scratch = scratch_folder(folder)
        self._materializer = Materializer(store, folder / "d")
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._devices = devices or Devices()
        self._seen: tuple[str, ...] = ()
        """Devices of the present lease."""
        self._busy = threading.Lock()
        self._child: SlotChild | None = None
        self._child_key: tuple[str, ...] = ()
        self._child_job: JobWork | None = None
        self._jobs = 0
        self._next_unit = 0
        self.seconds_per_unit = 0.0
        """Moving average of the present job's calls."""
        self.draining = threading.Event()
        self.recalled = -1
        """The last lease that somebody else wants to help with."""

    def recall(self, lease: int) -> None:
        """Let the slot give back what it need not begin of a lease, if it is at that one. From any thread."""
        self.recalled = lease
        self.wake()

    def wake(self) -> None:
        """Let the slot look at once whether its job was cancelled or the worker drains. From any thread."""
        try:
            os.write(self._wake_write, b"x")
        except BlockingIOError:
            pass  # it is full, so the slot will wake

    # --- the child ---

    def child_for(self, job: JobWork) -> SlotChild | None:
        """The child if it lives and is set up for this job."""
        return self._child if self._child_job is job else None

    def set_up(self, job: JobWork) -> SlotChild:
        """Return a child that was sent the job's setup; `Ready` or `SetupFailed` follows."""
        key = (*job.child_key, "devices", *self._seen)
        if self._child is None or self._child_key != key:
            self.end_child()
            command = job.command
            self._child = SlotChild(
                self._zygote.of(job.interpreter),
                self._folder,
                # A container program mounts by itself.
                namespace=command is not None and not command.container,
                users=command is not None and bool(command.user),
                wake=self._wake_read,
            )
            self._child_key = key
        self.seconds_per_unit = 0.0
        self._child_job = job
        devices = self._seen if self._devices.ids else None
        self._child.set_up(job.setup(self._scratch, devices, folders=self._folders_of_next_job()))
        return self._child

    def _folders_of_next_job(self) -> str:
        """Make and return where the child lays out the next job's datums: no path of another job leads there."""
        root = self._folder / "own"
        shutil.rmtree(root, ignore_errors=True)
        self._jobs += 1
        path = root / str(self._jobs)
        path.mkdir(parents=True)
        return str(path)

    def end_child(self, *, ask_where: bool = False) -> ChildDiedError | None:
        """End the child, if there is one; return how."""
        child, self._child = self._child, None
        job, self._child_job = self._child_job, None
        if child is None:
            return None
        died = child.end(ask_where=ask_where)
        if job is not None and job.command is not None:
            remove_container(job.command, self._scratch)
        # What a dead child left in its working directory is nobody's.
        shutil.rmtree(self._scratch, ignore_errors=True)
        shutil.rmtree(self._folder / "own", ignore_errors=True)
        scratch_folder(self._folder)
        return died

    def drain_wake(self) -> None:
        """Forget wake-ups."""
        try:
            while os.read(self._wake_read, 4096):
                pass
        except BlockingIOError:
            pass

    def number_unit(self) -> int:
        """A number for the next unit."""
        self._next_unit += 1
        return self._next_unit

    def prepare(self, job: JobWork, datums: Sequence[tuple[Datum, int]], *, by_child: bool) -> list[Prepared]:
        """Lay out datums, as far as that is not left to the child."""
        return self._materializer.prepare(job.inputs, datums, by_child=by_child)

    def ahead_of(self, datums: Sequence[Datum]) -> Ahead:
        """Begin to fetch what a lease's datums will need."""
        return Ahead(self._store, datums)

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock()

    def close(self) -> None:
        """End the child and delete the folder."""
        self.end_child()
        os.close(self._wake_read)
        os.close(self._wake_write)
        shutil.rmtree(self._folder, ignore_errors=True)
