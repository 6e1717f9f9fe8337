"""Who drives a store: one controller at a time, told apart by epochs in the ledger.

A controller takes the next epoch with its first entry; every record of it carries that number, and the fold ignores
smaller ones. So a controller that was paused, and woken after another took over, can publish nothing. Whether the
holder of an epoch still lives is decided on one host by its process, elsewhere by its heartbeat object not changing
for `SILENCE_S` of the observer's own clock.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from ...storage.actor import host_name
from ...storage.backend import Backend
from ...storage.errors import BackendError, NotFoundError
from ...storage.host import boot_id, process_start
from ...storage.records import ControllerState, ControllerTake
from ..report import JobAdvanced

HEARTBEAT_KEY = "controller/heartbeat.json"
BEAT_EVERY_S = 3.0
LOCAL_BEAT_S = 1.0
SILENCE_S = 15.0

_driving: set[tuple[str, int]] = set()
"""(store, epoch) of controllers alive in this process: a thread cannot be told from a corpse by its pid."""


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """What the heartbeat object says."""

    epoch: int
    beat: int
    jobs: tuple[JobAdvanced, ...] = ()
    """Where the jobs under way stand, for `status` in another terminal; nobody decides anything by it."""


def take(last: ControllerState | None, kind: str) -> ControllerTake:
    """Return the record with which this process takes the next epoch."""
    return ControllerTake(
        epoch=(last.epoch if last else 0) + 1,
        host=host_name(),
        boot=boot_id(),
        pid=os.getpid(),
        started=process_start(os.getpid()) or "",
        kind=kind,
    )


def is_alive(
    holder: ControllerState | None,
    backend: Backend,
    *,
    silence_s: float = SILENCE_S,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> bool:
    """Whether the controller that took the last epoch may still be working.

    Notes
    -----
    Answers at once for a holder of this host and boot. For another host it watches the heartbeat for up to
    `silence_s` seconds.
    """
    if holder is None or holder.ended:
        return False
    if holder.host == host_name() and holder.boot == boot_id():
        started = process_start(holder.pid)
        if holder.pid == os.getpid() and started == holder.started:
            return (backend.url, holder.epoch) in _driving
        if started != "" or not holder.started:
            return started == holder.started
        # Another user's, of whom this system tells no more: its heartbeat does.
    seen = _read_beat(backend)
    until = clock() + silence_s
    while clock() < until:
        pause(min(1.0, silence_s / 5))
        now = _read_beat(backend)
        if now is not None and now.epoch == holder.epoch and now != seen:
            return True
    return False


def progress_of(backend: Backend, epoch: int) -> dict[str, JobAdvanced]:
    """Where the jobs of the controller of `epoch` stood at its last beat, by id; empty if that is not known."""
    beat = _read_beat(backend)
    return {} if beat is None or beat.epoch != epoch else {job.job: job for job in beat.jobs}


def _read_beat(backend: Backend) -> Beat | None:
    try:
        return msgspec.json.decode(backend.get(HEARTBEAT_KEY), type=Beat)
    except (NotFoundError, msgspec.DecodeError):
        return None


class Heartbeat:
    """Says "alive" while a controller drives: a thread that rewrites one small object."""

    def __init__(self, backend: Backend, epoch: int) -> None:
        self._backend = backend
        self._epoch = epoch
        self._jobs: dict[str, JobAdvanced] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="dmlpipe-heartbeat", daemon=True)
        _driving.add((backend.url, epoch))
        self._thread.start()

    def _beat(self) -> None:
        beat = 0
        # A file costs nothing: somebody may watch.
        while not self._stop.wait(BEAT_EVERY_S if self._backend.properties.remote else min(BEAT_EVERY_S, LOCAL_BEAT_S)):
            beat += 1
            said = Beat(epoch=self._epoch, beat=beat, jobs=tuple(self._jobs.values()))
            try:
                self._backend.put(HEARTBEAT_KEY, msgspec.json.encode(said))
            except BackendError:
                # A store that is away for a while must not end the controller; if it stays away, another takes over.
                continue

    def tell(self, jobs: Sequence[JobAdvanced]) -> None:
        """Let the next beat say where the jobs under way stand."""
        self._jobs = {job.job: job for job in jobs}

    def close(self) -> None:
        """Stop. Idempotent."""
        self._stop.set()
        self._thread.join()
        _driving.discard((self._backend.url, self._epoch))
