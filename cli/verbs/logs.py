"""`logs`: what the processes of this host's cluster logged for a store."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from ..app import App
from ..command import Verb
from ..failure import FAILED
from ..text import printable

if TYPE_CHECKING:
    from ...storage.store import Store

_LOOK_S = 0.3


@click.command("logs", cls=Verb)
@click.argument("process", required=False)
@click.option("-n", "--lines", type=click.IntRange(min=0), default=100, show_default=True, help="Of each process.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("--datum", metavar="ID", help="Only lines about this datum: processes must have logged JSON.")
@click.option("--job", metavar="ID", help="Only lines about this job: processes must have logged JSON.")
@click.pass_obj
def command(app: App, process: str | None, lines: int, follow: bool, datum: str | None, job: str | None) -> int:
    """Show what the processes of a cluster logged.

    PROCESS is scheduler, worker, controller, supervisor, or the name of a spout or service. What datums printed is
    told by `datum logs` and `job logs`. With --log-format json (of run or up, or $DMLPIPE_LOG_FORMAT) each line of a
    log is a JSON object, and there is one for each datum that ended; --json prints all lines as objects.
    """
    store = app.data(read_only=True)
    files = {path.stem: path for path in _files(store) if process in (None, path.stem)}
    if not files:
        known = ", ".join(sorted({path.stem for path in _files(store)}))
        app.note(
            f"no log of {process}; there are: {known}" if known else "no cluster of this host served this store yet"
        )
        return FAILED
    wanted = {name: text for name, text in (("datum", datum), ("job", job)) if text}
    shown = False
    ends: dict[str, int] = {}
    for name, path in files.items():
        found: Iterator[str] | collections.deque[str] = _read(path, ends, name)
        if wanted:
            found = (line for line in found if _about(line, wanted))
        for line in collections.deque(found, maxlen=lines):
            shown = True
            _show(app, name, line, alone=len(files) == 1)
    if not shown and not follow:
        told = " and ".join(f"{name} {text}" for name, text in wanted.items())
        app.note(
            f"nothing about {told}: were the processes started with --log-format json?"
            if told
            else "nothing logged yet"
        )
    while follow:
        time.sleep(_LOOK_S)
        for name, path in files.items():
            for line in _read(path, ends, name):
                if not wanted or _about(line, wanted):
                    _show(app, name, line, alone=len(files) == 1)
    return 0


def _files(store: Store) -> list[Path]:
    """Logs of the cluster that `up` started, or else of the last `run`; the newer of the two if both are there."""
    folders = [store.cache_dir / "cluster" / store.repo_id, store.cache_dir / "stores" / store.repo_id / "run"]
    found = [sorted(folder.glob("*.log")) for folder in folders]
    return max(found, key=lambda paths: max((path.stat().st_mtime for path in paths), default=0.0))


def _read(path: Path, ends: dict[str, int], name: str) -> Iterator[str]:
    """Yield whole lines that were not read yet; what is written now is left for the next time."""
    with path.open("rb") as file:
        if file.seek(0, 2) < ends.get(name, 0):
            ends[name] = 0  # it was begun anew
        file.seek(ends.get(name, 0))
        for raw in file:
            if not raw.endswith(b"\n"):
                break
            ends[name] = ends.get(name, 0) + len(raw)
            yield raw.decode(errors="replace").rstrip("\n")


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        told = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    return told if isinstance(told, dict) else None


def _about(line: str, wanted: dict[str, str]) -> bool:
    told = _parsed(line)
    return told is not None and all(
        (known := str(told.get(name, ""))) and (known.startswith(text) or text.startswith(known))
        for name, text in wanted.items()
    )


def _show(app: App, name: str, line: str, *, alone: bool) -> None:
    if app.json:
        app.emit(_parsed(line) or {"process": name, "message": line})
        return
    text = printable(line)
    app.line(text if alone else f"{name} | {text}")
