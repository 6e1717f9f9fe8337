"""`fsck`: check everything that a store holds."""

from __future__ import annotations

import click

from ..app import App
from ..command import Verb
from ..failure import FAILED
from ..text import count, printable, size


@click.command("fsck", cls=Verb)
@click.option("--links", is_flag=True, help="Also look whether linked files are still what was put.")
@click.pass_obj
def command(app: App, links: bool) -> int:
    """Check everything that a store holds.

    The ledger's chain, that everything it refers to is there, and that all bytes are what they are named. Repairs
    nothing. Exit 1 if something is wrong.
    """
    report = app.data(read_only=True).fsck(links=links)
    if app.json:
        app.emit(report.to_dict())
        return 0 if report.ok else FAILED
    for problem in report.problems:
        app.line(f"{click.style(problem.kind, fg='red')}  {problem.object}  {printable(problem.message)}")
        for touched in problem.touches:
            app.line(f"  touches {printable(touched)}")
    for ignored in report.ignored:
        app.note(ignored)
    read = f"{count(report.entries, 'ledger entry')}, {count(report.commits, 'commit')}, "
    read += f"{count(report.objects, 'object')} ({size(report.size_bytes)}) read"
    orphans = f", {count(report.orphans, 'orphan')}" if report.orphans else ""
    if report.links:
        orphans += f", {count(report.links, 'link')}{'' if links else ' not looked at (--links)'}"
    verdict = "all is well" if report.ok else count(len(report.problems), "problem")
    app.say(f"{read}{orphans}: {verdict}")
    return 0 if report.ok else FAILED
