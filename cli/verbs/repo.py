"""`repo`: list, inspect, create, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ...storage.refs import need_repo
from ..app import App
from ..command import Noun
from ..text import printable, short, size, when

if TYPE_CHECKING:
    from ...storage.store import Store


@click.group("repo", cls=Noun)
def command() -> None:
    """list, inspect, create, delete."""


@command.command("list")
@click.pass_obj
def list_(app: App) -> None:
    """List repos."""
    show_repos(app, app.data(read_only=True))


@command.command("inspect")
@click.argument("name", metavar="REPO")
@click.pass_obj
def inspect(app: App, name: str) -> None:
    """Say everything about one repo."""
    store = app.data(read_only=True)
    need_repo(store.state, name)
    record = _record(store, name)
    if app.json:
        app.emit(record)
        return
    app.table([(key, printable(str(value))) for key, value in record.items() if key != "branches"])
    app.table([(f"  {branch}", short(commit)) for branch, commit in store.state.branches(name).items()])


@command.command("create")
@click.argument("name", metavar="REPO")
@click.option("-m", "--description", default="", metavar="TEXT", help="What it is for.")
@click.pass_obj
def create(app: App, name: str, description: str) -> None:
    """Make an empty repo."""
    app.data().create_repo(name, description)
    if app.json:
        app.emit({"repo": name, "created": True})
    app.say(f"made repo {name}")


@command.command("delete")
@click.argument("name", metavar="REPO")
@click.pass_obj
def delete(app: App, name: str) -> None:
    """End a repo; its history stays in the ledger."""
    app.data().delete_repo(name)
    if app.json:
        app.emit({"repo": name, "deleted": True})
    app.say(f"deleted repo {name}")


def show_repos(app: App, store: Store) -> None:
    """List repos with their default branch."""
    rows = []
    for name, _ in store.state.repos():
        record = _record(store, name)
        if app.json:
            app.emit(record)
            continue
        head = f"{name}@{short(record['head'])}" if record["head"] else "no commit"
        about = f"output of {record['pipeline']}" if record["pipeline"] else printable(record["description"])
        rows.append((name, head, f"{record['files']:,}", size(record["size"]), when(record["time"]), about))
    if app.json:
        return
    app.table(rows, header=("repo", "head", "files", "size", "changed", ""), right=frozenset({2, 3}))
    if not rows:
        app.note("no repos yet; make one: dmlpipe put REPO FILE...")


def _record(store: Store, name: str) -> dict[str, Any]:
    state = store.state
    repo = state.repo(name)
    assert repo is not None
    branches = state.branches(name)
    head = branches.get("master") or next(iter(branches.values()), "")
    commit = state.commit(name, head) if head else None
    return {
        "repo": name,
        "head": head,
        "files": commit.files if commit else 0,
        "size": commit.size if commit else 0,
        "time": commit.time if commit else repo.time,
        "created": repo.time,
        "description": repo.description,
        "pipeline": repo.pipeline,
        "branches": branches,
    }
