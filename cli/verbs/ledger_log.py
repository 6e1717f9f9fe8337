"""`log --ledger`: the entries of the ledger, newest first."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import click

from ..app import App
from ..text import printable, short, when

if TYPE_CHECKING:
    from ...storage.ledger.ledger import Ledger
    from ...storage.records import Entry, Record

HASH_DIGITS = 12
_TOGETHER = 256
_SUBJECTS = ("repo", "name", "pipeline", "job", "run", "pipelines", "epoch")
_DETAILS = ("branch", "tag")


def show_ledger(app: App, ledger: Ledger, limit: int | None) -> None:
    """Print entries with their hashes; the chain is verified on the way."""
    for entry, entry_hash in islice(newest_first(ledger), limit):
        if app.json:
            import msgspec

            record = {"n": entry.n, "hash": entry_hash, "prev": entry.prev, "time": entry.ts, "actor": entry.actor}
            app.emit({**record, "records": msgspec.to_builtins(entry.recs)})
            continue
        number = click.style(f"{entry.n:>6}", fg="yellow")
        told = ", ".join(describe(record) for record in entry.recs)
        app.line(f"{number}  {entry_hash[:HASH_DIGITS]}  {when(entry.ts)}  {printable(entry.actor)}  {printable(told)}")


def newest_first(ledger: Ledger) -> Iterator[tuple[Entry, str]]:
    """Yield all entries from the last on, in parts of 256, each of which is read and verified forwards."""
    stop = ledger.refresh().n + 1
    while stop > 0:
        start = max(0, stop - _TOGETHER)
        yield from reversed(list(islice(ledger.entries(start), stop - start)))
        stop = start


def describe(record: Record) -> str:
    """`ref.set images@master`, `commit images@3f9a01`."""
    kind = record.__struct_config__.tag
    subject = next((getattr(record, name) for name in _SUBJECTS if getattr(record, name, "") != ""), "")
    if isinstance(subject, tuple):
        subject = " ".join(subject)
    detail = next((getattr(record, name) for name in _DETAILS if getattr(record, name, "")), "")
    if not detail and kind == "commit":
        detail = short(getattr(record, "id", ""))
    return f"{kind} {subject}{'@' + detail if detail else ''}"
