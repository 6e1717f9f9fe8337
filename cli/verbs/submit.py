"""`submit`: record versions of pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...storage.errors import ErrorCode, NotFoundError
from ..app import App
from ..command import Verb, near
from ..settings import Parameters, parameter_options, parse_parameters, spec_options, spec_settings
from ..submitted import show, show_effective
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
    given: Mapping[str, Any],
    prune: bool = False,
    dry_run: bool = False,
    reprocess: bool = False,
    same: Sequence[str] = (),
    if_same: int = 0,
    why: str = "",
) -> list[Submitted]:
    """Submit a file, or the one DAG of it that is named; `given` is what belongs to specifications."""
    what: Any = path if dag is None else [pick_dag(path, dag)]
    return store.submit(
        what,
        params=params,
        prune=prune,
        dry_run=dry_run,
        reprocess=reprocess,
        same=same,
        if_same=if_same,
        why=why,
        **(given if dag is None else {}),
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
@click.option("-f", "--file", "--jsonnet", "more", multiple=True, hidden=True, help="As pachctl spells it.")
@spec_options
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
@click.option("-n", "--dry-run", is_flag=True, help="Print each specification as it would be recorded; write nothing.")
@click.option(
    "--check", is_flag=True, help="A table of verdicts (specs: what runs here, what is lacking); write nothing."
)
@click.option("--to-python", is_flag=True, help="Print a Python DAG that says the same as the specs.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of specs, for editors.")
@parameter_options
@click.pass_obj
def command(
    app: App,
    words: tuple[str, ...],
    more: tuple[str, ...],
    code: Path | None,
    container: str | None,
    arguments: tuple[str, ...],
    prune: bool,
    reprocess: bool,
    same: tuple[str, ...],
    if_same: int | None,
    message: str,
    dry_run: bool,
    check: bool,
    to_python: bool,
    schema: bool,
    settings: tuple[str, ...],
    params_file: Path | None,
) -> int:
    """Record pipelines of a DAG or spec file.

    FILE is a Python file with DAGs, or a Pachyderm spec in JSON, YAML or Jsonnet as it is. NAME picks one DAG of the
    file.
    """
    if schema:
        from ...scheduler.specs.schema import SCHEMA_FILE

        app.line(SCHEMA_FILE.read_text(encoding="utf-8").rstrip("\n"))
        return 0
    files, rest = split_words([*words, *more])
    if rest:
        raise click.UsageError(
            f"{rest[0]!r} is no FILE: expected *.py, *.json, *.yaml or *.jsonnet", click.get_current_context()
        )
    if not files:
        raise click.UsageError("missing FILE", click.get_current_context())
    if reprocess and (same or if_same):
        raise click.UsageError("--reprocess excludes --same and --if-same", click.get_current_context())
    if same and len(files) > 1:
        raise click.UsageError("--same takes one FILE", click.get_current_context())
    given = spec_settings(code, container, arguments)
    paths = [path for path, _ in files]
    dags = [path for path in paths if path.suffix == ".py"]
    if to_python or (check and not dags):
        if dags:
            raise click.UsageError(f"--to-python is for specs; {dags[0]} is Python", click.get_current_context())
        from .spec_files import show_check, show_python

        return show_check(app, paths, given) if check else show_python(app, paths, given)
    params = parse_parameters(settings, params_file)
    store = app.store(read_only=dry_run or check)
    for path, dag in files:
        submitted = submit_file(
            store,
            path,
            dag,
            params=params,
            given=given,
            prune=prune,
            dry_run=dry_run or check,
            reprocess=reprocess,
            same=same,
            if_same=if_same or 0,
            why=message,
        )
        if dry_run:
            show_effective(app, submitted)
        else:
            show(app, submitted)
    if dry_run:
        app.note("nothing was written")
    elif check:
        app.say("nothing was written")
    return 0
