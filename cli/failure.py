"""How errors look, and what the process answers.

===  ==================================================================
0    done
1    failed
2    wrong usage: what was typed, written or declared has to be mended
3    "differs" or "would run", where ``--exit-code`` asks for it
4    somebody else holds it
130  interrupted
===  ==================================================================

The message stands after ``error:``, what to do next below it. Tracebacks come with ``-v`` alone.
"""

from __future__ import annotations

import dataclasses
import errno
import sys
import traceback
from collections.abc import Mapping

import click

from ..storage.errors import DmlpipeError, ErrorCode, HeldError, InvalidInputError
from .app import App

DONE, FAILED, USAGE, DIFFERS, HELD, INTERRUPTED = 0, 1, 2, 3, 4, 130

_ERRNO: Mapping[int, tuple[ErrorCode, str | None]] = {
    errno.ENOSPC: (ErrorCode.DISK_FULL, "free some space; what was committed is whole, what was not is nowhere"),
    errno.EDQUOT: (ErrorCode.DISK_FULL, "free some space; what was committed is whole, what was not is nowhere"),
    errno.EACCES: (ErrorCode.PERMISSION, None),
    errno.EPERM: (ErrorCode.PERMISSION, None),
    errno.EROFS: (ErrorCode.PERMISSION, None),
    errno.ENOENT: (ErrorCode.NOT_FOUND, None),
}


@dataclasses.dataclass(frozen=True)
class Answer:
    """An error as it is told."""

    message: str
    code: str
    hint: str | None
    exit: int


def answer(error: BaseException) -> Answer:
    """Decide how an error is told."""
    match error:
        case click.UsageError():
            message, _, hint = error.format_message().partition("\n")
            where = error.ctx.command_path if error.ctx else "dmlpipe"
            usage = [hint] if hint else []
            if error.ctx:
                usage.append(" ".join(error.ctx.get_usage().split()).replace("Usage:", "usage:", 1))
            usage.append(f"see: {where} --help")
            return Answer(message.rstrip("."), "usage", "\n".join(usage), USAGE)
        case click.Abort() | KeyboardInterrupt():
            return Answer("interrupted", "interrupted", None, INTERRUPTED)
        case click.ClickException():
            return Answer(error.format_message(), "usage", None, FAILED)
        case HeldError():
            return Answer(error.message, error.code, error.hint, HELD)
        case InvalidInputError():
            return Answer(error.message, error.code, error.hint, USAGE)
        case DmlpipeError():
            return Answer(error.message, error.code, error.hint, FAILED)
        case OSError():
            code, advice = _ERRNO.get(error.errno or 0, (ErrorCode.BACKEND, None))
            place = f"{error.filename}: " if error.filename else ""
            return Answer(f"{place}{error.strerror or error}", code, advice, FAILED)
        case _:
            text = str(error) or "no message"
            return Answer(
                f"{type(error).__name__}: {text}",
                "internal",
                "this is a defect of dmlpipe; -v shows where",
                FAILED,
            )


def tell(error: BaseException, app: App) -> int:
    """Print an error on stderr and return the exit code."""
    told = answer(error)
    if app.verbosity > 0 and not isinstance(error, click.ClickException):
        traceback.print_exception(error, file=sys.stderr)
    if app.json:
        import msgspec

        record = {"error": told.message, "code": str(told.code), "hint": told.hint, "exit": told.exit}
        click.echo(msgspec.json.encode(record), err=True)
        return told.exit
    first, *more = told.message.splitlines() or [""]
    click.echo(f"{click.style('error:', fg='red', bold=True)} {first}", err=True)
    for line in [*more, *(told.hint.splitlines() if told.hint else [])]:
        click.echo(f"  {line}" if line else "", err=True)
    return told.exit
