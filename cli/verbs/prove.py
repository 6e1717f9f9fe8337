"""`prove`: show that the store's history holds a file, to people who do not have the store."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ...storage.errors import InvalidInputError
from ..app import App
from ..command import Verb


@click.command("prove", cls=Verb)
@click.argument("target", metavar="REF:/path")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Instead of stdout."
)
@click.pass_obj
def command(app: App, target: str, output: Path | None) -> None:
    """Write a proof that a commit holds a file.

    The proof goes to stdout, or to FILE. `dmlpipe verify` checks it without the store, against a ledger head.
    """
    from ...storage.provenance.proof import verify

    if output is None and (app.json or sys.stdout.isatty()):
        raise InvalidInputError(
            "a proof is bytes, which do not belong here", hint=f"say where they go: dmlpipe prove {target} -o FILE"
        )
    raw = app.data(read_only=True).prove(target)
    head = verify(raw).head
    if output is None:
        sys.stdout.buffer.write(raw)
    else:
        output.write_bytes(raw)
    if app.json:
        app.emit({"proof": str(output), "size": len(raw), "head": f"{head.n}:{head.hash}"})
    app.note(f"the proof reaches ledger head {head.n}:{head.hash}; whoever has noted that head can check it")
