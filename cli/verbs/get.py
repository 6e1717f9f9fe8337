"""`get`: copy files out of a commit."""

from __future__ import annotations

import click

from ...storage.refs import parse_ref
from ..app import App
from ..command import Verb
from ..select import matches
from ..text import count


@click.command("get", cls=Verb)
@click.argument("target", metavar="REF[:/path]")
@click.argument("dest", type=click.Path(), metavar="DEST")
@click.pass_obj
def command(app: App, target: str, dest: str) -> None:
    """Copy files out of a commit.

    A folder's contents land in DEST, which is made; a file lands in DEST if that is a folder, else it gets that name.
    """
    ref = parse_ref(target)
    view = app.data(read_only=True)[ref]
    found = list(matches(view, ref.path or ""))
    if len(found) > 1:
        from pathlib import Path

        Path(dest).mkdir(parents=True, exist_ok=True)
    written = 0
    for info in found:
        # Several folders would otherwise pour their contents into one.
        at = f"{dest}/{info.name}" if len(found) > 1 and info.is_folder else dest
        written += view.get(info.path, at)
    if app.json:
        app.emit({"repo": view.repo, "commit": view.id, "dest": dest, "files": written})
    app.say(f"wrote {count(written, 'file')} to {dest}")
