"""A child that loads a job's transform: waited for until it is ready, or cannot be."""

from __future__ import annotations

from collections.abc import Callable

from ...storage.objects.segment import Failure
from ..child.failure import UserFrames, located, timeout_failure
from ..child.wire import Ready, SetupFailed
from .failures import memory_failure
from .job_work import JobWork
from .slot import Slot
from .slot_child import SlotChild

LOADING_MIN_S = 600.0
"""With a timeout set: what importing and loading a model may take at least."""
WATCH_S = 0.1
"""How often to look at the memory of a child that has a limit, and at the length of its log."""


class NotLoadedError(Exception):
    """The transform cannot be loaded; the child was ended."""

    def __init__(self, failure: Failure, log: bytes) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.log = log


def watch(child: SlotChild, job: JobWork) -> Failure | None:
    """Keep the child's log short; return what is wrong if it holds more memory than its job may."""
    child.bound_log()
    limit = job.spec.memory_bytes
    if not limit:
        return None
    used = child.memory_bytes()
    return memory_failure(used, limit) if used > limit else None


def set_up(slot: Slot, job: JobWork, frames: UserFrames, *, notice: Callable[[str], None]) -> bool:
    """Load the transform in the slot's child; False if the job was cancelled meanwhile.

    Parameters
    ----------
    notice
        Is told what people should know once.

    Raises
    ------
    NotLoadedError
        It cannot be loaded.
    ChildDiedError
        The child ended.
    """
    child = slot.set_up(job)
    limit = job.spec.timeout_s
    deadline = slot.now() + max(limit, LOADING_MIN_S) if limit else None
    while True:
        patience = WATCH_S if deadline is None else min(WATCH_S, deadline - slot.now())
        message = child.receive(max(0.0, patience))
        slot.drain_wake()
        if job.cancelled.is_set():
            slot.end_child()
            return False
        if message is None and (failure := watch(child, job)) is not None:
            died = slot.end_child()
            raise NotLoadedError(failure, died.log if died else b"")
        match message.body if message else None:
            case Ready(notice=text):
                if text:
                    notice(text)
                return True
            case SetupFailed(failure=failure, log=log):
                slot.end_child()
                raise NotLoadedError(failure, log)
        if deadline is not None and slot.now() >= deadline:
            died = slot.end_child(ask_where=True)
            log = died.log if died else b""
            raise NotLoadedError(located(timeout_failure(max(limit, LOADING_MIN_S)), log, frames), log)
