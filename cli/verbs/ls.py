"""`ls`: list repos, or files of a commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ...storage.refs import parse_ref
from ..app import App
from ..command import Verb
from ..select import is_glob
from ..text import printable, size
from .repo import show_repos

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...storage.commits import CommitView, FileInfo


@click.command("ls", cls=Verb)
@click.argument("targets", nargs=-1, metavar="[REF[:/path or glob]...]")
@click.option("-R", "--recursive", is_flag=True, help="All files below.")
@click.option("-l", "--long", is_flag=True, help="With sizes.")
@click.pass_obj
def command(app: App, targets: tuple[str, ...], recursive: bool, long: bool) -> None:
    """List repos, or files of a commit.

    Without REF: the repos. Quote globs: 'images:/*.png' ('**' crosses folders).
    """
    store = app.data(read_only=True)
    if not targets:
        show_repos(app, store)
        return
    for target in targets:
        ref = parse_ref(target)
        view = store[ref]
        for info in _listed(view, ref.path or "", recursive):
            if app.json:
                app.emit({"repo": view.repo, "commit": view.id, **info.to_dict()})
            else:
                app.line(_line(info, long))


def _listed(view: CommitView, path: str, recursive: bool) -> Iterator[FileInfo]:
    if not is_glob(path) or view.exists(path):
        yield from view.ls(path, recursive=recursive)
        return
    for info in view.glob(f"/{path}"):
        if info.is_folder and recursive:
            yield from view.ls(info.path, recursive=True)
        else:
            yield info


def _line(info: FileInfo, long: bool) -> str:
    name = printable(info.path) + ("/" if info.is_folder else "")
    if not long:
        return name
    return f"{size(info.size) if info.size is not None else '-':>9}  {name}"
