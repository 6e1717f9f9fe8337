"""`submit`: record versions of pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...storage.errors import ErrorCode, NotFoundError
from ..app import App
from ..command import Verb, near
from ..settings import Parameters, parameter_options, parse_parameters
from ..submitted import show
from .files import split_words

if TYPE_CHECKING:
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
) -> list[Submitted]:
    """Submit a file, or the one DAG of it that is named."""
    if dag is None:
        return store.submit(path, params=params, code=code, prune=prune, dry_run=dry_run)
    return store.submit([pick_dag(path, dag)], params=params, prune=prune, dry_run=dry_run)


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
@click.option("--check", "-n", is_flag=True, help="Show verdicts; write nothing.")
@parameter_options
@click.pass_obj
def command(
    app: App,
    words: tuple[str, ...],
    more: tuple[str, ...],
    code: Path | None,
    prune: bool,
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
    params = parse_parameters(settings, params_file)
    store = app.store(read_only=check)
    for path, dag in files:
        show(app, submit_file(store, path, dag, params=params, code=code, prune=prune, dry_run=check))
    if check:
        app.say("nothing was written")
