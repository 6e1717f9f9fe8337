"""`log`: the history of a branch or of a path in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ...storage.refs import parse_ref
from ..app import App
from ..command import Verb
from ..text import count, printable, short, size, when

if TYPE_CHECKING:
    from ...storage.commits import CommitView
    from ...storage.refs import Ref
    from ...storage.store import Store


@click.command("log", cls=Verb)
@click.argument("target", required=False, metavar="REF[:/path]")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N commits.")
@click.option("--ledger", is_flag=True, help="The store's ledger: every entry, by whom, with its hash.")
@click.pass_obj
def command(app: App, target: str | None, limit: int | None, ledger: bool) -> None:
    """Show the history of a branch or a path.

    Every head that the branch ever had, newest first; with a path those where what stands there changed.
    """
    if ledger:
        from .ledger_log import show_ledger

        if target is not None:
            raise click.UsageError("--ledger takes no REF: it shows the whole store", click.get_current_context())
        show_ledger(app, app.data(read_only=True).ledger, limit)
        return
    if target is None:
        raise click.UsageError("missing REF[:/path]", click.get_current_context())
    ref = parse_ref(target)
    store = app.data(read_only=True)
    shown = 0
    for view in _history(store, ref):
        _show(app, view)
        shown += 1
        if shown == limit:
            return
    if not shown:
        app.note(f"nothing was ever at {target}")


def _show(app: App, view: CommitView) -> None:
    if app.json:
        body = view.body
        app.emit(
            {
                "repo": view.repo,
                "commit": view.id,
                "time": body.time,
                "author": body.author,
                "message": body.message,
                "files": body.files,
                "size": body.size,
                "parents": list(body.parents),
                "job": body.job,
            }
        )
        return
    message = f'  "{printable(view.message)}"' if view.message else ""
    by = f"job {short(view.job)}" if view.job else view.author
    name = click.style(f"{view.repo}@{short(view.id)}", fg="yellow")
    app.line(f"{name}  {when(view.time)}  {by}  {count(view.files, 'file')}, {size(view.size)}{message}")


def _history(store: Store, ref: Ref) -> Iterator[CommitView]:
    """Heads of a branch, or ancestors of a commit; where a path is named, those that changed what stands there."""
    commits = _heads(store, ref)
    if not ref.path:
        yield from commits
        return
    newer: CommitView | None = None
    for view in commits:
        if newer is not None and next(view.diff(newer, ref.path), None) is not None:
            yield newer
        newer = view
    if newer is not None and newer.exists(ref.path):
        yield newer


def _heads(store: Store, ref: Ref) -> Iterator[CommitView]:
    first = store[ref]
    if not ref.up and store.state.head(ref.repo, ref.ref) is not None:
        for head in store.state.history(ref.repo, ref.ref):
            yield store[f"{ref.repo}@{head.commit}"]
        return
    view = first
    while True:
        yield view
        parents = store.state.live_parents(ref.repo, view.parents)
        if not parents:
            return
        view = store[f"{ref.repo}@{parents[0]}"]
