"""`store`: info, clone, push, pull, archive, index; and init and fsck by another name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..app import App
from ..command import Noun
from ..text import count, printable, size
from .fsck import command as fsck
from .init import command as init

if TYPE_CHECKING:
    from ...storage.sync import Transfer


@click.group("store", cls=Noun)
def command() -> None:
    """info, clone, push, pull, archive, index, init, fsck.

    A clone is a whole store: the same id, the same history. Push and pull bring one of two clones to where the other
    is; only objects that it lacks travel. Two clones that were both written to have grown apart, and are refused.
    """


@command.command("info")
@click.pass_obj
def info(app: App) -> None:
    """Say what a store is, and where its history ends."""
    store = app.data(read_only=True)
    state = store.state
    record = {
        "url": store.url,
        "repo_id": store.repo_id,
        "format": store.info.version,
        "created": store.info.created,
        "description": store.info.description,
        "entries": state.n + 1,
        "chain": state.chain if state.n >= 0 else "",
        "repos": sum(1 for _ in state.repos()),
        "read_only": store.read_only,
        "cache": str(store.cache_dir),
    }
    if app.json:
        app.emit(record)
        return
    app.table([(key, printable(str(value))) for key, value in record.items() if value != ""])


@command.command("clone")
@click.argument("source", metavar="SRC")
@click.argument("dest", metavar="DEST")
@click.pass_obj
def clone_(app: App, source: str, dest: str) -> None:
    """Copy a whole store, or go on with a copy that was interrupted.

    SRC is a store's folder or URL, or the file that `store archive` made; DEST is a new folder or URL, or a clone that
    is behind.
    """
    from ...storage.backend import open_backend
    from ...storage.sync import ArchiveBackend, clone, is_archive
    from ..transfer_progress import TransferProgress

    place = ArchiveBackend(source) if is_archive(source) else open_backend(source)
    with TransferProgress(app) as progress:
        done = clone(place, dest, progress=progress)
    _tell(app, done, f"cloned to {done.dest}")


@command.command("push")
@click.argument("url", metavar="URL")
@click.pass_obj
def push_(app: App, url: str) -> None:
    """Bring the clone at URL to where this store is."""
    from ...storage.sync import push
    from ..transfer_progress import TransferProgress

    store = app.data(read_only=True)
    with TransferProgress(app) as progress:
        done = push(store, url, progress=progress)
    _tell(app, done, f"pushed to {done.dest}")
    if done.ahead:
        app.note(f"{url} has {count(done.ahead, 'ledger entry')} more than this store: dmlpipe store pull {url}")


@command.command("pull")
@click.argument("url", metavar="URL")
@click.pass_obj
def pull_(app: App, url: str) -> None:
    """Bring this store to where its clone at URL is."""
    from ...storage.sync import pull
    from ..transfer_progress import TransferProgress

    store = app.data()
    with TransferProgress(app) as progress:
        done = pull(store, url, progress=progress)
    _tell(app, done, f"pulled from {done.source}")
    if done.ahead:
        app.note(f"this store has {count(done.ahead, 'ledger entry')} more than {url}: dmlpipe store push {url}")


@command.command("archive")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.pass_obj
def archive(app: App, file: Path) -> None:
    """Write the whole store into one new file, for places without a network.

    A tar; `store clone FILE DEST` makes a store of it, or brings a clone that is behind up to date. The same state of a
    store makes the same file, byte for byte.
    """
    from ...storage.sync import write_archive
    from ..transfer_progress import TransferProgress

    store = app.data(read_only=True)
    with TransferProgress(app) as progress:
        about = write_archive(store, file, copied=progress)
    written = file.stat().st_size
    if app.json:
        app.emit({"file": str(file), "size": written, "entries": about.n + 1, "objects": about.objects})
    app.say(f"wrote {file}: {count(about.n + 1, 'ledger entry')}, {count(about.objects, 'object')}, {size(written)}")


@command.command("index")
@click.option("--rebuild", is_flag=True, help="Make it anew.")
@click.pass_obj
def index(app: App, rebuild: bool) -> None:
    """Make or bring up to date a SQLite index of the ledger, in the local cache.

    Answers `why HASH` without reading every branch's head. Derived and never needed: remove it at will.
    """
    store = app.data(read_only=True)
    store.refresh()
    made = store.sql_index
    if rebuild:
        made.rebuild(store.archive, store.ledger)
    else:
        made.refresh(store.archive, store.ledger)
    if app.json:
        app.emit({"file": str(made.file), "entries": store.state.n + 1})
    app.say(f"indexed {count(store.state.n + 1, 'ledger entry')} in {made.file}")


def _tell(app: App, done: Transfer, what: str) -> None:
    if app.json:
        app.emit(done.to_dict())
        return
    requests = count(done.read_requests + done.write_requests, "request")
    if done.entries:
        there = f", {done.found:,} were there" if done.found else ""
        sent = f"{count(done.entries, 'ledger entry')}, {count(done.objects, 'object')}, {size(done.size_bytes)}{there}"
        app.say(f"{what}: {sent} ({requests})")
    else:
        app.say(f"{what}: nothing new, at entry {done.last} ({requests})")


command.add_command(init, "init")
command.add_command(fsck, "fsck")
