"""How the outcome of a submit is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..scheduler.report import Submitted
from .app import App

_MANY = 8


def header(submitted: Sequence[Submitted], title: str) -> str:
    """One line for `run FILE`: `digits  model new · predictions same   (images: 1,000 files)`."""
    if len(submitted) > _MANY:
        tally = Counter(each.status for each in submitted)
        told = " · ".join(f"{number} {status}" for status, number in tally.items())
    else:
        told = " · ".join(f"{each.name} {each.status}" for each in submitted)
    inputs = list(dict.fromkeys(line for each in submitted for line in each.inputs))
    return f"{title}  {told}" + (f"   ({', '.join(inputs)})" if inputs else "")


def show(app: App, submitted: Sequence[Submitted]) -> None:
    """Print a table of verdicts, notices on stderr."""
    notices = dict.fromkeys(notice for each in submitted for notice in each.notices)
    for notice in notices:
        app.note(notice)
    if app.json:
        for each in submitted:
            app.emit(to_dict(each))
        return
    app.table(
        [
            (
                each.name,
                each.status,
                f"v{each.version}" if each.version else "",
                ", ".join(each.why) or ("no longer in the file; --prune removes it" if each.status == "orphan" else ""),
            )
            for each in submitted
        ]
    )


def to_dict(each: Submitted) -> dict[str, object]:
    """Plain data with stable keys."""
    return {
        "pipeline": each.name,
        "version": each.version,
        "status": each.status,
        "why": list(each.why),
        "inputs": list(each.inputs),
        "notices": list(each.notices),
    }
