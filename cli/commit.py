"""`commit`: list, inspect."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from ..storage.refs import need_repo
from .app import App
from .command import Noun
from .text import printable, short, size, when

if TYPE_CHECKING:
    from ..storage.commits import CommitView
    from ..storage.state import State


@click.group("commit", cls=Noun)
def command() -> None:
    """list, inspect."""


@command.command("list")
@click.argument("repo", metavar="REPO")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N commits.")
@click.pass_obj
def list_(app: App, repo: str, limit: int | None) -> None:
    """List all commits of a repo, newest first, on a branch or not."""
    store = app.data(read_only=True)
    need_repo(store.state, repo)
    names = _names(store.state, repo)
    rows = []
    for commit in _newest_first(store.state, repo)[:limit]:
        view = store[f"{repo}@{commit}"]
        if app.json:
            app.emit(_record(view, names.get(commit, ())))
            continue
        by = f"job {short(view.job)}" if view.job else view.author
        about = ", ".join(names.get(commit, ()))
        told = printable(view.message)
        rows.append((f"{repo}@{short(commit)}", when(view.time), by, f"{view.files:,}", size(view.size), about, told))
    if not app.json:
        app.table(rows, header=("commit", "made", "by", "files", "size", "named", ""), right=frozenset({3, 4}))


@command.command("inspect")
@click.argument("ref", metavar="REF")
@click.pass_obj
def inspect(app: App, ref: str) -> None:
    """Say everything about one commit."""
    store = app.data(read_only=True)
    view = store[ref]
    record = _record(view, _names(store.state, view.repo).get(view.id, ()))
    found = store.state.commit(view.repo, view.id)
    record |= {"tree": view.body.tree, "entry": found.n if found else None}
    if app.json:
        app.emit(record)
        return
    shown = record | {"parents": ", ".join(record["parents"]), "names": ", ".join(record["names"])}
    app.table([(key, printable(str(value))) for key, value in shown.items() if value != ""])


def _newest_first(state: State, repo: str) -> list[str]:
    def entry(commit: str) -> int:
        found = state.commit(repo, commit)
        return found.n if found is not None else -1

    return sorted(state.commits_by_prefix(repo, ""), key=entry, reverse=True)


def _names(state: State, repo: str) -> dict[str, list[str]]:
    """Commit to the branches and tags that name it."""
    found: dict[str, list[str]] = {}
    for name, commit in (*state.branches(repo).items(), *state.tags(repo).items()):
        found.setdefault(commit, []).append(name)
    return found


def _record(view: CommitView, names: Iterable[str]) -> dict[str, Any]:
    body = view.body
    return {
        "repo": view.repo,
        "commit": view.id,
        "time": body.time,
        "author": body.author,
        "message": body.message,
        "files": body.files,
        "size": body.size,
        "parents": list(body.parents),
        "job": body.job,
        "names": list(names),
    }
