"""Waiting for the ledger to say something."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..storage.errors import HeldError
from ..storage.state import State

if TYPE_CHECKING:
    from ..storage.store import Store

_POLL_S = 1.0


def poll_until(
    store: Store,
    reached: Callable[[State], bool],
    *,
    what: str,
    timeout_s: float | None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Return when the folded state satisfies `reached`.

    Raises
    ------
    HeldError
        The time is over.
    """
    end = None if timeout_s is None else clock() + timeout_s
    while not reached(state := store.refresh()):
        left = _POLL_S if end is None else min(_POLL_S, end - clock())
        if left <= 0:
            raise HeldError(f"{what} is not there after {timeout_s:g} s", hint="see: dmlpipe status")
        store.ledger.wait(state.n, left)
