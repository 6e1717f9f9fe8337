"""`fsck`: check everything that a store holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..app import App
from ..command import Verb
from ..failure import FAILED
from ..percent import PERCENT
from ..text import count, printable, size

if TYPE_CHECKING:
    from ...storage.fsck import Problem

_TOUCHES_SHOWN = 10


@click.command("fsck", cls=Verb)
@click.option("--links", is_flag=True, help="Also look whether linked files are still what was put.")
@click.option("--sample", type=PERCENT, metavar="P%", help="Read only so much, what was checked longest ago.")
@click.pass_obj
def command(app: App, links: bool, sample: float | None) -> int:
    """Check everything that a store holds.

    The ledger's chain, that everything it refers to is there, and that all bytes are what they are named. Exit 1 if
    something is wrong.

    With --sample only so much of the stored bytes is read: 100/P such checks read everything.
    """
    report = app.data(read_only=True).fsck(links=links, sample=sample)
    if app.json:
        app.emit(report.to_dict())
        return 0 if report.ok else FAILED
    for problem in report.problems:
        _show(app, problem)
    for ignored in report.ignored:
        app.note(ignored)
    read = f"{count(report.entries, 'ledger entry')}, {count(report.commits, 'commit')}, "
    read += f"{count(report.objects, 'object')} ({size(report.size_bytes)}) read"
    if sample is not None:
        read += f" of {report.stored:,}"
        read += f", {report.never:,} never checked so far" if report.never else ", all were checked before"
    orphans = f", {count(report.orphans, 'orphan')}" if report.orphans else ""
    if report.links:
        orphans += f", {count(report.links, 'link')}{'' if links else ' not looked at (--links)'}"
    verdict = "all is well" if report.ok else count(len(report.problems), "problem")
    app.say(f"{read}{orphans}: {verdict}")
    return 0 if report.ok else FAILED


def _show(app: App, problem: Problem) -> None:
    app.line(f"{click.style(problem.kind, fg='red')}  {problem.object}  {printable(problem.message)}")
    for touched in problem.touches[:_TOUCHES_SHOWN]:
        others = f", in {count(len(touched.others), 'other commit')} too" if touched.others else ""
        app.line(f"  touches {printable(touched.name)}{others}")
    if len(problem.touches) > _TOUCHES_SHOWN:
        app.line(f"  touches {len(problem.touches) - _TOUCHES_SHOWN:,} more: --json names all")
