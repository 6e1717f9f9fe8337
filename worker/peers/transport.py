"""What the exchange of parts needs of a network; `dask_seam` has it over Dask's comms, tests without any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ...storage.digest import Data
from .messages import Reason

ReadRange = Callable[[bytes, int, int], bytes | None]
"""(name of a file in the cache, start, stop) to its bytes, or None where they are not held. Called in any thread."""


class RefusedError(Exception):
    """A peer answered, without what it was asked for."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.name.lower())
        self.reason = reason


class PeerTransport(Protocol):
    """Requests to the tracker, and to and from peers. Used from one event loop."""

    @property
    def address(self) -> str:
        """Where peers reach this worker."""
        ...

    async def ask(self, request: bytes) -> bytes:
        """Call the tracker. Raises `OSError` where there is none."""
        ...

    async def read(self, address: str, file: bytes, start: int, stop: int) -> Sequence[Data]:
        """Ask the peer at `address` for the bytes [start, stop) of a file: what it sent, whatever that is.

        What comes is never unpickled. A call that is cancelled leaves nothing behind.

        Raises
        ------
        RefusedError
            It answered without them.
        OSError
            It does not answer.
        """
        ...

    def serve(self, read: ReadRange) -> None:
        """Answer peers by `read` from now on."""
        ...
