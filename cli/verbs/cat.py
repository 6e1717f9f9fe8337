"""`cat`: print files of a commit."""

from __future__ import annotations

import shutil
import sys

import click

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.refs import parse_ref
from ..app import App
from ..command import Verb
from ..select import matches


@click.command("cat", cls=Verb)
@click.argument("targets", nargs=-1, required=True, metavar="REF:/path...")
@click.pass_obj
def command(app: App, targets: tuple[str, ...]) -> None:
    """Print files of a commit.

    All names are looked up before the first byte is printed. Globs print all files that they match.
    """
    store = app.data(read_only=True)
    found = []
    for target in targets:
        ref = parse_ref(target)
        if not ref.path:
            raise InvalidInputError(
                f"{target} names no file", code=ErrorCode.BAD_PATH, hint=f"for example: dmlpipe cat {ref.repo}:/a.txt"
            )
        view = store[ref]
        for info in matches(view, ref.path):
            if info.is_folder:
                raise InvalidInputError(
                    f"{ref.repo}:{info.path} is a folder",
                    code=ErrorCode.BAD_PATH,
                    hint=f"list: dmlpipe ls {ref.repo}:{info.path}",
                )
            found.append((view, info.path))
    out = sys.stdout.buffer
    for view, path in found:
        with view.open(path) as file:
            shutil.copyfileobj(file, out, 1 << 20)
    out.flush()
