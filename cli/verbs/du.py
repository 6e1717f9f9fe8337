"""`du`: what holds a store's bytes."""

from __future__ import annotations

import click

from ..app import App
from ..command import Verb
from ..text import size


@click.command("du", cls=Verb)
@click.option("--branches", is_flag=True, help="By branch, not by repo.")
@click.pass_obj
def command(app: App, branches: bool) -> None:
    """Say what holds a store's bytes.

    Of each repo, the stored bytes that only its commits refer to (they come back if it is deleted and collected) and
    those that others refer to as well.
    """
    from ...storage.gc.usage import measure

    store = app.data(read_only=True)
    usage = measure(store.backend, store.nodes, store.refresh())
    if app.json:
        app.emit(usage.to_dict())
        return
    rows = [
        (held.name, f"{held.commits:,}", size(held.unique), size(held.shared))
        for held in (usage.branches if branches else usage.repos)
    ]
    app.table(
        rows, header=("branch" if branches else "repo", "commits", "unique", "shared"), right=frozenset({1, 2, 3})
    )
    app.say(f"{size(usage.total)} in all: {size(usage.content)} in commits, {size(usage.other)} of history and memory")
