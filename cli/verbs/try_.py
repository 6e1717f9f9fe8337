"""`try`: run new code on real inputs, in this process; commit nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..app import App
from ..command import Verb
from ..failure import FAILED
from ..settings import parse_parameters, spec_options, spec_settings
from ..text import count, duration, printable, short, size
from .files import split_words

if TYPE_CHECKING:
    from ...scheduler.trial import TrialResult, Tried


@click.command("try", cls=Verb)
@click.argument("words", nargs=-1, required=True, metavar="[FILE] PIPELINE")
@click.option("--datum", metavar="ID|PATH", help="This datum: digits of its id, an input or an output of it.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="N datums. Default: 1.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Set a parameter. Repeatable.")
@spec_options
@click.option("--pdb", is_flag=True, help="Where a datum fails, open the debugger there.")
@click.option("--shell", is_flag=True, help="Of a command: open a shell in the datum's folder, with its environment.")
@click.option(
    "--keep", type=click.Path(path_type=Path), metavar="DIR", help="Write output there. Default: a new folder."
)
@click.pass_obj
def command(
    app: App,
    words: tuple[str, ...],
    datum: str | None,
    sample: int | None,
    settings: tuple[str, ...],
    code: Path | None,
    container: str | None,
    arguments: tuple[str, ...],
    pdb: bool,
    shell: bool,
    keep: Path | None,
) -> int:
    """Run new code on real inputs; commit nothing.

    With FILE the code as it is now, else as it was recorded. Runs in the foreground, so that what it prints is seen
    and breakpoint() works; in its env=, if it declares one. Exit 1 if a datum fails.
    """
    files, names = split_words(words)
    if len(names) != 1 or len(files) > 1:
        raise click.UsageError("expected [FILE] PIPELINE", click.get_current_context())
    if datum is not None and sample is not None:
        raise click.UsageError("--datum and --sample exclude each other", click.get_current_context())
    if shell and (pdb or sample is not None):
        raise click.UsageError(
            f"--shell and --{'pdb' if pdb else 'sample'} exclude each other", click.get_current_context()
        )
    if shell and not sys.stdin.isatty():
        raise click.UsageError("--shell needs a terminal", click.get_current_context())
    pipeline = names[0]
    params = parse_parameters([_full(setting, pipeline) for setting in settings], None)
    from ...scheduler.trial import Trial

    given = spec_settings(code, container, arguments)
    trial = Trial(app.store(read_only=True), files[0][0] if files else None, params=params, **given)
    for notice in trial.notices:
        app.note(notice)
    result = trial.run(
        pipeline,
        datum=datum,
        sample=sample or 1,
        keep=keep,
        shell=shell,
        debug=pdb,
    )
    if app.json:
        for each in result.datums:
            app.emit({"pipeline": pipeline, "folder": result.folder, **each.to_dict()})
    else:
        _tell(app, result)
    return 0 if result.ok else FAILED


def _full(setting: str, pipeline: str) -> str:
    return setting if "." in setting.partition("=")[0] else f"{pipeline}.{setting}"


def _tell(app: App, result: TrialResult) -> None:
    for each in result.datums:
        for line in _lines(each):
            app.line(line)
    failed = sum(1 for each in result.datums if each.outcome == "failed")
    of = f"{len(result.datums):,} of {count(result.total, 'datum')}"
    app.say(f"{of}, {failed:,} failed; output in {result.folder}; nothing was committed")


def _lines(each: Tried) -> list[str]:
    shown = printable(each.shown) or f"datum {short(each.id)}"
    if each.failure is None:
        outputs = ", ".join(f"/{printable(path)} ({size(bytes_)})" for path, bytes_ in each.outputs[:3])
        more = len(each.outputs) - 3
        outputs += f" and {more} more" if more > 0 else ""
        return [f"{click.style('✔', fg='green')} {shown}   {duration(each.seconds)}   {outputs or 'no files'}"]
    failure = each.failure
    message = f": {failure.message.splitlines()[0]}" if failure.message else ""
    lines = [f"{click.style('✘', fg='red')} {shown}   {duration(each.seconds)}   {failure.kind}{printable(message)}"]
    if failure.where:
        lines.append(f"    {failure.where}    {failure.line}".rstrip())
    return lines
