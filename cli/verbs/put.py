"""`put`: commit files to a repo."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.refs import Ref, parse_ref
from ..app import App
from ..command import Verb
from ..text import count, short, size

if TYPE_CHECKING:
    from ...storage.sources import Source


SUGGEST_LINK_BYTES = 10 << 30
"""Who stores more than this may not know that it need not be copied."""


@click.command("put", cls=Verb)
@click.argument("target", metavar="REPO[@BRANCH][:/dir]")
@click.argument("sources", nargs=-1, metavar="SRC...")
@click.option("-m", "--message", default="", metavar="TEXT", help="What this commit is.")
@click.option("--append", is_flag=True, help="Add to the end of files that exist.")
@click.option("--mirror", is_flag=True, help="Delete what is no longer in SRC.")
@click.option("--link", is_flag=True, help="Leave the content where it is: record URL, size and version.")
@click.option("--rehash", is_flag=True, help="Read also files that seem unchanged since they were last put.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave these out. Repeatable.")
@click.option(
    "--from-file", type=click.File("r"), metavar="FILE", help="Read more sources from FILE, one a line; - is stdin."
)
@click.option("--create", is_flag=True, help="Make the repo though one has a similar name.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be put.")
@click.pass_obj
def command(
    app: App,
    target: str,
    sources: tuple[str, ...],
    message: str,
    append: bool,
    mirror: bool,
    link: bool,
    rehash: bool,
    exclude: tuple[str, ...],
    from_file: TextIO | None,
    create: bool,
    dry_run: bool,
) -> None:
    """Commit files to a repo.

    SRC is a file, a folder (its contents land at the target), an fsspec URL, or - for stdin (then the target's last
    part names the file). A repo that does not exist is made. With --link files stay where they are and are read from
    there when needed; one that changes is refused from then on, until it is put again.
    """
    ref = _target(target, sources)
    if ref.up:
        raise InvalidInputError(
            f"{target}: a put goes to a branch, not to an ancestor",
            code=ErrorCode.BAD_REF,
            hint=f"put to {ref.repo}@{ref.ref}",
        )
    if append and mirror:
        raise click.UsageError("--append and --mirror exclude each other", click.get_current_context())
    if append and link:
        raise click.UsageError("--append and --link exclude each other", click.get_current_context())
    listed = [line.rstrip("\r\n") for line in from_file or () if line.strip()]
    words = [*sources, *listed]
    if not words:
        raise click.UsageError("missing SRC", click.get_current_context())
    folder, planned = _sources(ref.path or "", words)
    _warn_of_names(app, ref, words)
    store = app.data(read_only=dry_run)
    if dry_run:
        _dry_run(app, folder, planned, exclude, target, skip=store.backend.properties.path)
        return
    with store.commit(ref.repo, ref.ref, message, create=True if create else None) as session:
        own = store.backend.properties.path
        session.put(
            planned,
            folder,
            append=append,
            mirror=mirror,
            exclude=exclude,
            skip=own,
            link=link,
            rehash=rehash,
            foresee=_suggest_link(app),
        )
    view = session.result
    assert view is not None
    if app.json:
        app.emit(
            {
                "repo": ref.repo,
                "branch": ref.ref,
                "commit": view.id,
                "changed": session.made,
                "files": view.files,
                "size": view.size,
                "created": session.creates_repo,
                "given": session.given_bytes,
                "stored": session.stored_bytes,
                "reflinked": session.cloned_bytes,
            }
        )
    if session.creates_repo:
        app.say(f"made repo {ref.repo}")
    if session.made:
        told = f"; stored {size(session.stored_bytes)} of {size(session.given_bytes)}" if session.given_bytes else ""
        if session.cloned_bytes:
            told += f", {size(session.cloned_bytes)} of it as reflinks to the files, which take no space"
        app.say(f"{ref.repo}@{ref.ref} is at {short(view.id)}: {count(view.files, 'file')}, {size(view.size)}{told}")
    else:
        app.say(f"{ref.repo}@{ref.ref} stays at {short(view.id)}: nothing changed")


def _warn_of_names(app: App, ref: Ref, words: Sequence[str]) -> None:
    """As with `cp`, people may mean the file's new name; here a target is a folder."""
    if len(words) != 1 or not ref.path or not os.path.isfile(words[0]):
        return
    name, suffix = os.path.basename(words[0]), os.path.splitext(words[0])[1]
    if suffix and os.path.splitext(ref.path)[1] == suffix:
        app.note(
            f"{ref} is taken for a folder: the file becomes /{ref.path}/{name}; "
            f"to give it another name: dmlpipe put {ref} - < {shlex.quote(words[0])}"
        )


def _target(text: str, sources: tuple[str, ...]) -> Ref:
    try:
        return parse_ref(text)
    except InvalidInputError as err:
        if os.path.exists(text):
            # As with `cp`, people name the folder first.
            repo = sources[-1] if sources else "REPO"
            raise InvalidInputError(
                f"{text} is a path, where the name of a repo is expected",
                code=ErrorCode.BAD_REF,
                hint=f"the repo comes first: dmlpipe put {repo} {text}",
            ) from err
        raise


def _suggest_link(app: App) -> Callable[[int], None]:
    """Return what says, before many bytes are copied, that they need not be."""
    total = 0

    def foresee(size_bytes: int) -> None:
        nonlocal total
        before, total = total, total + size_bytes
        if before < SUGGEST_LINK_BYTES <= total:
            app.note(
                f"{size(total)} in large files will be read and stored, unless the store has them; "
                "put --link leaves them where they are"
            )

    return foresee


def _sources(path: str, words: list[str]) -> tuple[str, list[Source]]:
    """Target folder and sources; stdin takes its name from the target."""
    if "-" not in words:
        return path, list(words)
    if len(words) > 1:
        raise InvalidInputError("- (stdin) cannot stand beside other sources", code=ErrorCode.INVALID)
    folder, _, name = path.rpartition("/")
    if not name:
        raise InvalidInputError(
            "- (stdin) has no name: the target must give one",
            code=ErrorCode.BAD_PATH,
            hint="for example: dmlpipe put notes:/today.txt -",
        )
    return folder, [(name, sys.stdin.buffer)]


def _dry_run(
    app: App, folder: str, sources: list[Source], exclude: tuple[str, ...], target: str, *, skip: Path | None
) -> None:
    from ...storage.paths import normalize_folder, show_path
    from ...storage.sources import plan_sources

    planned = list(plan_sources(sources, normalize_folder(folder), exclude=exclude, skip=skip))
    for item in sorted(planned, key=lambda item: item.path):
        if app.json:
            app.emit({"path": show_path(item.path), "from": item.origin})
        elif app.verbosity >= 0:
            app.line(f"{show_path(item.path)}  <- {item.origin}")
    total = sum(Path(item.file).stat().st_size for item in planned if item.file is not None)
    app.say(f"would put {count(len(planned), 'file')}, {size(total)}, to {target}; nothing was written")
