"""What makes input by itself: schedules that tick, rules by which a branch follows another one."""

from __future__ import annotations

import datetime

import msgspec

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.records import CronInput, Trigger
from ...storage.refs import DEFAULT_BRANCH, check_name
from ...storage.schedule import format_time, parse_schedule, parse_time
from ...storage.sizes import parse_size_bytes
from .expression import Cron, Cross, Files, Group, Input, Join, Union
from .leaf import files
from .walk import leaves

__all__ = ["cron", "cron_inputs", "trigger", "with_cron_repos"]

_UNNAMED = "cron"
"""Stands for the repo until the pipeline's name is known."""


def cron(
    schedule: str, *, name: str, repo: str = "", start: str | datetime.datetime = "", overwrite: bool = False
) -> Files:
    """Ticks of a schedule: each is a commit of an empty file that is named after its time, and one datum.

    `run` makes the ticks that are due when it begins, `up` makes them as they come; those that were missed are made up
    for. `dmlpipe pipeline tick` makes one now.

    Parameters
    ----------
    schedule
        Five fields, ``"0 6 * * 1-5"``, in UTC; ``"@daily"`` and its like; ``"@every 20s"``; ``"@never"``.
    name
        What the transform calls it.
    repo
        Where the ticks are kept; default: the pipeline's name, an underscore, the input's name.
    start
        Ticks count from here, RFC 3339; default: when the pipeline was submitted first.
    overwrite
        A tick takes the place of the one before it: there is one datum.

    Examples
    --------
    >>> cron("@daily", name="day").cron
    Cron(spec='@daily', start='', overwrite=False)
    """
    if not isinstance(name, str) or not name:
        raise InvalidInputError(f"cron({schedule!r}) needs a name", code=ErrorCode.BAD_INPUT, hint='name="tick"')
    parse_schedule(schedule)
    begin = format_time(parse_time(start)) if start else ""
    found = files(check_name(repo) if repo else _UNNAMED, "/*", name=name)
    rule = Cron(spec=schedule, start=begin, overwrite=overwrite)
    return msgspec.structs.replace(found, repo=repo, cron=rule)


def trigger(
    on: str = DEFAULT_BRANCH,
    *,
    size: str | int = 0,
    commits: int = 0,
    rate: str = "",
    cron: str = "",
    all: bool = False,
) -> Trigger:
    """When a branch takes the head of another one of its repo: once one of the conditions holds.

    Parameters
    ----------
    on
        The branch to follow.
    size
        It has grown by so much: ``"100M"`` or bytes.
    commits
        So many commits were made.
    rate
        This schedule had a time since: so not more often than that.
    cron
        At the times of this schedule; excludes the others.
    all
        All of the conditions must hold.

    Examples
    --------
    >>> trigger("staging", size="100M").size
    100000000
    """
    found = Trigger(on=on, size=parse_size_bytes(size), commits=commits, rate=rate, cron=cron, all=all)
    check_name(on, "branch")
    return found


def with_cron_repos(node: Input, pipeline: str) -> Input:
    """Return the expression with a repo for each cron input that names none."""
    match node:
        case Files() if node.cron is not None and not node.repo:
            return msgspec.structs.replace(node, repo=f"{pipeline}_{node.name}")
        case Cross() | Union() | Join() | Group():
            return msgspec.structs.replace(
                node, inputs=tuple(with_cron_repos(child, pipeline) for child in node.inputs)
            )
        case _:
            return node


def cron_inputs(node: Input) -> tuple[CronInput, ...]:
    """Return the schedules in an expression, as the ledger records them."""
    return tuple(
        CronInput(
            name=leaf.name, repo=leaf.repo, spec=leaf.cron.spec, start=leaf.cron.start, overwrite=leaf.cron.overwrite
        )
        for leaf in leaves(node)
        if isinstance(leaf, Files) and leaf.cron is not None
    )
