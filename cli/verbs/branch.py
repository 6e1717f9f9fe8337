"""`branch`: list, create, set, delete."""

from __future__ import annotations

import click

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.refs import Ref, need_repo, parse_ref
from ..app import App
from ..command import Noun
from ..text import short, size, when


@click.group("branch", cls=Noun)
def command() -> None:
    """list, create, set, delete."""


@command.command("list")
@click.argument("repo", metavar="REPO")
@click.pass_obj
def list_(app: App, repo: str) -> None:
    """List the branches of a repo."""
    store = app.data(read_only=True)
    need_repo(store.state, repo)
    rows = []
    for branch, head in store.state.branches(repo).items():
        commit = store.state.commit(repo, head)
        files, bytes_, time = (commit.files, commit.size, commit.time) if commit else (0, 0, "")
        if app.json:
            app.emit({"repo": repo, "branch": branch, "head": head, "files": files, "size": bytes_, "time": time})
        rows.append((f"{repo}@{branch}", short(head), f"{files:,}", size(bytes_), when(time)))
    if not app.json:
        app.table(rows, header=("branch", "head", "files", "size", "changed"), right=frozenset({2, 3}))


@command.command("create")
@click.argument("target", metavar="REPO@BRANCH")
@click.argument("at", required=False, metavar="[REF]")
@click.pass_obj
def create(app: App, target: str, at: str | None) -> None:
    """Make a branch at REF (default: the head of master)."""
    ref = _branch(target)
    store = app.data()
    commit = store[at or ref.repo].id
    store.create_branch(ref.repo, ref.ref, commit)
    _told(app, ref, commit, "is at")


@command.command("set")
@click.argument("target", metavar="REPO@BRANCH")
@click.argument("at", metavar="REF")
@click.pass_obj
def set_(app: App, target: str, at: str) -> None:
    """Move a branch to another commit."""
    ref = _branch(target)
    store = app.data()
    commit = store[at].id
    store.set_branch(ref.repo, ref.ref, commit)
    _told(app, ref, commit, "is now at")


@command.command("delete")
@click.argument("target", metavar="REPO@BRANCH")
@click.pass_obj
def delete(app: App, target: str) -> None:
    """End a branch; its commits stay."""
    ref = _branch(target)
    app.data().delete_branch(ref.repo, ref.ref)
    if app.json:
        app.emit({"repo": ref.repo, "branch": ref.ref, "deleted": True})
    app.say(f"deleted branch {ref.commitish}")


def _branch(target: str) -> Ref:
    ref = parse_ref(target)
    if ref.up or ref.path or "@" not in target:
        raise InvalidInputError(
            f"{target}: expected REPO@BRANCH",
            code=ErrorCode.BAD_REF,
            hint=f"for example: {ref.repo}@staging",
        )
    return ref


def _told(app: App, ref: Ref, commit: str, verb: str) -> None:
    if app.json:
        app.emit({"repo": ref.repo, "branch": ref.ref, "head": commit})
    app.say(f"{ref.commitish} {verb} {short(commit)}")
