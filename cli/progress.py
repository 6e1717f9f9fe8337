"""What a run looks like while it goes on: an observer that keeps a live table, or writes lines.

On a terminal one line per pipeline is redrawn; elsewhere (a pipe, CI) a line is written when a job begins and ends and
every few seconds in between. Both go to stderr. The observer is called from the controller's thread, the table is
drawn from rich's: rows are replaced whole, never changed in place.
"""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..scheduler import report as r
from .text import count, countdown, duration, rate, short, size

BAR_CELLS = 20
LINE_EVERY_S = 5.0

_MARKS = {
    "done": ("✔", "green"),
    "failed": ("✘", "red"),
    "stopped": ("■", "yellow"),
    "unrunnable": ("–", "yellow"),
}


_BOUND = re.compile(r"max_failures=[^), ]+")


@dataclasses.dataclass(frozen=True)
class _Row:
    name: str
    planned: r.JobPlanned | None = None
    advanced: r.JobAdvanced | None = None
    ended: r.JobEnded | None = None
    held: r.PipelineHeld | None = None


class Progress:
    """The live table of a run.

    Parameters
    ----------
    console
        Where to draw: stderr.
    live
        Redraw a table; False writes lines.
    upstream
        Pipelines that one reads, so that a waiting row can say what it waits for.
    clock
        Monotonic seconds; limits lines to one in `LINE_EVERY_S` a job.
    """

    def __init__(
        self,
        console: Console,
        *,
        live: bool,
        upstream: Callable[[str], Sequence[str]] = lambda _name: (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._upstream = upstream
        self._clock = clock
        self._lock = threading.Lock()
        self._rows: dict[str, _Row] = {}
        self._slots: int | None = None
        self._said: dict[str, float] = {}
        self._live = Live(self, console=console, refresh_per_second=8, transient=True) if live else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            # The live table is transient: what stays is printed once, whole, even where it is longer than the window.
            self._live.stop()
            self._print_rows()

    def __call__(self, report: r.Report, /) -> None:
        """Take one report."""
        with self._lock:
            lines = self._take(report)
        for line in lines:
            self._console.print(line, soft_wrap=True)

    def __rich__(self) -> RenderableType:
        with self._lock:
            rows = list(self._rows.values())
            waiting = self._slots in (None, 0) and any(row.planned and not row.ended for row in rows)
        table = self._table(rows)
        return Group(table, Text("  starting slots ...", style="dim")) if waiting else table

    def _take(self, report: r.Report) -> list[Text]:
        match report:
            case r.RunBegan():
                if self._live is not None and self._rows:
                    self._print_rows()
                self._rows = {name: _Row(name) for name in report.pipelines}
                return [Text(f"run {short(report.run)}  {' · '.join(report.causes)}", style="dim")]
            case r.JobPlanned():
                self._rows[report.pipeline] = _Row(report.pipeline, planned=report)
                return [] if self._live else [_planned(report)]
            case r.JobAdvanced():
                row = self._rows.get(report.pipeline, _Row(report.pipeline))
                self._rows[report.pipeline] = dataclasses.replace(row, advanced=report)
                return self._line_now_and_then(report)
            case r.JobEnded():
                row = self._rows.get(report.pipeline, _Row(report.pipeline))
                self._rows[report.pipeline] = dataclasses.replace(row, ended=report)
                return [] if self._live else [_joined(report.pipeline, *ended_cells(report))]
            case r.PipelineHeld():
                self._rows[report.pipeline] = _Row(report.pipeline, held=report)
                return [] if self._live else [_joined(report.pipeline, *_held_cells(report))]
            case r.ClusterChanged():
                self._slots = report.slots
                return []
            case r.Notice():
                return [Text(f"note: {report.text}", style="yellow")]
            case r.RunEnded():
                return []

    def _line_now_and_then(self, report: r.JobAdvanced) -> list[Text]:
        now = self._clock()
        if self._live is not None or now - self._said.setdefault(report.job, now) < LINE_EVERY_S:
            return []
        self._said[report.job] = now
        return [_joined(report.pipeline, *_advanced_cells(report, bar=None))]

    def _print_rows(self) -> None:
        shown = [row for row in self._rows.values() if row.planned or row.ended or row.held]
        if shown:
            self._console.print(self._table(shown))

    def _table(self, rows: Sequence[_Row]) -> Table:
        cells = [(Text(f"  {row.name}"), *self._cells(row)) for row in rows]
        table = Table.grid(padding=(0, 3, 0, 0))
        # In a narrow window the remarks are cut, never a name or a count.
        for column in range(2):
            table.add_column(no_wrap=True, min_width=max(row[column].cell_len for row in cells))
        table.add_column()
        for name, left, right in cells:
            right.no_wrap, right.overflow = True, "ellipsis"
            table.add_row(name, left, right)
        return table

    def _cells(self, row: _Row) -> tuple[Text, Text]:
        if row.ended is not None:
            return ended_cells(row.ended)
        if row.held is not None:
            return _held_cells(row.held)
        if row.advanced is not None:
            return _advanced_cells(row.advanced, bar=self._bar(row.advanced))
        if row.planned is not None:
            return Text(_datums(row.planned), style="dim"), Text()
        above = [name for name in self._upstream(row.name) if name in self._rows and self._rows[name].ended is None]
        return Text(f"waits for {', '.join(above)}" if above else "waits", style="dim"), Text()

    def _bar(self, report: r.JobAdvanced) -> Text:
        return bar(_known(report), report.total, plain=self._console.no_color or not self._console.is_terminal)


def bar(done: int, total: int, *, plain: bool = False) -> Text:
    """Draw a bar of `BAR_CELLS` cells, half cells included.

    >>> str(bar(1, 2, plain=True))
    '━━━━━━━━━━          '
    """
    halves = BAR_CELLS * 2 if total <= 0 else min(BAR_CELLS * 2, BAR_CELLS * 2 * done // total)
    full, half = divmod(halves, 2)
    text = Text("━" * full + "╸" * half, style="" if plain else "cyan")
    rest = BAR_CELLS - full - half
    return text.append(" " * rest if plain else "━" * rest, style="" if plain else "bright_black")


def ended_cells(report: r.JobEnded) -> tuple[Text, Text]:
    """How an ended job is told: what became of its datums; how long it took and where its branch stands."""
    counters = report.counters
    mark, style = _MARKS.get(report.state, ("?", ""))
    left = Text(f"{mark} ", style=style)
    if report.state == "unrunnable":
        return left.append("did not run", style=""), Text(report.reason)
    parts = [f"{counters.run:,} run"] if counters.run or not counters.skipped or counters.failed else []
    parts += [f"{counters.skipped:,} skipped"] if counters.skipped or counters.failed else []
    parts += [f"{counters.failed:,} failed"] if counters.failed else []
    parts += [f"{counters.recovered:,} recovered"] if counters.recovered else []
    parts += [f"{counters.removed:,} removed"] if counters.removed else []
    left.append("  ".join(parts), style="")
    if report.state == "done":
        at = short(report.commit or report.head)
        return left, Text(f"{duration(report.seconds)}   {report.pipeline}@{at}")
    stays = f"{report.pipeline} stays at {short(report.head)}" if report.head else f"{report.pipeline} has no commit"
    if report.failures:
        # The failures are listed below, by cause.
        bound = _BOUND.search(report.reason)
        return left, Text(f"nothing published: {stays}{f' ({bound[0]})' if bound else ''}")
    # A reason that is a sentence of its own does not stand in brackets.
    reason = "" if not report.reason else f": {report.reason}" if "(" in report.reason else f" ({report.reason})"
    return left, Text(f"nothing published: {stays}{reason}")


def failure_lines(groups: Sequence[r.FailureGroup]) -> list[Text]:
    """Failures by cause: how many, what, where first, and the user's line."""
    lines = []
    for group in groups:
        failure = group.failure
        message = failure.message.splitlines()[0] if failure.message else ""
        cause = f"{failure.kind}: {message}" if message else failure.kind
        head = Text(f"  {group.count:,} × {cause}", style="red")
        first = "   ".join(
            [
                *([f"first: {group.path}"] if group.path else []),
                *([f"datum {short(group.datum)}"] if group.datum else []),
            ]
        )
        if first:
            head.append(f"      {first}", style="default")
        lines.append(head)
        if failure.where or failure.line:
            lines.append(Text(f"      {'    '.join(part for part in (failure.where, failure.line) if part)}"))
    return lines


def _planned(report: r.JobPlanned) -> Text:
    why = f"   {', '.join(report.why)}" if report.why else ""
    return Text(f"  {report.pipeline}  {_datums(report)}{why}")


def _datums(report: r.JobPlanned) -> str:
    resumed = f", {report.resumed:,} kept from before" if report.resumed else ""
    return f"{count(report.total, 'datum')}{resumed}" if report.total >= 0 else "under way"


def _joined(name: str, left: Text, right: Text) -> Text:
    return Text("  ").append(name).append("  ").append_text(left).append("   " if right else "").append_text(right)


def _held_cells(report: r.PipelineHeld) -> tuple[Text, Text]:
    why = f': "{report.why}"' if report.why else ""
    return (
        Text(f"held at {short(report.commit)}", style="yellow"),
        Text(f"by {report.by}{why}   end it: dmlpipe release {report.pipeline}"),
    )


def _known(report: r.JobAdvanced) -> int:
    known = report.run + report.skipped + report.failed
    return min(known, report.total) if report.total > 0 else known


def advanced_text(report: r.JobAdvanced) -> str:
    """Numbers of a running job on one line."""
    left, right = _advanced_cells(report, bar=None)
    return f"{left.plain}   {right.plain}"


def _advanced_cells(report: r.JobAdvanced, *, bar: Text | None) -> tuple[Text, Text]:
    total = f"{_known(report):,}/{report.total:,}"
    left = Text(total) if bar is None else bar.append(f"  {total}", style="default")
    parts = [f"{report.skipped:,} skipped", f"{report.failed:,} failed"]
    if report.rate > 0:
        parts.append(rate(report.rate))
    if report.left_s is not None:
        parts.append(f"{countdown(report.left_s)} left")
    if taken := report.from_store + report.from_peers:
        parts.append(f"{size(taken)} fetched, {report.from_peers / taken:.0%} from peers")
    if report.lacks:
        parts.insert(0, f"waits for a worker that has {report.lacks}")
    return left, Text("   ".join(parts), style="red" if report.failed else "")
