"""`commit`: list, inspect, squash, delete, keep."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.refs import need_repo
from ..app import App
from ..command import Noun
from ..text import printable, short, size, when

if TYPE_CHECKING:
    from ...storage.commits import CommitView
    from ...storage.state import State


@click.group("commit", cls=Noun)
def command() -> None:
    """list, inspect, squash, delete, keep."""


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
    failed = sum(1 for _ in store.tree(view.body.failed).scan())
    record |= {"tree": view.body.tree, "entry": found.n if found else None, "failed": failed}
    if app.json:
        app.emit(record)
        return
    shown = record | {"parents": ", ".join(record["parents"]), "names": ", ".join(record["names"])}
    # Datums that max_failures let pass: their outputs are not in this commit.
    shown["failed"] = f"{failed:,} (list: dmlpipe datum list {short(view.job)} --failed)" if failed else ""
    app.table([(key, printable(str(value))) for key, value in shown.items() if value != ""])


@command.command("squash")
@click.argument("target", metavar="REPO@REF")
@click.pass_obj
def squash(app: App, target: str) -> None:
    """End a commit that others followed; what it brought stays in those.

    Its space comes back with the next `gc`.
    """
    from ...storage.gc.retain import plan_squash

    store = app.data()
    view = store[target]
    store.publish(lambda state: plan_squash(state, view.repo, view.id, lambda commit: store.body(commit).parents))
    if app.json:
        app.emit({"repo": view.repo, "commit": view.id, "squashed": True})
    app.say(f"squashed {view.repo}@{short(view.id)}")


@command.command("delete")
@click.argument("target", metavar="REPO@REF")
@click.pass_obj
def delete(app: App, target: str) -> None:
    """Take a branch's newest commit back; the branch goes to the one before.

    Pipelines that read the branch run on that. The space comes back with the next `gc`.
    """
    from ...storage.gc.retain import plan_delete
    from ...storage.sessions.publish import refuse_output

    store = app.data()
    view = store[target]
    refuse_output(store.state, view.repo)
    store.publish(lambda state: plan_delete(state, view.repo, view.id, lambda commit: store.body(commit).parents))
    if app.json:
        app.emit({"repo": view.repo, "commit": view.id, "deleted": True})
    app.say(f"deleted {view.repo}@{short(view.id)}")


@command.command("keep")
@click.argument("repo", metavar="REPO")
@click.option("--last", type=click.IntRange(min=0), default=0, metavar="N", help="The newest N commits of each branch.")
@click.option("--days", type=click.FloatRange(min=0), default=0.0, metavar="N", help="Commits younger than N days.")
@click.option("--all", "everything", is_flag=True, help="Everything, for ever: no rule.")
@click.pass_obj
def keep(app: App, repo: str, last: int, days: float, everything: bool) -> None:
    """Say which commits of a repo are kept; `gc` ends the others.

    Heads, tagged and held commits, and what a run uses, are kept anyway. Without options: show the rule.
    """
    from ...storage.records import KeepSet

    if everything and (last or days):
        raise InvalidInputError("--all excludes --last and --days", code=ErrorCode.INVALID)
    if "@" in repo:
        raise InvalidInputError(f"{repo}: a rule is for a whole repo", code=ErrorCode.BAD_REF)
    changes = bool(everything or last or days)
    store = app.data(read_only=not changes)
    need_repo(store.refresh(), repo)
    if changes:
        store.publish([KeepSet(repo=repo, last=last, days=days)])
    rule = store.state.keep(repo)
    if app.json:
        app.emit({"repo": repo, "last": rule.last if rule else 0, "days": rule.days if rule else 0.0})
        return
    if rule is None:
        app.say(f"{repo} keeps all commits")
        return
    parts = [f"the last {rule.last} of each branch"] * bool(rule.last) + [f"those of {rule.days:g} days"] * bool(
        rule.days
    )
    app.say(f"{repo} keeps {' and '.join(parts)}")


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
