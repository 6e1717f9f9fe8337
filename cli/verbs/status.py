"""`status`: where every pipeline stands, who drives, what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..app import App
from ..command import Verb
from ..text import count, printable, short, when
from .job import show_jobs
from .wait import need_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...scheduler.report import PipelineStatus, StoreStatus


@click.command("status", cls=Verb)
@click.argument("run", required=False, metavar="[RUN]")
@click.pass_obj
def command(app: App, run: str | None) -> None:
    """Show where every pipeline stands.

    With RUN (the first digits of its id): the jobs of that run.
    """
    if run is not None:
        state = app.data(read_only=True).state
        found = state.run(need_run(state, run))
        jobs = found.jobs if found else ()
        show_jobs(app, [(name, job) for name in jobs if (job := state.job(name)) is not None])
        return
    status = app.store(read_only=True).status()
    if app.json:
        plain = status.to_dict()
        pipelines = plain.pop("pipelines")
        app.emit({"type": "store", **plain})
        for each in pipelines:
            app.emit({"type": "pipeline", **each})
        return
    _show(app, status)


def _show(app: App, status: StoreStatus) -> None:
    parts = [f"store {status.url}", count(status.entries, "entry"), f"controller: {_controller(status)}"]
    if status.run:
        parts.append(f"run {short(status.run)} under way")
    app.line("   ".join(parts))
    if status.cluster:
        app.line(_cluster(status.cluster))
    app.table(
        [_row(each) for each in status.pipelines],
        header=("pipeline", "", "state", "head", "files", "last job", "ended", ""),
        right=frozenset({4}),
    )
    if not status.pipelines:
        app.note("no pipelines yet; submit some: dmlpipe submit dag.py")


def _controller(status: StoreStatus) -> str:
    # An `up` that found nothing to do yet has not taken the store.
    return "up, idle" if status.cluster and status.controller == "none" else status.controller


def _cluster(cluster: Mapping[str, Any]) -> str:
    processes = ", ".join(f"{name} {pid}" for name, pid in cluster.get("processes", {}).items())
    since = when(str(cluster.get("since", "")))
    return (
        f"cluster: {count(cluster.get('slots', 0), 'slot')} at {cluster.get('address', '')} since {since}"
        f"   processes: {processes}   logs: {cluster.get('logs', '')}"
    )


def _progress(each: PipelineStatus) -> str:
    """Numbers of a running job, as the live table of its `run` has them."""
    if each.progress is None:
        return ""
    from ..progress import advanced_text

    return advanced_text(each.progress)


def _row(each: PipelineStatus) -> tuple[str, ...]:
    numbers = ""
    if each.counters is not None:
        numbers = f"{each.counters.run:,} run, {each.counters.skipped:,} skipped"
        numbers += f", {each.counters.failed:,} failed" if each.counters.failed else ""
    return (
        each.name,
        f"v{each.version}",
        each.state,
        short(each.head) or "no commit",
        f"{each.files:,}",
        f"{short(each.job)}  {numbers}" if each.job else "",
        when(each.ended),
        printable(each.detail) or _progress(each),
    )
