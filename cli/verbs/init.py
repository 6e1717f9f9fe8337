"""`init`: make a store, and with `--dag` a first DAG beside it."""

from __future__ import annotations

import importlib.resources
import os
import re
from pathlib import Path

import click

from ...storage.errors import ConflictError, DmlpipeError, ErrorCode
from ..app import App
from ..command import Verb
from ..text import size

PIECES = ("fixed", "content-defined")
"""As `Store.init` knows them, which is not imported for `--help`."""

TEMPLATES = {"dag.py": "dag.py.txt", "test_dag.py": "test_dag.py.txt"}


@click.command("init", cls=Verb)
@click.argument("url", required=False)
@click.option("--dag", is_flag=True, help="Also write dag.py and test_dag.py, here or into the folder URL.")
@click.option(
    "--pieces",
    type=click.Choice(PIECES),
    default=PIECES[0],
    show_default=True,
    help="How files above 16 MiB are cut, for good.",
)
@click.pass_obj
def command(app: App, url: str | None, dag: bool, pieces: str) -> None:
    """Make a store here, and a first DAG with --dag.

    URL is a folder or any fsspec URL (s3://bucket/prefix); default: ./.dmlpipe. With --dag a folder is the project's,
    and the store is in its .dmlpipe.

    --pieces content-defined: of a large file that was edited or shifted, only what is new is stored again. For JSON
    lines, CSV, tars, model weights; no use for what is compressed. Needs the extra cdc; pipelines' outputs take more
    objects.
    """
    from ...storage.info import STORE_FOLDER
    from ...storage.store import Store

    place = url or app.url or os.environ.get("DMLPIPE_STORE") or f"./{STORE_FOLDER}"
    project = Path.cwd()
    if dag and url and "://" not in url and Path(url).name != STORE_FOLDER:
        project = Path(url)
        place = str(project / STORE_FOLDER)
    written = _plan_templates(project) if dag else {}
    try:
        store = Store.init(place, pieces=pieces)
    except DmlpipeError as error:
        # With --dag the store is not what was asked for first; what is no store is still refused.
        if not dag or error.code != ErrorCode.EXISTS:
            raise
        Store.open(place, read_only=True)
        app.note(f"{place} is a store already")
        made = ""
    else:
        made = store.url
        app.say(f"made an empty store at {store.url}")
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")
        app.say(f"wrote {path if url and project != Path.cwd() else path.name} ({size(len(text.encode()))})")
    if written:
        steps = ["pytest", "dmlpipe put texts SOME.txt", "dmlpipe run dag.py"]
        if project.resolve() != Path.cwd():
            steps.insert(0, f"cd {project}")
        elif not place.endswith(STORE_FOLDER):
            steps.insert(1, f"export DMLPIPE_STORE={place}")
        app.say("next: " + "   ·   ".join(steps))
    if app.json:
        app.emit({"store": made or place, "created": bool(made), "files": [str(path) for path in written]})


def _plan_templates(folder: Path) -> dict[Path, str]:
    """Read the templates; refuse before anything is written if one is in the way."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.absolute().name).strip("-._") or "first"
    texts = {}
    for target, template in TEMPLATES.items():
        path = folder / target
        if path.exists():
            raise ConflictError(
                f"{target} exists already in {folder}",
                code=ErrorCode.EXISTS,
                hint="nothing was written; move it away, or work in another folder",
            )
        source = importlib.resources.files("dmlpipe.cli") / "templates" / template
        texts[path] = source.read_text(encoding="utf-8").replace("@NAME@", name)
    return texts
