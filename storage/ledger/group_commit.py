"""Group commit: records of many threads in one ledger entry.

An entry costs a durable write, or a request; the records in it cost next to nothing. Threads that append while another
one's entry is being written wait for it, and then go together into the next.

Each caller's records are made from, and valid on, a state that has the records of those before it in the entry. A
caller whose records are not valid is left out and told so; the others are not touched by it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import BackendError, InvalidInputError
from ..records import Entry, Hold, JobDone, Record, RefSet
from ..state import State
from .ledger import Build

MAX_CALLERS = 512
"""At most so many go into one entry."""


class Appends(Protocol):
    """What a group commit needs of a ledger."""

    def try_append(self, build: Build, *, sync: Iterable[str] = ()) -> Entry | None:
        """Append an entry, or none if there are no records."""
        ...


@dataclass(slots=True, eq=False)
class _Caller:
    build: Build | Sequence[Record]
    sync: tuple[str, ...]
    recs: tuple[Record, ...] = ()
    apart: bool = False
    """Its records may not stand in one entry with those before them."""
    done: bool = False
    entry: Entry | None = None
    error: Exception | None = None
    wake: threading.Event = field(default_factory=threading.Event)
    """It is done, or is to lead."""

    def end(self, entry: Entry | None, error: Exception | None) -> None:
        self.entry, self.error, self.done = entry, error, True
        self.wake.set()


class GroupCommit:
    """Appends to a ledger for many threads.

    Parameters
    ----------
    ledger
        Used by this object alone or together with others; entries of other writers count as ever.

    Notes
    -----
    Whoever finds nobody writing writes, for all who wait, and then lets the oldest who waits go on: there is no thread
    of its own, and a lone caller waits for nobody.

    Examples
    --------
    >>> from dmlpipe.storage.records import RepoCreate
    >>> from dmlpipe.storage.store import Store
    >>> group = GroupCommit(Store.init("memory://group-example").ledger)
    >>> group.append([RepoCreate(repo="a")]).n
    0
    """

    def __init__(self, ledger: Appends) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._waiting: list[_Caller] = []
        self._led = False
        """Whether somebody writes, or is about to."""

    def append(self, build: Build | Sequence[Record], *, sync: Iterable[str] = ()) -> Entry:
        """Append records; return the entry that holds them, perhaps among others'.

        Parameters
        ----------
        build
            The records, or what makes them from a state; see `Ledger.append`.
        sync
            Keys that the records newly refer to.

        Raises
        ------
        DmlpipeError
            What makes these records invalid on the newest state, or what `build` raised on it.
        BackendError
            The entry could not be written; that goes to all who were in it.
        """
        caller = _Caller(build, tuple(sync))
        with self._lock:
            self._waiting.append(caller)
            leads, self._led = not self._led, True
        if not leads:
            try:
                caller.wake.wait()
            except BaseException:
                self._leave(caller)
                raise
        if not caller.done:
            try:
                self._write()
            finally:
                self._hand_over()
        if caller.error is not None:
            raise caller.error
        if caller.entry is None:
            raise InvalidInputError("a ledger entry needs at least one record")
        return caller.entry

    def _write(self) -> None:
        """Write one entry for those who wait, oldest first; who may not stand beside them goes on waiting.

        Called by the one who leads, who is the oldest.
        """
        with self._lock:
            batch, self._waiting = self._waiting[:MAX_CALLERS], self._waiting[MAX_CALLERS:]
        keys = dict.fromkeys(key for caller in batch for key in caller.sync)
        try:
            entry = self._ledger.try_append(lambda state: _gather(batch, state), sync=keys)
        except BaseException as error:
            # Whoever was interrupted, the others learn only that it failed.
            told = error if isinstance(error, Exception) else BackendError("a group commit was interrupted")
            for caller in batch:
                caller.end(None, caller.error or told)
            if told is not error:
                raise
            return
        with self._lock:
            self._waiting = [*(caller for caller in batch if caller.apart), *self._waiting]
        for caller in batch:
            if not caller.apart:
                caller.end(entry if caller.recs else None, caller.error)

    def _hand_over(self) -> None:
        """Let the oldest who waits lead; nobody, if nobody waits."""
        with self._lock:
            self._led = bool(self._waiting)
            if self._led:
                self._waiting[0].wake.set()

    def _leave(self, caller: _Caller) -> None:
        with self._lock:
            was_waiting = caller in self._waiting
            if was_waiting:
                self._waiting.remove(caller)
        if was_waiting and caller.wake.is_set():
            self._hand_over()


def _gather(batch: Sequence[_Caller], state: State) -> list[Record]:
    """Return the records of all whose records are valid on `state` after those before them."""
    draft = state.fork()
    recs: list[Record] = []
    for caller in batch:
        caller.recs, caller.error, caller.apart = (), None, False
        try:
            made = tuple(caller.build(draft) if callable(caller.build) else caller.build)
            if recs and not may_share(recs, made):
                caller.apart = True
                continue
            draft.check_more(made, n=state.n + 1)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is this caller's alone, who gets it raised)
            caller.error = error
            continue
        caller.recs = made
        recs.extend(made)
    return recs


def may_share(one: Sequence[Record], other: Sequence[Record]) -> bool:
    """Whether two callers' records mean in one entry what they mean in two.

    A branch has one head per entry in its history; and an entry with a job's end, or with a hold, says of all that
    moves in it that the job or the hold moved it.
    """
    if any(isinstance(record, (JobDone, Hold)) for record in (*one, *other)):
        return False
    moved = [{(record.repo, record.branch) for record in recs if isinstance(record, RefSet)} for recs in (one, other)]
    return moved[0].isdisjoint(moved[1])
