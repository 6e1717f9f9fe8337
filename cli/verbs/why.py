"""`why`: what made a result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..app import App
from ..command import Verb
from ..picture import MAX_BYTES

if TYPE_CHECKING:
    from ...scheduler.store import Store


@click.command("why", cls=Verb)
@click.argument("target", metavar="REF[:/path] | HASH | DATUM")
@click.pass_obj
def command(app: App, target: str) -> None:
    """Say what made a result.

    A file leads to its datum, the code with its parameters, the job, and through its inputs to everything above: the
    model, what that was trained on, who put it. HASH is 8 or more digits of a content id, DATUM 4 or more of a
    datum's id.
    """
    store = app.store(read_only=True)
    derivation = store.why(target)
    if app.json:
        app.emit(derivation.to_dict())
        return
    from ..tree import derivation_tree

    console = app.console()
    tree = derivation_tree(
        derivation,
        read=lambda repo, commit, path: _read(store, repo, commit, path),
        pictures=console.is_terminal and not console.no_color,
        verbose=app.verbosity > 0,
    )
    if not console.is_terminal:
        # Nothing is cut where nobody looks at a window.
        console.width = 10_000
    console.print(tree)


def _read(store: Store, repo: str, commit: str, path: str) -> bytes | None:
    view = store[f"{repo}@{commit}"]
    size = view.info(path).size
    return view.read_bytes(path) if size is not None and size <= MAX_BYTES else None
