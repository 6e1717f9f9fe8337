"""Bundles of user code, laid out once per host."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

from ...storage.digest import from_hex
from ...storage.trees.codetree import read_code
from .files import ContentStore


def make_code(store: ContentStore, tree: str, folder: Path) -> Path:
    """Lay out a bundle as `folder/<tree>`, once per host, and return it. Safe for many processes."""
    target = folder / tree
    if target.is_dir():
        return target
    building = folder / f".building-{os.getpid()}-{threading.get_ident()}-{tree[:16]}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    for name, data, mode in read_code(store.tree(from_hex(tree)), store.objects):
        path = building / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
    try:
        building.rename(target)
    except OSError:
        # Another process was faster; its folder holds the same.
        shutil.rmtree(building, ignore_errors=True)
        if not target.is_dir():
            raise
    return target
