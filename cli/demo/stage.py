"""Where the demo plays: says a sentence, types a command, runs it, and checks what it said would happen.

A command is run by the same `main` that the shell calls, in this process: what is shown is what it prints. With
`pictures` everything is recorded as well and written as SVG.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from .screen import Screen

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 100
"""Columns of a picture."""

Main = Callable[["Sequence[str]"], int]


class BrokenClaimError(click.ClickException):
    """The demo said one thing and another happened: a defect, and exit code 1."""


class _Tee(io.TextIOBase):
    """A text stream that writes through to another and keeps a copy."""

    def __init__(self, stream: TextIO, screen: Screen, *, terminal: bool) -> None:
        self._stream = stream
        self._screen = screen
        self._terminal = terminal

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding or "utf-8"

    @property
    def buffer(self) -> _TeeBytes:
        return _TeeBytes(self)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._terminal

    def fileno(self) -> int:
        return self._stream.fileno()

    def flush(self) -> None:
        self._stream.flush()

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            # click asks whether a stream is binary by writing b"" to it.
            raise TypeError(f"a text stream takes str, not {type(text).__name__}")
        self._screen.feed(text)
        return self._stream.write(text)


class _TeeBytes(io.RawIOBase):
    """The binary side of a `_Tee`: `cat` writes bytes."""

    def __init__(self, text: _Tee) -> None:
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        assert isinstance(data, bytes | bytearray | memoryview)
        self._text.write(bytes(data).decode("utf-8", "replace"))
        return len(data)

    def flush(self) -> None:
        self._text.flush()


class Stage:
    """One performance.

    Parameters
    ----------
    main
        Runs one command line, returns its exit code.
    out
        Where the story is told.
    pictures
        Folder for SVG pictures of commands; None: none are made.
    on_claim
        Called for each claim that held: its text.
    """

    def __init__(
        self,
        main: Main,
        *,
        out: TextIO | None = None,
        pictures: Path | None = None,
        on_claim: Callable[[str], None] | None = None,
    ) -> None:
        self._main = main
        self._out = sys.stdout if out is None else out
        self._pictures = pictures
        self._on_claim = on_claim
        self._steps = 0
        self._width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns) if self._out.isatty() else WIDTH
        self.claims: list[str] = []
        self.seconds: list[tuple[str, float]] = []
        """How long each command took."""

    # --- telling --------------------------------------------------------------------------------------------------

    def title(self, text: str) -> None:
        """Say what this is."""
        self._say(click.style(text, bold=True))

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._steps += 1
        rule = "─" * max(3, self._width - len(title) - 4)
        self._say(f"\n{click.style(f'{self._steps}  {title}', fg='cyan', bold=True)} {click.style(rule, dim=True)}")

    def say(self, text: str) -> None:
        """Say a sentence or two."""
        import textwrap

        self._say("\n" + textwrap.fill(" ".join(text.split()), self._width))

    def lines(self, rows: Sequence[tuple[str, str]]) -> None:
        """Show commands with what each is for."""
        wide = max(len(left) for left, _ in rows)
        for left, right in rows:
            self._say(f"  {click.style(left, bold=True)}{' ' * (wide - len(left))}  {click.style(right, dim=True)}")

    def note(self, text: str) -> None:
        """Say something in passing."""
        self._say(click.style(text, dim=True))

    def _say(self, text: str) -> None:
        click.echo(text, file=self._out)
        self._out.flush()

    # --- doing ----------------------------------------------------------------------------------------------------

    def type(self, line: str, *, picture: str = "", head: int = 0) -> list[str]:
        """Type a command and run it.

        Parameters
        ----------
        line
            As in a shell; begins with ``dmlpipe``.
        picture
            Name of the picture to make of it.
        head
            Show no more than so many lines of what it lists, and how many more there were; 0: all.

        Returns
        -------
        list of str
            What it printed on stdout.

        Raises
        ------
        BrokenClaimError
            It ended with another exit code than 0.
        """
        prompt = f"{click.style('$', dim=True)} {click.style(line, bold=True)}"
        self._say(prompt)
        words = shlex.split(line)
        assert words[0] == "dmlpipe", line
        seen, listed = Screen(), Screen()
        began = time.monotonic()
        with self._streams(seen, listed, hide_listing=bool(head)):
            code = self._main(words[1:])
        self.seconds.append((line, time.monotonic() - began))
        if code == 130:
            raise KeyboardInterrupt
        lines = listed.lines()
        if head:
            cut = _cut(lines, head)
            for row in cut:
                self._say(row)
                seen.feed(row + "\n")
        if code:
            raise BrokenClaimError(f"`{line}` ended with exit code {code}")
        if picture and self._pictures is not None:
            write_picture(self._pictures / f"{picture}.svg", line, seen.lines())
        return [click.unstyle(row) for row in lines]

    def show(self, line: str, effect: Callable[[], None]) -> None:
        """Type a command of the shell; `effect` does what it does."""
        self._say(f"{click.style('$', dim=True)} {click.style(line, bold=True)}")
        effect()

    @contextlib.contextmanager
    def _streams(self, seen: Screen, listed: Screen, *, hide_listing: bool) -> Iterator[None]:
        painted = self._pictures is not None
        err = sys.stderr if self._out is sys.stdout else self._out
        to: TextIO = io.StringIO() if hide_listing else self._out
        copy = listed if hide_listing else _Both(seen, listed)
        out_tee = _Tee(to, copy, terminal=painted or self._out.isatty())
        err_tee = _Tee(err, seen, terminal=painted or err.isatty())
        with contextlib.redirect_stdout(out_tee), contextlib.redirect_stderr(err_tee), self._terminal():
            yield

    @contextlib.contextmanager
    def _terminal(self) -> Iterator[None]:
        """Look like a terminal of `WIDTH` columns with all colours, for pictures; else change nothing."""
        if self._pictures is None:
            yield
            return
        before = dict(os.environ)
        os.environ.update(COLUMNS=str(WIDTH), TERM="xterm-256color", COLORTERM="truecolor")
        for name in ("NO_COLOR", "CI"):
            os.environ.pop(name, None)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    # --- checking -------------------------------------------------------------------------------------------------

    def claim(self, text: str, said: object, found: object) -> None:
        """Check what was said against what the store holds.

        Raises
        ------
        BrokenClaimError
            They differ.
        """
        if said != found:
            raise BrokenClaimError(f"the demo said {text!r}: expected {said}, found {found}")
        self.claims.append(text)
        self._say(f"{click.style('✔', fg='green')} {click.style(text, dim=True)}")
        if self._on_claim is not None:
            self._on_claim(text)


class _Both(Screen):
    """Feeds two screens."""

    def __init__(self, first: Screen, second: Screen) -> None:
        super().__init__()
        self._to = (first, second)

    def feed(self, text: str) -> None:
        for screen in self._to:
            screen.feed(text)


def _cut(lines: list[str], head: int) -> list[str]:
    """First lines, how many were left out, and the last one, which sums up."""
    if len(lines) <= head + 2:
        return lines
    return [*lines[:head], click.style(f"  … {len(lines) - head - 1:,} more lines", dim=True), lines[-1]]


def write_picture(path: Path, line: str, rows: Sequence[str]) -> None:
    """Write what a command printed as SVG."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, file=io.StringIO(), width=WIDTH, color_system="truecolor", force_terminal=True)
    console.print(Text.assemble(("$ ", "dim"), (line, "bold")), highlight=False)
    for row in rows:
        console.print(Text.from_ansi(row), highlight=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(console.export_svg(title="dmlpipe", unique_id=f"dmlpipe-{path.stem}"), encoding="utf-8")
