"""`plan`: what would run, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...storage.errors import ErrorCode, InvalidInputError
from ..app import App
from ..command import Verb
from ..failure import DIFFERS
from ..settings import parameter_options, parse_parameters, spec_options, spec_settings
from ..text import columns, duration
from .files import split_words
from .submit import pick_dag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...scheduler.jobs.preview import PipelinePlan

SHOWN = 4
"""Reasons of one pipeline without -v."""


@click.command("plan", cls=Verb)
@click.argument("words", nargs=-1, metavar="[FILE] [PIPELINE...]")
@spec_options
@click.option("--exit-code", is_flag=True, help="Exit 3 if something would run.")
@parameter_options
@click.pass_obj
def command(
    app: App,
    words: tuple[str, ...],
    code: Path | None,
    container: str | None,
    arguments: tuple[str, ...],
    exit_code: bool,
    settings: tuple[str, ...],
    params_file: Path | None,
) -> int:
    """Say what would run, and why.

    With FILE also for an edited file that was not submitted. Writes nothing.
    """
    files, pipelines = split_words(words)
    if len(files) > 1:
        raise InvalidInputError("plan takes one FILE", code=ErrorCode.INVALID)
    params = parse_parameters(settings, params_file)
    given = spec_settings(code, container, arguments)
    if not files and (params or any(given.values())):
        option = "--code" if code else "--set" if settings else "--params"
        option = "--container" if container else "--arg" if arguments else option
        raise click.UsageError(f"{option} needs a FILE to compare", click.get_current_context())
    store = app.store(read_only=True)
    what: Any = None
    if files:
        path, name = files[0]
        what = path if name is None else pick_dag(path, name)
    plans = store.plan(what, pipelines, params=params, **given)
    if app.json:
        for each in plans.to_dict()["pipelines"]:
            app.emit(each)
    else:
        for each in plans.pipelines:
            for notice in each.notices:
                app.note(f"{each.name}: {notice}")
        for line in _lines(plans.pipelines, verbose=app.verbosity > 0):
            app.line(line)
        if not plans.would_run:
            app.say("nothing to do")
    return DIFFERS if exit_code and plans.would_run else 0


def _lines(plans: Sequence[PipelinePlan], *, verbose: bool) -> list[str]:
    rows: list[list[str]] = []
    for each in plans:
        reasons = [_reason(text, number, example, of=each.run) for text, number, example in each.reasons]
        if each.if_upstream:
            reasons.insert(
                0, f"{each.detail} ({each.if_upstream})" if each.detail else f"if {each.if_upstream} changes"
            )
        elif each.detail and each.detail != "nothing to do":
            reasons.insert(0, each.detail)
        time = f"≈ {duration(each.seconds)} by last rate" if each.seconds is not None and each.run else ""
        shown = reasons if verbose else reasons[:SHOWN]
        rows.append([each.name, _amount(each), shown[0] if shown else "", time])
        rows += [["", "", reason] for reason in shown[1:]]
        if len(shown) < len(reasons):
            rows.append(["", "", f"and {len(reasons) - len(shown)} more (-v)"])
    return columns(rows, gap=3)


def _amount(each: PipelinePlan) -> str:
    removed = f", {each.removed:,} removed" if each.removed else ""
    if each.run:
        jobs = f" in {each.jobs:,} jobs" if each.jobs > 1 else ""
        return f"{each.run:,} of {each.total:,}{' runs' if each.total == 1 else ''}{jobs}{removed}"
    if each.status == "would reuse":
        return f"0 of {each.total:,}{f' in {each.jobs:,} jobs' if each.jobs > 1 else ''}{removed}"
    return "may run" if each.status == "if" else each.status


def _reason(text: str, number: int, example: str, *, of: int) -> str:
    many = f"{number:,} × " if number and number != of else ""
    return f"{many}{text}" + (f" (first: {example})" if example and of > 1 else "")
