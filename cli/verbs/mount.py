"""`mount`: look at a commit as a folder of this machine."""

from __future__ import annotations

import importlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.refs import parse_ref
from ..app import App
from ..command import Verb

if TYPE_CHECKING:
    from ...storage.dmlfs import DmlFileSystem

_DEVICE = Path("/dev/fuse")
_INSTEAD = "copy the files instead: dmlpipe get"


@click.command("mount", cls=Verb)
@click.argument("target", metavar="REF[:/path]")
@click.argument("folder", type=click.Path(), metavar="DIR")
@click.pass_obj
def command(app: App, target: str, folder: str) -> None:
    """Look at a commit as a folder.

    Until interrupted; read-only, and of the commit that REF means now. Files are fetched when they are read. Needs
    fusepy and the operating system's FUSE; `get` copies files out and needs neither.
    """
    ref = parse_ref(target)
    store = app.data(read_only=True)
    view = store[ref]
    if not view.info(ref.path or "/").is_folder:
        raise InvalidInputError(f"{target} is a file", code=ErrorCode.BAD_PATH, hint=f"name its folder, or {_INSTEAD}")
    place = Path(folder)
    if not place.is_dir() or any(place.iterdir()):
        raise InvalidInputError(
            f"{folder} is no empty folder", code=ErrorCode.BAD_PATH, hint=f"make one: mkdir {folder}"
        )
    mount = _load_fuse()
    from ...storage.dmlfs import DmlFileSystem

    app.note(f"{view.ref} is at {folder} until Ctrl-C, or: fusermount -u {folder}")
    mount(DmlFileSystem(store), f"{view.repo}@{view.id}/{ref.path or ''}", place)


def _load_fuse() -> Any:
    """Return what mounts, or say what is lacking."""
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        raise InvalidInputError(
            f"this machine lets nobody mount: no access to {_DEVICE}", code=ErrorCode.UNSUPPORTED, hint=_INSTEAD
        )
    try:
        library: Any = importlib.import_module("fsspec.fuse")
    except ImportError as error:
        raise InvalidInputError(
            f"mounting needs fusepy: {error}", code=ErrorCode.UNSUPPORTED, hint=f"pip install fusepy; or {_INSTEAD}"
        ) from error
    except OSError as error:  # fusepy is there and finds no libfuse
        raise InvalidInputError(
            f"mounting needs libfuse 2: {error}",
            code=ErrorCode.UNSUPPORTED,
            hint=f"sudo apt-get install -y libfuse2; or {_INSTEAD}",
        ) from error

    class Commit(library.FUSEr):  # type: ignore[misc]  # fsspec has no types
        """Files that belong to whoever mounts them, and that nobody may write."""

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            found: dict[str, Any] = super().getattr(path, fh)
            kind = stat.S_IFMT(found["st_mode"])
            found["st_mode"] = kind | (0o555 if kind == stat.S_IFDIR else 0o444)
            return found | {"st_uid": os.getuid(), "st_gid": os.getgid()}

    def mount(fs: DmlFileSystem, root: str, place: Path) -> None:
        try:
            # Its operations seek in shared files: one at a time.
            library.FUSE(Commit(fs, root), str(place), foreground=True, nothreads=True, ro=True)
        except RuntimeError as error:
            raise InvalidInputError(
                f"{place} cannot be mounted: FUSE gave up ({error})", code=ErrorCode.UNSUPPORTED, hint=_INSTEAD
            ) from error

    return mount
