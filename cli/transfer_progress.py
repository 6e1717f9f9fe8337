"""How far a transfer is: one live line on a terminal, a line every few seconds elsewhere; on stderr."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from .app import App
from .text import size

if TYPE_CHECKING:
    from rich.status import Status

LINE_EVERY_S = 5.0


class TransferProgress:
    """Called with what travelled; see `storage.sync.Progress`.

    Parameters
    ----------
    app
        Says whether anything is shown.
    begins
        What is said before anything travelled.
    """

    def __init__(self, app: App, begins: str = "comparing") -> None:
        self._app = app
        self._begins = begins
        self._counts: dict[str, int] = {}
        self._size_bytes = 0
        self._status: Status | None = None
        self._next_line = time.monotonic() + LINE_EVERY_S

    def __enter__(self) -> Self:
        if not (self._app.plain or self._app.json or self._app.verbosity < 0):
            self._status = self._app.console(err=True).status(self._begins)
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, what: str, count: int, size_bytes: int) -> None:
        """Count objects of one kind and their bytes."""
        self._counts[what] = self._counts.get(what, 0) + count
        self._size_bytes += size_bytes
        if self._status is not None:
            self._status.update(self.text)
        elif self._app.verbosity >= 0 and not self._app.json and time.monotonic() >= self._next_line:
            click.echo(self.text, err=True)
            self._next_line = time.monotonic() + LINE_EVERY_S

    @property
    def text(self) -> str:
        """`1,024 nodes, 3 packs, 96.0 MB`."""
        return ", ".join([*(f"{count:,} {what}" for what, count in self._counts.items()), size(self._size_bytes)])
