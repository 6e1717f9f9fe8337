"""`merge`: bring what one branch changed into another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ...storage.refs import parse_ref
from ..app import App
from ..command import Verb
from ..text import count, printable, short

if TYPE_CHECKING:
    from ...storage.sessions.branch_merge import MergeResult
    from ...storage.trees.merge import Conflict


@click.command("merge", cls=Verb)
@click.argument("source", metavar="REPO@REF")
@click.option("--into", default="master", metavar="BRANCH", help="Branch that gets the changes. Default: master.")
@click.option("-m", "--message", default="", metavar="TEXT", help="What the merge is.")
@click.option("--prefer", type=click.Choice(["ours", "theirs"]), help="Who wins conflicts: BRANCH, or REPO@REF.")
@click.option("--no-ff", is_flag=True, help="Make a commit even where moving the branch would do.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would happen; write nothing.")
@click.pass_obj
def command(app: App, source: str, into: str, message: str, prefer: str | None, no_ff: bool, dry_run: bool) -> None:
    """Merge a branch into another.

    A path that both changed differently is a conflict: it is named, and nothing is written.
    """
    from ...storage.sessions.branch_merge import MergeConflictError

    ref = parse_ref(source)
    store = app.data(read_only=dry_run)
    try:
        result = store.merge(
            ref.repo,
            ref,
            into=into,
            message=message,
            strategy=prefer or "refuse",
            fast_forward=not no_ff,
            dry_run=dry_run,
        )
    except MergeConflictError as error:
        _list(app, error.conflicts)
        raise
    _list(app, result.conflicts, prefer)
    _show(app, result, f"{ref.repo}@{into}", source, dry_run)


def _list(app: App, conflicts: tuple[Conflict, ...], winner: str | None = None) -> None:
    for conflict in conflicts:
        if app.json:
            app.emit({"type": "conflict", **conflict.to_dict(), "winner": winner})
        else:
            settled = f"; {winner} is taken" if winner else ""
            app.line(f"{click.style('!', fg='red')} {printable(conflict.path)}  {conflict.reason}{settled}")


def _show(app: App, result: MergeResult, branch: str, source: str, dry_run: bool) -> None:
    if app.json:
        app.emit(
            {
                "type": "merge",
                "result": result.kind,
                "branch": branch,
                "head": result.commit.id,
                "source": result.source.id,
                "changed": result.taken,
                "conflicts": len(result.conflicts),
                "dry_run": dry_run,
            }
        )
        return
    if result.kind == "up-to-date":
        app.say(f"{branch} has all of {source} already")
    elif dry_run:
        app.say(f"would change {count(result.taken, 'file')} of {branch} ({result.kind}); nothing was written")
    else:
        how = "moved on to" if result.kind == "fast-forward" else "merged with"
        app.say(f"{branch} is at {short(result.commit.id)}: {how} {source}, {count(result.taken, 'file')} changed")
