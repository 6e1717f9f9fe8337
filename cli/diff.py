"""`diff`: compare two commits, or a commit and a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..storage.errors import ErrorCode, InvalidInputError
from ..storage.refs import Ref, parse_ref
from .app import App
from .command import Verb
from .failure import DIFFERS
from .text import count, printable, size

if TYPE_CHECKING:
    from ..storage.diff import Change

_SIGNS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


@click.command("diff", cls=Verb)
@click.argument("old", metavar="A")
@click.argument("new", metavar="B")
@click.option("--exit-code", is_flag=True, help="Exit 3 if they differ.")
@click.pass_obj
def command(app: App, old: str, new: str, exit_code: bool) -> int:
    """Compare two commits, or a commit and a folder.

    A and B are REF[:/path]; one may be a local file or folder, which begins with . or /. From A to B: + is new in B,
    - is gone, ~ differs.
    """
    local_old, local_new = _is_local(old), _is_local(new)
    if local_old and local_new:
        raise InvalidInputError(
            "diff needs a commit on one side at least",
            code=ErrorCode.BAD_REF,
            hint=f"for example: dmlpipe diff images {new}",
        )
    for side, local in ((old, local_old), (new, local_new)):
        if local and not Path(side).exists():
            raise InvalidInputError(f"no such file or folder: {side}", code=ErrorCode.NO_FILE)
    left, right = (None if local else parse_ref(side) for side, local in ((old, local_old), (new, local_new)))
    store = app.data(read_only=True)
    if left is not None and right is not None:
        if (left.path or "") != (right.path or "") and right.path is not None:
            raise InvalidInputError(
                f"diff compares one path in two commits, not /{left.path or ''} with /{right.path}",
                code=ErrorCode.BAD_PATH,
            )
        changes = store[left].diff(store[right], left.path or "/")
        turned = False
    else:
        ref, folder, turned = _sides(left, right, old, new)
        changes = store[ref].diff(folder, ref.path or "/", skip=store.backend.properties.path)
    return _show(app, list(changes), turned, exit_code)


def _sides(left: Ref | None, right: Ref | None, old: str, new: str) -> tuple[Ref, str, bool]:
    if left is not None:
        return left, new, False
    assert right is not None
    return right, old, True


def _show(app: App, changes: list[Change], turned: bool, exit_code: bool) -> int:
    tally = {"added": 0, "removed": 0, "changed": 0}
    for change in changes:
        kind = change.kind
        record = change.to_dict()
        if turned:
            kind = {"added": "removed", "removed": "added"}.get(kind, kind)
            record |= {"change": kind, "old_size": record["new_size"], "new_size": record["old_size"]}
        tally[kind] += 1
        if app.json:
            app.emit(record)
            continue
        sign, colour = _SIGNS[kind]
        app.line(f"{click.style(sign, fg=colour)} {printable(change.path)}")
    grown = sum(change.size_change for change in changes) * (-1 if turned else 1)
    told = ", ".join(f"{number:,} {kind}" for kind, number in tally.items() if number) or "no difference"
    sized = f", {'+' if grown >= 0 else '-'}{size(abs(grown))}" if changes else ""
    if not app.json and app.verbosity >= 0:
        click.echo(f"{count(len(changes), 'file') + ': ' if changes else ''}{told}{sized}", err=True)
    return DIFFERS if exit_code and changes else 0


def _is_local(side: str) -> bool:
    return side.startswith((".", "/"))
