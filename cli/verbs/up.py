"""`up`: a scheduler, a worker and a controller in the background."""

from __future__ import annotations

import os

import click

from ..app import App
from ..command import Verb
from ..settings import cache_option
from ..text import count


@click.command("up", cls=Verb)
@click.option(
    "-j", "--slots", type=click.IntRange(min=1), metavar="N", help="Places that run user code. Default: cores."
)
@cache_option
@click.pass_obj
def command(app: App, slots: int | None) -> None:
    """Keep pipelines up to date in the background.

    Starts a scheduler, a worker and a controller on this machine; they outlive the terminal. `status` shows them,
    `down` ends them and only them.
    """
    from ...scheduler.cluster.daemon import up

    store = app.data()
    state = up(store.url, slots or os.cpu_count() or 1, repo_id=store.repo_id, cache_dir=store.cache_dir)
    if app.json:
        import msgspec

        app.emit(msgspec.to_builtins(state))
    app.say(f"up: {count(state.slots, 'slot')} at {state.address}; a put starts what depends on it")
    app.say("see: dmlpipe status   ·   end: dmlpipe down")
