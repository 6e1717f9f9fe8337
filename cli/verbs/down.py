"""`down`: end what `up` started."""

from __future__ import annotations

import click

from ..app import App
from ..command import Verb


@click.command("down", cls=Verb)
@click.pass_obj
def command(app: App) -> None:
    """End what up started.

    What is finished is kept; what is under way goes on with the next `run` or `up`.
    """
    from ...scheduler.cluster.daemon import down

    store = app.data(read_only=True)
    ended = down(store.cache_dir, store.repo_id)
    if app.json:
        app.emit({"ended": ended})
    app.say("down" if ended else "nothing was up")
