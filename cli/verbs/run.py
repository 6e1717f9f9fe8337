"""`run`: bring branches up to date in this process, show it, exit."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...storage.refs import DEFAULT_BRANCH
from ..app import App
from ..command import Verb
from ..failure import FAILED, INTERRUPTED
from ..settings import cache_option, parameter_options, parse_parameters, spec_options, spec_settings
from ..submitted import header, to_dict
from .files import split_words
from .submit import submit_file

if TYPE_CHECKING:
    from ...scheduler.report import Report, RunSummary
    from ...scheduler.store import Store

_PICTURES = (".png", ".svg", ".jpg", ".jpeg", ".gif")
_REPORT_FROM = 100
"""Datums run from which a job's page is worth a look: a timeline of a few says nothing."""


@click.command("run", cls=Verb)
@click.argument("words", nargs=-1, metavar="[FILE...] [TARGET...]")
@click.option(
    "-j", "--slots", type=click.IntRange(min=1), metavar="N", help="Places that run user code. Default: cores."
)
@cache_option
@spec_options
@click.option("--prune", is_flag=True, help="Remove pipelines that are no longer in FILE.")
@click.option(
    "--scheduler", metavar="ADDRESS", help="Compute on the Dask cluster at tcp://HOST:PORT, which stays as it was."
)
@parameter_options
@click.pass_obj
def command(
    app: App,
    words: tuple[str, ...],
    slots: int | None,
    scheduler: str | None,
    code: Path | None,
    container: str | None,
    arguments: tuple[str, ...],
    prune: bool,
    settings: tuple[str, ...],
    params_file: Path | None,
) -> int:
    """Bring branches up to date, and show how.

    Submits each FILE (*.py, *.json, *.yaml) first. TARGET limits the run to these pipelines and what they need.
    """
    if scheduler and slots:
        raise click.UsageError("-j says how many slots a cluster for this run has; that of --scheduler has its own")
    files, targets = split_words(words)
    params = parse_parameters(settings, params_file)
    given = spec_settings(code, container, arguments)
    if not files and (params or any(given.values()) or prune):
        what = "--code" if code else "--prune" if prune else "--set" if settings else "--params"
        what = "--container" if container else "--arg" if arguments else what
        raise click.UsageError(f"{what} needs a FILE to submit", click.get_current_context())
    store = app.store()
    for path, dag in files:
        submitted = submit_file(store, path, dag, params=params, given=given, prune=prune)
        for notice in dict.fromkeys(notice for each in submitted for notice in each.notices):
            app.note(notice)
        if app.json:
            for each in submitted:
                app.emit({"type": "submitted", **to_dict(each)})
        elif app.verbosity >= 0:
            click.echo(header(store.state, submitted, path.stem), err=True)
    return drive(app, store, slots=slots, targets=targets, scheduler=scheduler)


def drive(app: App, store: Store, *, slots: int | None, targets: list[str], scheduler: str | None = None) -> int:
    """Run and show it; return the exit code."""
    from ...scheduler.errors import JobFailed

    observer = _Watch(app, store)
    try:
        with observer:
            summary = store.run(slots=slots, targets=targets, observer=observer, client=scheduler)
    except JobFailed as error:
        if not error.summary.jobs:
            raise
        _tell(app, error.summary, ())
        return FAILED
    except KeyboardInterrupt:
        _tell_interrupted(app)
        return INTERRUPTED
    if not summary.jobs and not app.json and next(iter(store.state.pipelines()), None) is None:
        app.say("nothing to do: no pipelines yet")
        app.note("submit some: dmlpipe run dag.py")
    else:
        _tell(app, summary, _look(store, summary))
    return 0 if summary.ok else FAILED


class _Watch:
    """The observer that the options ask for: a table, lines, JSON or nothing."""

    def __init__(self, app: App, store: Store) -> None:
        from ..progress import Progress

        self._app = app
        self._progress = Progress(
            app.console(err=True),
            live=not app.plain and not app.json and app.verbosity >= 0,
            upstream=lambda name: _upstream(store, name),
        )
        self._shown = app.verbosity >= 0 and not app.json
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _Watch:
        if self._shown:
            self._stack.enter_context(self._progress)
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def __call__(self, report: Report, /) -> None:
        if self._app.json:
            import msgspec

            self._app.emit(msgspec.to_builtins(report))
        elif self._shown:
            self._progress(report)


def _upstream(store: Store, name: str) -> list[str]:
    pipeline = store.state.pipeline(name)
    return [repo for repo, _branch in pipeline.inputs] if pipeline else []


def _tell(app: App, summary: RunSummary, look: tuple[str, ...]) -> None:
    if app.json:
        app.emit({"type": "summary", **summary.to_dict()})
        return
    from ..summary import summary_lines

    if summary.ok and app.verbosity < 0:
        return
    console = app.console()
    for line in summary_lines(summary, look=look):
        console.print(line, soft_wrap=True)


def _tell_interrupted(app: App) -> None:
    # How many results of each job are kept, its controller has said.
    if app.json:
        app.emit({"type": "interrupted"})
    else:
        click.echo("interrupted; what is finished is kept: dmlpipe run goes on from there", err=True)


def _look(store: Store, summary: RunSummary) -> tuple[str, ...]:
    """Commands worth typing next: a picture to get, a result of the pipeline with most datums to explain, its page."""
    made = {job.pipeline: job for job in summary.jobs if job.commit and job.counters.total}
    files = {name: _first_paths(store, job.commit) for name, job in made.items()}
    commands = []
    pictures = [(name, path) for name in reversed(files) for path in files[name] if path.lower().endswith(_PICTURES)]
    if pictures:
        commands.append(f"dmlpipe get {_output(store, pictures[0][0])}:/{pictures[0][1]} .")
    # Of equally many the last, which is downstream of the others: `max` takes the first that it meets.
    most = max((name for name in reversed(made) if files[name]), key=lambda name: made[name].counters.total, default="")
    if most:
        commands.append(f"dmlpipe why {_output(store, most)}:/{files[most][0]}")
        if made[most].counters.run >= _REPORT_FROM:
            commands.append(f"dmlpipe job report {most} -o {most}.html")
    return tuple(commands)


def _output(store: Store, pipeline: str) -> str:
    """Where a pipeline publishes, as short as can be."""
    found = store.state.pipeline(pipeline)
    return pipeline if found is None or found.branch == DEFAULT_BRANCH else f"{pipeline}@{found.branch}"


def _first_paths(store: Store, commit: str) -> list[str]:
    found: list[str] = []
    for path, _value in store.tree(store.body(commit).tree).scan():
        found.append(path.decode())
        if len(found) == 3:
            break
    return found
