"""`release`: end a hold."""

from __future__ import annotations

import click

from ..app import App
from ..command import Verb


@click.command("release", cls=Verb)
@click.argument("pipeline")
@click.pass_obj
def command(app: App, pipeline: str) -> None:
    """End a hold.

    PIPELINE considers what arrived meanwhile at the next run.
    """
    app.store().release(pipeline)
    if app.json:
        app.emit({"pipeline": pipeline, "released": True})
    app.say(f"{pipeline} is released; next: dmlpipe run")
