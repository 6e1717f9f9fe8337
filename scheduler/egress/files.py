"""Egress of files: those that changed since the last time are written below a URL. None is deleted there."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

from ...storage.commits import CommitView
from ...storage.errors import BackendError
from ...storage.trees.prolly import Tree

_TOGETHER = 8
_COPY_BYTES = 1 << 20


def changed_paths(tree: Tree, before: Tree) -> list[str]:
    """Paths of the files that `tree` has and `before` has not, or not so. Reads nodes in proportion to the change."""
    return [path.decode() for path, _, new in before.diff(tree) if new is not None]


def send_files(view: CommitView, paths: list[str], url: str, cancelled: threading.Event) -> int:
    """Write files below `url`; return how many.

    Raises
    ------
    BackendError
        One could not be written. What was written stays; sending again is harmless.
    """
    import fsspec

    try:
        fs, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as err:
        raise BackendError(f"egress to {url}: {err}") from err
    root = root.rstrip("/")

    def send(path: str) -> bool:
        if cancelled.is_set():
            return False
        target = f"{root}/{path}"
        fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        with view.open(f"/{path}") as source, fs.open(target, "wb") as sink:
            shutil.copyfileobj(source, sink, _COPY_BYTES)
        return True

    with ThreadPoolExecutor(_TOGETHER, thread_name_prefix="dmlpipe-egress") as pool:
        try:
            return sum(pool.map(send, paths))
        except OSError as err:
            cancelled.set()
            raise BackendError(f"egress to {url}: {err}") from err
