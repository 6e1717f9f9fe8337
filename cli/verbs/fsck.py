"""`fsck`: check everything that a store holds."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
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
@click.option("--repair", is_flag=True, help="Mend what can be mended.")
@click.option(
    "--from", "sources", multiple=True, metavar="URL", help="A clone, an archive or another store to mend from."
)
@click.option("--no-rederive", is_flag=True, help="With --repair: run no code to make lost outputs again.")
@click.pass_obj
def command(
    app: App, links: bool, sample: float | None, repair: bool, sources: tuple[str, ...], no_rederive: bool
) -> int:
    """Check everything that a store holds.

    The ledger's chain, that everything it refers to is there, and that all bytes are what they are named. Exit 1 if
    something is wrong, and still is after --repair.

    With --sample only so much of the stored bytes is read: 100/P such checks read everything.

    --repair puts back what can be had elsewhere in the store or --from another one, verified; makes indexes and
    checkpoints anew; and takes out what nobody has, so that putting it again stores it. What a pipeline made and nobody
    has is made again: this runs recorded code here, on recorded inputs, and takes only what comes out byte for byte as
    it was (--no-rederive: run none). Damaged objects are kept in quarantine/. History is never rewritten.
    """
    if sources and not repair:
        raise click.UsageError("--from goes with --repair")
    if no_rederive and not repair:
        raise click.UsageError("--no-rederive goes with --repair")
    if repair and (sample is not None or links):
        raise click.UsageError("neither --sample nor --links goes with --repair")
    if repair:
        return _repair(app, sources, rederive=not no_rederive)
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


def _repair(app: App, sources: tuple[str, ...], *, rederive: bool) -> int:
    from ...storage.backend import open_backend
    from ...storage.info import put_back_info
    from ...storage.sync import ArchiveBackend, is_archive

    places = [ArchiveBackend(place) if is_archive(place) else open_backend(place) for place in sources]
    where = put_back_info(app.url, places)
    if where:
        app.note(f"dmlpipe.json was put back from {where}")
    if rederive:
        from ...scheduler.rederive import Rederivation

        store = app.store()
        with _stdout_aside():
            mended = store.repair(places, rederive=Rederivation(store))
    else:
        mended = app.data().repair(places)
    if app.json:
        app.emit(mended.to_dict())
        return 0 if mended.ok else FAILED
    for key, how in (*mended.mended, *mended.remade):
        app.line(f"{click.style('mended', fg='green')}  {printable(key)}  {printable(how)}")
    for name, why in mended.refused:
        app.line(f"{click.style('not made again', fg='red')}  {printable(name)}  {printable(why)}")
    for problem in mended.lost:
        _show(app, problem)
    if mended.quarantined:
        app.note(f"{count(len(mended.quarantined), 'damaged object')} kept in quarantine/: delete them at will")
    if not mended.found:
        app.say("all is well: nothing to mend")
    else:
        rest = "all is well" if mended.ok else f"{count(len(mended.lost), 'problem')} left"
        app.say(f"{count(len(mended.found), 'problem')} found, {count(len(mended.mended), 'object')} mended: {rest}")
    if not mended.ok:
        app.note("what is lost: put the files again, or name a place that has them: fsck --repair --from URL")
    if mended.refused:
        app.note("what was not made again: dmlpipe pipeline reprocess PIPELINE makes a new commit with other content")
    return 0 if mended.ok else FAILED


@contextlib.contextmanager
def _stdout_aside() -> Iterator[None]:
    """Have what user code and its children print go to stderr: stdout is for what was mended."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
