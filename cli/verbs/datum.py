"""`datum`: list, inspect, logs, restart, next."""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING

import click

from ..app import App
from ..command import Noun
from ..text import duration, printable, short
from .job import need_job

if TYPE_CHECKING:
    from ...scheduler.planning.rows import DatumRow


@click.group("datum", cls=Noun)
def command() -> None:
    """list, inspect, logs, restart, next."""


@command.command("list")
@click.argument("target", metavar="PIPELINE|JOB")
@click.option("--failed", is_flag=True, help="Only those that failed.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N datums.")
@click.pass_obj
def list_(app: App, target: str, failed: bool, limit: int | None) -> None:
    """List the datums that a job computed (of a pipeline: its last job)."""
    from ...scheduler.planning.rows import datum_rows

    store = app.data(read_only=True)
    pipeline = store.state.pipeline(target)
    if pipeline is not None and not pipeline.last_job:
        app.note(f"pipeline {target} never ran")
        return
    job = pipeline.last_job if pipeline is not None else need_job(store.state, target)
    rows = (row for row in datum_rows(store, job) if not failed or row.outcome == "failed")
    row = None
    for row in islice(rows, limit):
        if app.json:
            app.emit(row.to_dict())
        else:
            app.line(_line(row))
    if row is None:
        none = f"job {short(job)} computed no datum; what made a result: dmlpipe why PIPELINE:/PATH"
        app.note(f"no datum failed in job {short(job)}" if failed else none)


@command.command("inspect")
@click.argument("name", metavar="ID|PATH")
@click.pass_obj
def inspect(app: App, name: str) -> None:
    """Say everything about one datum.

    It is named by the first digits of its id, by an output (predictions:/a.json) or by an input (images:/a.png).
    """
    from ...scheduler.planning.rows import find_datum

    row = find_datum(app.data(read_only=True), name)
    if app.json:
        app.emit(row.to_dict())
        return
    app.line(_line(row))
    app.table([(f"  {key}", printable(str(value))) for key, value in _details(row) if value])
    if row.failure is not None:
        app.line(row.failure.traceback.rstrip())


@command.command("logs")
@click.argument("name", metavar="ID|PATH")
@click.pass_obj
def logs(app: App, name: str) -> None:
    """Print what one datum printed."""
    from ...scheduler.planning.rows import find_datum, read_log

    store = app.data(read_only=True)
    row = find_datum(store, name)
    log = read_log(store, row)
    if app.json:
        app.emit({"datum": row.id, "job": row.job, "log": log.decode("utf-8", "replace")})
        return
    if not log:
        app.note(f"datum {short(row.id)} printed nothing")
    sys.stdout.buffer.write(log)
    sys.stdout.buffer.flush()


@command.command("restart")
@click.argument("name", metavar="ID|PATH")
@click.pass_obj
def restart(app: App, name: str) -> None:
    """Compute one datum anew at the next run.

    It is named by the first digits of its id, by an output (predictions:/a.json) or by an input (images:/a.png).
    """
    pipeline, shown = app.store().restart_datum(name)
    if app.json:
        app.emit({"pipeline": pipeline, "datum": shown, "restart": True})
    app.say(f"{pipeline} will compute {shown or 'its one datum'} anew; next: dmlpipe run")


def _line(row: DatumRow) -> str:
    cause = f"{row.failure.kind}: {row.failure.message.splitlines()[0]}" if row.failure and row.failure.message else ""
    parts = (short(row.id), row.outcome, duration(row.seconds), printable(row.shown), printable(cause))
    return "  ".join(part for part in parts if part)


def _details(row: DatumRow) -> list[tuple[str, str]]:
    return [
        ("id", row.id),
        ("pipeline", row.pipeline),
        ("job", row.job),
        ("tries", str(row.tries)),
        ("outputs", ", ".join(f"/{path}" for path in row.outputs)),
        ("where", row.failure.where if row.failure else ""),
        ("line", row.failure.line if row.failure else ""),
    ]


@command.command("next")
@click.option("--error", default="", metavar="MESSAGE", help="The datum at hand failed, and why.")
def next_(error: str) -> None:
    """Ask for the next datum: inside a command with datum_batching.

    Returns when its files are in /pfs and its variables in /pfs/.env; says how the one before it ended.
    """
    import os

    from ...worker.child.batching import NEXT, ask_next

    ask_next(os.environ.get(NEXT, ""), error)
