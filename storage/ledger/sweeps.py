"""Learning of sweeps: whatever the ledger says of them reaches the process's registry before it can append again."""

from __future__ import annotations

from collections.abc import Callable

from ..digest import from_hex
from ..errors import NotFoundError
from ..objects.condemned import SweepList, decode_list
from ..objects.node import NodeStore
from ..records import SweepState
from ..state import State


class SweepWatch:
    """Called with every newer state that may know of more sweeps.

    Parameters
    ----------
    nodes
        Where the lists are; its `condemned` is the registry.
    forget
        Called after something was learned: drops what is derived from older indexes.
    """

    def __init__(self, nodes: NodeStore, forget: Callable[[], None] = lambda: None) -> None:
        self._nodes = nodes
        self._forget = forget
        self._n = -1
        self._first = True

    def __call__(self, state: State) -> None:
        """Learn what is new in `state`."""
        # Closed ones matter only to a process that may have relied on something before they closed.
        skip_closed = self._first and not self._nodes.condemned.used
        self._first = False
        condemned = self._nodes.condemned
        known_open = condemned.open_sweeps()
        learned = False
        for n, sweep in state.sweeps():
            if n in known_open and not sweep.open:
                condemned.close(n)
            if n > self._n and (sweep.open or not skip_closed):
                condemned.learn(n, read_list(self._nodes, sweep), is_open=sweep.open)
                learned = True
        self._n = state.n
        if learned:
            self._forget()


def read_list(nodes: NodeStore, sweep: SweepState) -> SweepList | None:
    """Return what a sweep names; None if its list is gone.

    Lists are collected when their sweep is over, which a state that is just being caught up with need not know yet.
    """
    try:
        return decode_list(nodes.get(from_hex(sweep.list)))
    except NotFoundError:
        return None
