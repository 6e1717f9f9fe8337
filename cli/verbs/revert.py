"""`revert`: go back to an earlier output and hold it."""

from __future__ import annotations

import click

from ..app import App
from ..command import Verb
from ..text import short


@click.command("revert", cls=Verb)
@click.argument("pipeline")
@click.option(
    "--to", required=True, metavar="REF", help="Commit of the pipeline's output: 'model@master^', a tag, an id."
)
@click.option("-m", "--message", default="", metavar="WHY", help="Recorded, and shown by status.")
@click.pass_obj
def command(app: App, pipeline: str, to: str, message: str) -> None:
    """Go back to an earlier output, and hold it.

    New input is recorded, but PIPELINE publishes nothing until `release`. Its consumers use the held output.
    """
    view = app.store().revert(pipeline, to, why=message)
    if app.json:
        app.emit({"pipeline": pipeline, "commit": view.id, "why": message})
    app.say(f"{pipeline} is held at {short(view.id)}; consumers use it from the next run on")
    app.say(f"next: dmlpipe run   ·   end the hold: dmlpipe release {pipeline}")
