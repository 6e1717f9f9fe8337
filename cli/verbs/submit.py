"""`submit`: record versions of pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...storage.errors import ErrorCode, NotFoundError
from ..app import App
from ..command import Verb, near
from ..settings import Parameters, parameter_options, parse_parameters
from ..submitted import show
from .files import split_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...scheduler.pipelines.dag import DAG
    from ...scheduler.report import Submitted
    from ...scheduler.store import Store


def submit_file(
    store: Store,
    path: Path,
    dag: str | None,
    *,
    params: Parameters,
    code: Path | None = None,
    prune: bool = False,
    dry_run: bool = False,
    reprocess: bool = False,
    same: Sequence[str] = (),
    if_same: int = 0,
    why: str = "",
) -> list[Submitted]:
    """Submit a file, or the one DAG of it that is named."""
    what: Any = path if dag is None else [pick_dag(path, dag)]
    return store.submit(
        what,
        params=params,
        code=code if dag is None else None,
        prune=prune,
        dry_run=dry_run,
        reprocess=reprocess,
        same=same,
        if_same=if_same,
        why=why,
    )


def pick_dag(path: Path, name: str) -> DAG:
    """Return the DAG of a file that ``FILE:NAME`` names."""
    from ...scheduler.pipelines.load import load_dags

    dags = {each.name: each for each in load_dags(path)}
    if name not in dags:
        meant = near(name, dags)
        raise NotFoundError(
            f"{path}: no DAG {name!r} in this file",
            code=ErrorCode.NOT_FOUND,
            hint=f"did you mean {path}:{meant}?" if meant else f"there are: {', '.join(dags)}",
        )
    return dags[name]


@click.command("submit", cls=Verb)
@click.argument("words", nargs=-1, metavar="FILE[:NAME]...")
@click.option("-f", "--file", "more", multiple=True, hidden=True, help="As pachctl spells it.")
@click.option(
    "--code",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Scripts of a spec: recorded in the version, mounted at /code.",
)
@click.option("--prune", is_flag=True, help="Remove pipelines of the DAG that are no longer in the file.")
@click.option("--reprocess", is_flag=True, help="Compute all datums anew at the next run.")
@click.option(
    "--same", multiple=True, metavar="P", help="P's new code makes the same: its results stand. Repeatable; recorded."
)
@click.option(
    "--if-same",
    type=click.IntRange(min=1),
    metavar="N",
    help="Where only code changed, compute N datums anew; if they are equal, results stand.",
)
@click.option("-m", "--message", default="", metavar="WHY", help="Recorded with --same.")
@click.option("--check", "-n", is_flag=True, help="Show verdicts; write nothing.")
@parameter_options
@click.pass_obj
def command(
    app: App,
    words: tuple[str, ...],
    more: tuple[str, ...],
    code: Path | None,
    prune: bool,
    reprocess: bool,
    same: tuple[str, ...],
    if_same: int | None,
    message: str,
    check: bool,
    settings: tuple[str, ...],
    params_file: Path | None,
) -> None:
    """Record pipelines of a DAG or spec file.

    FILE is a Python file with DAGs, or a Pachyderm spec in JSON or YAML as it is. NAME picks one DAG of the file.
    """
    files, rest = split_words([*words, *more])
    if rest:
        raise click.UsageError(f"{rest[0]!r} is no FILE: expected *.py, *.json or *.yaml", click.get_current_context())
    if not files:
        raise click.UsageError("missing FILE", click.get_current_context())
    if reprocess and (same or if_same):
        raise click.UsageError("--reprocess excludes --same and --if-same", click.get_current_context())
    if same and len(files) > 1:
        raise click.UsageError("--same takes one FILE", click.get_current_context())
    params = parse_parameters(settings, params_file)
    store = app.store(read_only=check)
    for path, dag in files:
        submitted = submit_file(
            store,
            path,
            dag,
            params=params,
            code=code,
            prune=prune,
            dry_run=check,
            reprocess=reprocess,
            same=same,
            if_same=if_same or 0,
            why=message,
        )
        show(app, submitted)
    if check:
        app.say("nothing was written")
