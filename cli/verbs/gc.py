"""`gc`: give back the space of what nothing refers to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..app import App
from ..command import Verb
from ..text import count, size

if TYPE_CHECKING:
    from ...storage.gc.plan import Plan


@click.command("gc", cls=Verb)
@click.option("-n", "--dry-run", is_flag=True, help="Say what would go and how many bytes.")
@click.option("--mark", "mark_only", is_flag=True, help="Keep the list of what would go, to be looked at first.")
@click.option("--sweep", metavar="ID", help="Take only what the list ID names, and is still garbage.")
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="Leave what was written so recently and is not published yet.",
)
@click.pass_obj
def command(app: App, dry_run: bool, mark_only: bool, sweep: str | None, grace: float) -> None:
    """Give back the space of what nothing refers to.

    Safe while others write and jobs run. First ends the commits that a repo's rule lets go of (`commit keep`) and those
    of deleted repos; then deletes what no commit, tag, pipeline, job or result in memory needs. History in the ledger
    stays. Results that may be reused are never taken.
    """
    if sum((dry_run, mark_only, sweep is not None)) > 1:
        raise click.UsageError("-n, --mark and --sweep exclude each other", click.get_current_context())
    store = app.data()
    from ...storage.gc.run import collect, look, mark

    if dry_run:
        _show(app, look(store, grace_s=grace * 3600), "would free")
        return
    if mark_only:
        name, plan = mark(store, grace_s=grace * 3600)
        _show(app, plan, "would free", mark=name)
        app.say(f"take these, and nothing else: dmlpipe gc --sweep {name}")
        return
    done = collect(store, grace_s=grace * 3600, mark=sweep)
    if app.json:
        app.emit(done.to_dict())
        return
    if done.dropped:
        app.say(f"ended {count(done.dropped, 'commit')}")
    if done.temporaries:
        app.say(f"removed {count(done.temporaries, 'leftover file')}")
    app.say(f"deleted {count(done.swept.objects, 'object')}, freed {size(done.swept.freed_bytes)}")


def _show(app: App, plan: Plan, verb: str, *, mark: str = "") -> None:
    if app.json:
        app.emit({**plan.to_dict(), "mark": mark})
        return
    for kind, (objects, freed) in plan.counts().items():
        app.line(f"{kind:<8} {objects:>8,}  {size(freed):>10}")
    if app.verbosity > 0:
        for key, bytes_ in (*plan.keys, *plan.dead):
            app.line(f"{key}  {size(bytes_)}")
        for key, bytes_, alive in plan.repack:
            app.line(f"{key}  {size(bytes_)}, {size(alive)} of it in use: packed anew")
    if plan.young:
        app.note(f"{count(plan.young, 'object')} ({size(plan.young_bytes)}) written too recently: left")
    more = ", and more after that" if plan.more else ""
    app.say(f"{verb} {size(plan.freed_bytes)} in {count(plan.objects, 'object')}{more}")
