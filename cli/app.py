"""What the global options say, and how a verb speaks: the object that click hands to every command.

Listings and JSON Lines go to stdout; notices, progress and errors go to stderr.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from .text import columns

if TYPE_CHECKING:
    from rich.console import Console

    from ..scheduler.store import Store
    from ..storage.store import Store as DataStore


@dataclasses.dataclass
class App:
    """One call of the command line."""

    url: str | None = None
    """`--store`; None: `$DMLPIPE_STORE`, else `./.dmlpipe` searched upwards."""
    json: bool = False
    verbosity: int = 0
    """-1 with `-q`, 1 with `-v`, 2 with `-vv`."""

    def data(self, *, read_only: bool = False) -> DataStore:
        """Open the store for verbs about data; imports storage alone."""
        from ..storage.store import Store

        return Store.open(self.url, read_only=read_only)

    def store(self, *, read_only: bool = False) -> Store:
        """Open the store for verbs about work."""
        from ..scheduler.store import Store

        return Store.open(self.url, read_only=read_only)

    def emit(self, record: Mapping[str, Any]) -> None:
        """Print one JSON line."""
        import msgspec

        click.echo(msgspec.json.encode(record))

    def line(self, text: str = "") -> None:
        """Print what was asked for."""
        click.echo(text)

    def table(
        self, rows: Sequence[Sequence[str]], *, header: Sequence[str] = (), right: frozenset[int] = frozenset()
    ) -> None:
        """Print aligned columns, with a header if there are rows."""
        if not rows:
            return
        lines = columns([header, *rows] if header else rows, right=right)
        if header:
            click.echo(click.style(lines.pop(0), dim=True))
        for line in lines:
            click.echo(line)

    def say(self, text: str) -> None:
        """Confirm what was done; silent with `-q` and with `--json`."""
        if self.verbosity >= 0 and not self.json:
            click.echo(text)

    def note(self, text: str) -> None:
        """Print a notice on stderr; silent with `-q`."""
        if self.verbosity >= 0:
            click.echo(f"note: {text}", err=True)

    @property
    def plain(self) -> bool:
        """No live output: stderr is no terminal, or a CI job's."""
        return not sys.stderr.isatty() or bool(os.environ.get("CI"))

    @property
    def colour(self) -> bool:
        """Colours on a terminal, unless `NO_COLOR` is set (https://no-color.org)."""
        return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def console(self, *, err: bool = False) -> Console:
        """Make a rich console for stdout or stderr."""
        from rich.console import Console

        # soft_wrap is the caller's to choose; highlighting would colour numbers at random.
        return Console(stderr=err, highlight=False, no_color=not self.colour, emoji=False, markup=False)
