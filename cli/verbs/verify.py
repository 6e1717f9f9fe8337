"""`verify`: check a proof, without a store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...storage.errors import CorruptError, InvalidInputError
from ..app import App
from ..command import Verb
from ..text import printable, short, size, when

if TYPE_CHECKING:
    from ...storage.ledger.heads import SeenHead
    from ...storage.provenance.proof import Proven


@click.command("verify", cls=Verb)
@click.argument("proof", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--head", metavar="N:HASH", help="Ledger head that you trust. Default: those this machine has seen.")
@click.pass_obj
def command(app: App, proof: Path, file: Path | None, head: str | None) -> None:
    """Check a proof that a commit holds a file.

    Needs no store. FILE, if given, must be the file that the proof speaks of.
    """
    from ...storage.provenance.proof import parse_head, verify

    proven = verify(sys.stdin.buffer.read() if str(proof) == "-" else proof.read_bytes())
    anchor = _anchor(proven, parse_head(head) if head else None)
    if file is not None:
        _compare(proven, file)
    if app.json:
        app.emit(
            {
                "repo": proven.repo,
                "commit": proven.commit,
                "path": proven.path,
                "size": proven.value.size,
                "entry": proven.n,
                "time": proven.time,
                "actor": proven.actor,
                "head": f"{anchor.n}:{anchor.hash}",
                "file": str(file) if file else None,
            }
        )
        return
    name = f"{proven.repo}@{short(proven.commit)}:{proven.path}"
    app.line(f"{printable(name)}  {size(proven.value.size)}{f'  is {file}' if file else ''}")
    app.line(f"  in ledger entry {proven.n}, {when(proven.time)}, by {printable(proven.actor)}")
    app.line(f"  vouched for by {'the head you gave' if head else 'what this machine saw'}: entry {anchor.n}")


def _anchor(proven: Proven, given: SeenHead | None) -> SeenHead:
    from ...storage.info import default_cache_dir
    from ...storage.ledger.heads import seen_heads

    last = proven.head
    if given is not None:
        if not proven.n <= given.n <= last.n:
            raise InvalidInputError(
                f"the proof speaks of entries {proven.n} to {last.n}, not of {given.n}", hint="ask for a longer proof"
            )
        if not proven.anchored_by(given):
            here, there = short(proven.hashes[given.n]), short(given.hash)
            raise CorruptError(f"entry {given.n} is {here} in the proof, and {there} in the head that you gave")
        return given
    for seen in seen_heads(default_cache_dir()):
        if proven.anchored_by(seen):
            return seen
    raise InvalidInputError(
        "the proof agrees with itself, but nothing here vouches for its ledger",
        hint=f"give a head that you noted yourself: --head N:HASH (the proof reaches {last.n}:{last.hash})",
    )


def _compare(proven: Proven, file: Path) -> None:
    from ...storage.objects.cutting import ContentDefined
    from ...storage.objects.local_value import value_of_file
    from ...storage.objects.value import External, Pieces

    if isinstance(proven.value, External):
        raise InvalidInputError(f"{proven.path} was put as a link: the store does not know its content")
    same = value_of_file(file) == proven.value
    if not same and isinstance(proven.value, Pieces) and file.stat().st_size == proven.value.size:
        # The proof does not say how its store cuts large files.
        same = value_of_file(file, ContentDefined()) == proven.value
    if not same:
        raise CorruptError(f"{file} is not what was put as {proven.path}: its content differs")
