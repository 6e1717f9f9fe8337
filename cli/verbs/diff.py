"""`diff`: compare two commits, or a commit and a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.refs import Ref, parse_ref
from ..app import App
from ..command import Verb
from ..failure import DIFFERS
from ..text import count, printable, size

if TYPE_CHECKING:
    from ...storage.objects.value import Value
    from ...storage.store import Store
    from ...storage.trees.diff import Change
    from ...storage.trees.text_diff import TextDiff

_SIGNS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


@click.command("diff", cls=Verb)
@click.argument("old", metavar="A")
@click.argument("new", metavar="B")
@click.option("-p", "--patch", "form", flag_value="patch", help="Show what differs in small text files.")
@click.option("--stat", "form", flag_value="stat", help="Count lines and bytes of each file.")
@click.option("--name-only", "form", flag_value="names", help="Print paths alone.")
@click.option("--rehash", is_flag=True, help="Read also local files that seem unchanged since they were last read.")
@click.option("--exit-code", is_flag=True, help="Exit 3 if they differ.")
@click.pass_obj
def command(app: App, old: str, new: str, form: str | None, rehash: bool, exit_code: bool) -> int:
    """Compare two commits, or a commit and a folder.

    A and B are REF[:/path]; one may be a local file or folder, which begins with . or /. From A to B: + is new in B,
    - is gone, ~ differs.
    """
    local_old, local_new = _is_local(old), _is_local(new)
    if local_old and local_new:
        raise InvalidInputError(
            "diff needs a commit on one side at least",
            code=ErrorCode.BAD_REF,
            hint=f"for example: dmlpipe diff images {new}",
        )
    for side, local in ((old, local_old), (new, local_new)):
        if local and not Path(side).exists():
            raise InvalidInputError(f"no such file or folder: {side}", code=ErrorCode.NO_FILE)
    left, right = (None if local else parse_ref(side) for side, local in ((old, local_old), (new, local_new)))
    store = app.data(read_only=True)
    if left is not None and right is not None:
        if (left.path or "") != (right.path or "") and right.path is not None:
            raise InvalidInputError(
                f"diff compares one path in two commits, not /{left.path or ''} with /{right.path}",
                code=ErrorCode.BAD_PATH,
            )
        changes = store[left].diff(store[right], left.path or "/")
        turned = False
        reader = _Reader(store)
    else:
        ref, folder, turned = _sides(left, right, old, new)
        changes = store[ref].diff(folder, ref.path or "/", skip=store.backend.properties.path, rehash=rehash)
        reader = _Reader(store, Path(folder), f"/{ref.path}" if ref.path else "")
    return _show(app, list(changes), turned, form, reader, exit_code)


def _sides(left: Ref | None, right: Ref | None, old: str, new: str) -> tuple[Ref, str, bool]:
    if left is not None:
        return left, new, False
    assert right is not None
    return right, old, True


@dataclass(frozen=True)
class _Reader:
    """Contents of both sides of a change, as far as they may be text."""

    store: Store
    local: Path | None = None
    """File or folder that is the new side."""
    below: str = ""
    """Path in the commit that `local` stands for."""

    def compare(self, change: Change, *, turned: bool) -> TextDiff | None:
        """Return how the text of a file changed; None if it is no text."""
        from ...storage.trees.text_diff import diff_text

        old, new = self._stored(change.old), self._new(change)
        if (change.old and old is None) or (change.new and new is None):
            return None
        return diff_text(change.path, *((new, old) if turned else (old, new)))

    def _stored(self, value: Value | None) -> bytes | None:
        from ...storage.objects.value import External
        from ...storage.trees.text_diff import TEXT_MAX_BYTES

        if value is None or isinstance(value, External) or value.size > TEXT_MAX_BYTES:
            return None
        return self.store.objects.read(value)

    def _new(self, change: Change) -> bytes | None:
        from ...storage.trees.text_diff import TEXT_MAX_BYTES

        if self.local is None or change.new is None:
            return self._stored(change.new)
        if change.new.size > TEXT_MAX_BYTES:
            return None
        inside = change.path.removeprefix(self.below).lstrip("/")
        return (self.local / inside if inside and self.local.is_dir() else self.local).read_bytes()


def _show(app: App, changes: list[Change], turned: bool, form: str | None, reader: _Reader, exit_code: bool) -> int:
    tally = {"added": 0, "removed": 0, "changed": 0}
    rows = []
    for change in changes:
        kind = {"added": "removed", "removed": "added"}.get(change.kind, change.kind) if turned else change.kind
        text = reader.compare(change, turned=turned) if form in ("patch", "stat") else None
        tally[kind] += 1
        if app.json:
            app.emit(_record(change, kind, turned, form, text))
        elif form == "stat":
            lines = f"+{text.added:,} -{text.removed:,}" if text else "binary"
            rows.append((_named(change, kind), lines, _grown(change.size_change, turned)))
        elif form == "patch" and text is not None:
            click.echo(text.patch, nl=False)
        else:
            app.line(printable(change.path) if form == "names" else _named(change, kind))
    app.table(rows, right=frozenset({1, 2}))
    if not app.json and app.verbosity >= 0:
        told = ", ".join(f"{number:,} {kind}" for kind, number in tally.items() if number) or "no difference"
        sized = f", {_grown(sum(change.size_change for change in changes), turned)}" if changes else ""
        click.echo(f"{count(len(changes), 'file') + ': ' if changes else ''}{told}{sized}", err=True)
    return DIFFERS if exit_code and changes else 0


def _record(change: Change, kind: str, turned: bool, form: str | None, text: TextDiff | None) -> dict[str, Any]:
    record = change.to_dict()
    if turned:
        record |= {"change": kind, "old_size": record["new_size"], "new_size": record["old_size"]}
    if form in ("patch", "stat"):
        record |= {"lines_added": text.added if text else None, "lines_removed": text.removed if text else None}
    if form == "patch":
        record["patch"] = text.patch if text else None
    return record


def _named(change: Change, kind: str) -> str:
    sign, colour = _SIGNS[kind]
    return f"{click.style(sign, fg=colour)} {printable(change.path)}"


def _grown(size_bytes: int, turned: bool) -> str:
    grown = -size_bytes if turned else size_bytes
    return f"{'+' if grown >= 0 else '-'}{size(abs(grown))}"


def _is_local(side: str) -> bool:
    return side.startswith((".", "/"))
