"""`tag`: list, create, delete."""

from __future__ import annotations

import click

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.refs import Ref, need_repo, parse_ref
from ..app import App
from ..command import Noun
from ..text import short, size, when


@click.group("tag", cls=Noun)
def command() -> None:
    """list, create, delete."""


@command.command("list")
@click.argument("repo", metavar="REPO")
@click.pass_obj
def list_(app: App, repo: str) -> None:
    """List the tags of a repo."""
    store = app.data(read_only=True)
    need_repo(store.state, repo)
    rows = []
    for tag, name in store.state.tags(repo).items():
        commit = store.state.commit(repo, name)
        files, bytes_, time = (commit.files, commit.size, commit.time) if commit else (0, 0, "")
        if app.json:
            app.emit({"repo": repo, "tag": tag, "commit": name, "files": files, "size": bytes_, "time": time})
        rows.append((f"{repo}@{tag}", short(name), f"{files:,}", size(bytes_), when(time)))
    if not app.json:
        app.table(rows, header=("tag", "commit", "files", "size", "made"), right=frozenset({2, 3}))


@command.command("create")
@click.argument("target", metavar="REPO@TAG")
@click.argument("at", required=False, metavar="[REF]")
@click.option("--force", is_flag=True, help="Move a tag that exists.")
@click.pass_obj
def create(app: App, target: str, at: str | None, force: bool) -> None:
    """Name a commit REF (default: the head of master)."""
    ref = _tag(target)
    commit = app.data().create_tag(ref.repo, ref.ref, at, force=force).commit
    if app.json:
        app.emit({"repo": ref.repo, "tag": ref.ref, "commit": commit})
    app.say(f"{ref.commitish} is {short(commit)}")


@command.command("delete")
@click.argument("target", metavar="REPO@TAG")
@click.pass_obj
def delete(app: App, target: str) -> None:
    """Remove a tag; its commit stays."""
    ref = _tag(target)
    app.data().delete_tag(ref.repo, ref.ref)
    if app.json:
        app.emit({"repo": ref.repo, "tag": ref.ref, "deleted": True})
    app.say(f"deleted tag {ref.commitish}")


def _tag(target: str) -> Ref:
    ref = parse_ref(target)
    if ref.up or ref.path or "@" not in target:
        raise InvalidInputError(
            f"{target}: expected REPO@TAG", code=ErrorCode.BAD_REF, hint=f"for example: {ref.repo}@v1"
        )
    return ref
