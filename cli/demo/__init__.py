"""``dmlpipe demo``: the main job on handwritten digits, told step by step and checked as it goes.

Key types: `Story` (the steps), `Stage` (says, types, checks, draws), `Facts` (what the store says was done).
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from ..app import App
from ..command import Verb


@click.command(cls=Verb)
@click.option(
    "--keep",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Play in DIR, which must be new or empty. Default: a new temporary folder, which stays too.",
)
@click.option(
    "--pictures",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write SVG pictures of what the commands print.",
)
@click.pass_obj
def command(app: App, keep: Path | None, pictures: Path | None) -> int:
    """See all of it on handwritten digits.

    Trains a classifier on real scans, predicts a thousand, asks why one is wrong, adds data, breaks the model, goes
    back. Every count that is said is checked; exit code 1 if one is not as it was said. Takes under a minute.
    """
    _require_extra()
    from ..main import main
    from .stage import Stage
    from .story import Story

    folder = _fresh(keep)
    out = sys.stderr if app.json else sys.stdout
    stage = Stage(
        main,
        out=out,
        pictures=pictures.resolve() if pictures else None,
        on_claim=(lambda text: app.emit({"claim": text, "held": True})) if app.json else None,
    )
    began = time.monotonic()
    stage.title("dmlpipe on handwritten digits: from raw scans to predictions that can say what made them")
    stage.note(f"in {folder}")
    try:
        with contextlib.chdir(folder), _own_store():
            told = Story(stage, folder).tell()
    except (click.ClickException, KeyboardInterrupt):
        stage.note(f"the folder is left as it is: {folder}")
        raise
    seconds = time.monotonic() - began
    stage.title(f"\n{len(told.claims)} claims checked, all held. {seconds:.0f} s.")
    if app.json:
        app.emit({"folder": str(folder), "claims": len(told.claims), "seconds": round(seconds, 1)})
    return 0


def _fresh(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="dmlpipe-demo-")).resolve()
    folder = keep.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise click.UsageError(f"{keep} is not empty\nthe demo plays in a folder of its own: name a new one")
    return folder


def _require_extra() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("sklearn", "PIL", "matplotlib") if find_spec(name) is None]
    if missing:
        raise click.ClickException(f"the demo needs {', '.join(missing)}: pip install 'dmlpipe[demo]'")


@contextlib.contextmanager
def _own_store() -> Iterator[None]:
    """Hide the user's own store, so that no command of the story can mean it."""
    before = os.environ.pop("DMLPIPE_STORE", None)
    try:
        yield
    finally:
        if before is not None:
            os.environ["DMLPIPE_STORE"] = before
