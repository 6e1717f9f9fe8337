"""What differs between two trees of files, or between a tree and a local folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..objects.local_value import value_of_file
from ..objects.value import Value, decode_value, encode_value
from ..paths import show_path
from ..sources import plan_sources
from .prolly import Tree


@dataclass(frozen=True, slots=True)
class Change:
    """A file that differs."""

    path: str
    """With leading slash."""
    old: Value | None
    """None: the file is new."""
    new: Value | None
    """None: the file is gone."""

    @property
    def kind(self) -> str:
        """``added``, ``removed`` or ``changed``."""
        return "added" if self.old is None else "removed" if self.new is None else "changed"

    @property
    def size_change(self) -> int:
        """Bytes of content that the new side has more."""
        return (self.new.size if self.new else 0) - (self.old.size if self.old else 0)

    def to_dict(self) -> dict[str, object]:
        """Return plain data with stable keys."""
        return {
            "path": self.path,
            "change": self.kind,
            "old_size": self.old.size if self.old else None,
            "new_size": self.new.size if self.new else None,
        }


def diff_trees(old: Tree, new: Tree, folder: bytes = b"") -> Iterator[Change]:
    """Yield what differs below `folder` (or the one file of that name), sorted by path.

    Reads the nodes that differ, not those that the trees share.
    """
    below = folder + b"/"
    for path, before, after in old.diff(new):
        if folder and path != folder and not path.startswith(below):
            continue
        yield Change(
            show_path(path),
            decode_value(before) if before is not None else None,
            decode_value(after) if after is not None else None,
        )


def diff_folder(
    old: Tree, local: str | os.PathLike[str], folder: bytes = b"", *, skip: Path | None = None
) -> Iterator[Change]:
    """Yield what differs between `folder` of a tree and a local folder or file; the local side is the new one.

    Every local file is read and hashed; nothing is written.
    """
    planned = plan_sources([local], b"", skip=skip)
    alone = os.path.isfile(local)
    there = {folder if alone else (folder + b"/" + item.path if folder else item.path): item for item in planned}
    below = folder + b"/" if folder else b""
    paths = dict(old.prefix(below)) if not alone else {}
    single = old.get(folder) if folder else None
    if single is not None:
        paths[folder] = single
    for path in sorted(paths.keys() | there.keys()):
        before = paths.get(path)
        item = there.get(path)
        after = value_of_file(Path(item.file)) if item is not None and item.file is not None else None
        if before is None or after is None or encode_value(after) != before:
            yield Change(show_path(path), decode_value(before) if before is not None else None, after)
