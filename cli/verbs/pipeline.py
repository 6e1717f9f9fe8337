"""`pipeline`: list, inspect, versions, diff, stop, start, tick, reprocess, delete."""

from __future__ import annotations

import click

from ...storage import records as r
from ...storage.errors import ErrorCode, NotFoundError
from ...storage.refs import nearest
from ...storage.state import State
from ..app import App
from ..command import Noun
from ..failure import DIFFERS
from ..text import printable, short, when


@click.group("pipeline", cls=Noun)
def command() -> None:
    """list, inspect, versions, diff, stop, start, tick, reprocess, delete."""


@command.command("list")
@click.pass_obj
def list_(app: App) -> None:
    """List pipelines."""
    state = app.data(read_only=True).state
    rows = []
    for name, pipeline in state.pipelines():
        inputs = [f"{repo}@{branch}" for repo, branch in pipeline.inputs]
        head = state.output(name) or ""
        if app.json:
            app.emit(
                {
                    "pipeline": name,
                    "version": pipeline.version,
                    "dag": pipeline.dag,
                    "inputs": inputs,
                    "head": head,
                    "stopped": pipeline.stopped,
                    "held": pipeline.hold is not None,
                    "last_job": pipeline.last_job,
                    "last_state": pipeline.last_state,
                }
            )
        flags = [word for word, on in (("stopped", pipeline.stopped), ("held", pipeline.hold is not None)) if on]
        last = f"{pipeline.last_state} (job {short(pipeline.last_job)})" if pipeline.last_job else "never ran"
        rows.append((name, f"v{pipeline.version}", " ".join(flags) or last, ", ".join(inputs), short(head)))
    if not app.json:
        app.table(rows, header=("pipeline", "", "last job", "inputs", "head"))
        if not rows:
            app.note("no pipelines yet; submit some: dmlpipe submit dag.py")


@command.command("inspect")
@click.argument("name", metavar="PIPELINE")
@click.option("--version", type=click.IntRange(min=1), metavar="N", help="An earlier version.")
@click.pass_obj
def inspect(app: App, name: str, version: int | None) -> None:
    """Say everything about one pipeline."""
    import msgspec

    store = app.store(read_only=True)
    need_pipeline(store.state, name)
    spec = msgspec.to_builtins(store.pipeline_spec(name, version))
    versions = [
        {"version": number, "time": state.time, "by": state.actor, "identity": state.identity}
        for number, state in store.state.versions(name)
    ]
    if app.json:
        app.emit({"pipeline": name, "spec": spec, "versions": versions})
        return
    app.line(msgspec.json.format(msgspec.json.encode(spec), indent=2).decode())
    app.table([(f"v{each['version']}", when(str(each["time"])), str(each["by"])) for each in versions])


@command.command("versions")
@click.argument("name", metavar="PIPELINE")
@click.pass_obj
def versions(app: App, name: str) -> None:
    """List the versions of a pipeline, newest first, and what each changed."""
    rows = []
    for each in app.store(read_only=True).versions(name):
        if app.json:
            app.emit(each.to_dict())
        rows.append((f"v{each.number}", each.kind, when(each.time), each.by, printable("; ".join(each.why))))
    if not app.json:
        app.table(rows)


@command.command("diff")
@click.argument("name", metavar="PIPELINE")
@click.argument("old", type=click.IntRange(min=1), required=False, metavar="[OLD")
@click.argument("new", type=click.IntRange(min=1), required=False, metavar="[NEW]]")
@click.option("--exit-code", is_flag=True, help="Exit 3 if outputs may differ.")
@click.pass_obj
def diff(app: App, name: str, old: int | None, new: int | None, exit_code: bool) -> int:
    """Show how a version differs from an earlier one: why outputs differ, the spec, the code.

    Without numbers: the present version and the one before.
    """
    found = app.store(read_only=True).version_diff(name, old, new)
    if app.json:
        app.emit(found.to_dict())
    else:
        for why in found.why:
            app.line(printable(why))
        click.echo(found.patch, nl=False)
        if not found.why:
            app.say(f"v{found.old} and v{found.new} make the same")
    return DIFFERS if exit_code and found.why else 0


@command.command("stop")
@click.argument("name", metavar="PIPELINE")
@click.pass_obj
def stop(app: App, name: str) -> None:
    """Start no new jobs until `start`."""
    app.store().stop_pipeline(name)
    _told(app, name, "stopped")


@command.command("start")
@click.argument("name", metavar="PIPELINE")
@click.pass_obj
def start(app: App, name: str) -> None:
    """Start jobs again."""
    app.store().start_pipeline(name)
    _told(app, name, "started")


@command.command("tick")
@click.argument("name", metavar="PIPELINE")
@click.argument("input", required=False, metavar="[INPUT]")
@click.pass_obj
def tick(app: App, name: str, input: str | None) -> None:
    """Make a tick of its cron input now (of INPUT; default: of each)."""
    for time in app.store().tick(name, input):
        if app.json:
            app.emit({"pipeline": name, "tick": time})
        app.say(f"{name} ticked at {time}; next: dmlpipe run")


@command.command("reprocess")
@click.argument("name", metavar="PIPELINE")
@click.option(
    "--datum", "datums", multiple=True, metavar="GLOB", help="Only these: images:/cam3/*, or an id. Repeatable."
)
@click.option("--only-failed", is_flag=True, help="Only those that failed or recovered.")
@click.pass_obj
def reprocess(app: App, name: str, datums: tuple[str, ...], only_failed: bool) -> None:
    """Compute datums anew at the next run: all of them, or some."""
    if datums and only_failed:
        raise click.UsageError("--datum and --only-failed exclude each other", click.get_current_context())
    count = app.store().reprocess(name, datums, only_failed=only_failed)
    if app.json:
        app.emit({"pipeline": name, "reprocess": True, "datums": None if count < 0 else count})
    if count:
        what = "all its datums" if count < 0 else f"{count:,} datum{'s' if count != 1 else ''}"
        app.say(f"{name} will compute {what} anew; next: dmlpipe run")
    else:
        app.say(f"no datum of {name} failed: nothing to do")


@command.command("delete")
@click.argument("name", metavar="PIPELINE")
@click.option("--keep-repo", is_flag=True, help="Keep its output repo, which people may then write.")
@click.option("-f", "--force", is_flag=True, help="Delete the repo though other pipelines read it.")
@click.pass_obj
def delete(app: App, name: str, keep_repo: bool, force: bool) -> None:
    """End a pipeline, and its output repo."""
    app.store().delete_pipeline(name, keep_repo=keep_repo, force=force)
    _told(app, name, "deleted")


def need_pipeline(state: State, name: str) -> r.PipelineState:
    """Return a pipeline's state, or raise with the nearest name."""
    found = state.pipeline(name)
    if found is None:
        near = nearest(name, (each for each, _ in state.pipelines()))
        raise NotFoundError(
            f"no pipeline {name!r}",
            code=ErrorCode.NO_PIPELINE,
            hint=(f"did you mean {near}? " if near else "") + "list: dmlpipe pipeline list",
        )
    return found


def _told(app: App, name: str, done: str) -> None:
    if app.json:
        app.emit({"pipeline": name, done: True})
    app.say(f"pipeline {name} is {done}")
