"""Objects in the making: their bytes come before their keys, which follow from the bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..digest import Data


class Draft(Protocol):
    """An object that gets its bytes before anybody knows its key. For one thread."""

    shares_blocks: bool
    """Whether it takes no space: its blocks are those of another file."""

    def __len__(self) -> int:
        """Return how many bytes it has."""
        ...

    def write(self, data: Data) -> None:
        """Add to its end."""
        ...

    def read(self) -> bytes:
        """Return its bytes."""
        ...

    def put_if_absent(self, key: str) -> bool:
        """Create the object `key` with its bytes, unless it exists; see `Backend.put_if_absent`."""
        ...

    def drop(self) -> None:
        """Give it up, or what is left of it. Call it once, in the end."""
        ...


class Clone(Draft, Protocol):
    """A private copy of a part of a file that shares its blocks, and does not follow it."""

    fd: int
    """Open for reading; bytes begin at 0."""


class HeldDraft(Draft):
    """Bytes in memory.

    Parameters
    ----------
    create
        Makes the object: `Backend.put_if_absent`.
    """

    def __init__(self, create: Callable[[str, Data], bool]) -> None:
        self._create = create
        self._bytes = bytearray()
        self.shares_blocks = False

    def __len__(self) -> int:
        return len(self._bytes)

    def write(self, data: Data) -> None:
        """See `Draft.write`."""
        self._bytes += data

    def read(self) -> bytes:
        """See `Draft.read`."""
        return bytes(self._bytes)

    def put_if_absent(self, key: str) -> bool:
        """See `Draft.put_if_absent`."""
        return self._create(key, self._bytes)

    def drop(self) -> None:
        """See `Draft.drop`."""
        self._bytes.clear()
