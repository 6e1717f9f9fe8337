"""The epoch that a controller has, while it has it."""

from __future__ import annotations

from collections.abc import Sequence

from ...storage.errors import HeldError
from ...storage.records import ControllerTake
from ...storage.state import State
from ...storage.store import Store
from ..report import JobAdvanced
from .epoch import Heartbeat, is_alive, take

__all__ = ["OwnEpoch"]


class OwnEpoch:
    """Taken with a controller's first entry, lost to another controller, or let go at the end.

    Parameters
    ----------
    store
        The store that is driven.
    kind
        `run` or `up`, as the ledger records it.
    """

    def __init__(self, store: Store, kind: str) -> None:
        self._store = store
        self._kind = kind
        self._heartbeat: Heartbeat | None = None
        self.number: int | None = None
        """None: not taken."""

    def record(self, state: State) -> ControllerTake:
        """Return the record with which the next epoch is taken."""
        return take(state.controller(), self._kind)

    def check_free(self, state: State) -> None:
        """Refuse to take the next epoch while whoever has the last one lives.

        Raises
        ------
        HeldError
            Another controller drives the store.
        """
        holder = state.controller()
        if not is_alive(holder, self._store.backend):
            return
        who = f"pid {holder.pid} on {holder.host}" if holder is not None else "another process"
        raise HeldError(
            f"{self._store.url} is driven by {'dmlpipe ' + holder.kind if holder else 'a controller'} ({who})",
            hint="wait for it: dmlpipe wait"
            if holder is None or holder.kind != "up"
            else "wait for it: dmlpipe wait, or end it: dmlpipe down",
        )

    def check_kept(self, state: State) -> None:
        """Refuse to go on where the epoch is another controller's by now.

        Raises
        ------
        HeldError
            Another controller took over.
        """
        if self.number is None:
            return
        now = state.controller()
        if now is None or now.epoch != self.number:
            taken = f"{now.host} pid {now.pid}" if now else "nobody"
            raise HeldError(f"another controller took over ({taken}); what was computed is kept")

    def of(self, state: State) -> int:
        """Return the epoch that records carry: the own one, or the one that a draft takes."""
        controller = state.controller()
        return self.number if self.number is not None else controller.epoch if controller else 0

    def taken(self, number: int) -> None:
        """The entry that takes an epoch stands: say "alive" from now on."""
        self.number = number
        self._heartbeat = Heartbeat(self._store.backend, number)

    def tell(self, jobs: Sequence[JobAdvanced]) -> None:
        """Let the heartbeat say where jobs stand."""
        if self._heartbeat is not None:
            self._heartbeat.tell(jobs)

    def let_go(self) -> None:
        """Have none any more. Idempotent."""
        self.number = None
        if self._heartbeat is not None:
            self._heartbeat.close()
            self._heartbeat = None
