"""`du`: what holds a store's bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..app import App
from ..command import Verb
from ..text import count, size

if TYPE_CHECKING:
    from ...storage.gc.usage import Held, Usage

_BAR_CELLS = 24
_SHOWN = 15


@click.command("du", cls=Verb)
@click.option("--branches", is_flag=True, help="By branch, not by repo.")
@click.option("--all", "all_", is_flag=True, help=f"List all, not the {_SHOWN} largest.")
@click.pass_obj
def command(app: App, branches: bool, all_: bool) -> None:
    """Say what holds a store's bytes.

    Of each repo: the files of its head as they were put; what all its commits take in the store; of that, what they
    alone refer to (it comes back if the repo is deleted and collected), what others refer to as well, and what only
    earlier commits need, which no branch's head does (commit squash, commit keep).
    """
    from ...storage.gc.usage import measure
    from ..transfer_progress import TransferProgress

    store = app.data(read_only=True)
    with TransferProgress(app, "listing") as progress:
        usage = measure(store.backend, store.nodes, store.refresh(), progress=progress)
    if app.json:
        app.emit(usage.to_dict())
        return
    held = usage.branches if branches else usage.repos
    most = max((each.stored for each in held), default=0)
    shown = held if all_ else held[:_SHOWN]
    app.table(
        [_row(each, most) for each in shown],
        header=("branch" if branches else "repo", "commits", "files", "put", "stored", "unique", "shared", "past", ""),
        right=frozenset(range(1, 8)),
    )
    if len(shown) < len(held):
        app.say(f"and {len(held) - len(shown):,} smaller ones: --all lists them")
    _tell(app, usage)


def _row(held: Held, most: int) -> tuple[str, ...]:
    return (
        held.name,
        f"{held.commits:,}",
        f"{held.files:,}",
        size(held.size),
        size(held.stored),
        size(held.unique),
        size(held.shared),
        size(max(0, held.stored - held.heads)),
        _bar(held.unique, held.shared, most),
    )


def _bar(unique: int, shared: int, most: int) -> str:
    """Draw what something holds, as a share of what the largest holds: solid what it alone does."""
    if not most:
        return ""
    cells = -(-_BAR_CELLS * (unique + shared) // most)
    solid = round(_BAR_CELLS * unique / most)
    return "█" * min(solid, cells) + "░" * max(0, cells - solid)


def _tell(app: App, usage: Usage) -> None:
    words = [
        f"{size(usage.content)} in commits",
        f"{size(usage.memory)} of pipelines' memory" if usage.memory else "",
        f"{size(usage.history)} of history and indexes",
        f"{size(usage.garbage)} that nothing refers to (dmlpipe gc)" if usage.garbage else "",
    ]
    app.say(f"{size(usage.total)} in all: {', '.join(filter(None, words))}")
    parts = [f"{name} {size(size_bytes)}" for name, size_bytes in usage.parts.items() if size_bytes]
    app.say(f"{count(len(usage.repos), 'repo')}; by kind: {', '.join(parts)}")
