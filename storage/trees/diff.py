"""What differs between two trees of files, or between a tree and a local folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from ..errors import ErrorCode, InvalidInputError
from ..local.intake import Intake
from ..local.memory import Held, StatCache
from ..local.recall import FolderRecall
from ..objects.cutting import ContentDefined
from ..objects.local_value import value_of_file
from ..objects.value import Value, decode_value, encode_value
from ..paths import show_path
from ..source_files import SourceFile
from ..sources import plan_sources
from .operations import Files, ListedFiles
from .prolly import Tree


class Change(msgspec.Struct, frozen=True):
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
    old: Tree,
    local: str | os.PathLike[str],
    folder: bytes = b"",
    *,
    skip: Path | None = None,
    stats: StatCache | None = None,
    rehash: bool = False,
    cutting: ContentDefined | None = None,
) -> Iterator[Change]:
    """Yield what differs between `folder` of a tree and a local folder or file; the local side is the new one.

    Nothing is written to the store.

    Parameters
    ----------
    old, folder
        The old side.
    local
        The new side.
    skip
        A local folder to pass over.
    stats
        What is remembered of local files: those that have not changed since they were read are not read again.
    rehash
        Read them all the same.
    cutting
        How the store cuts large files by what they hold; None: at each 16 MiB.
    """
    recall = FolderRecall(stats, trust=not rehash)
    plan = plan_sources([local], folder, skip=skip, recall=recall)
    here = Held(old.root, folder)
    is_held = recall.mark(plan.folders, here)
    files: Files
    if plan.folders:
        files = Intake(recall, cutting=cutting).take(plan.folders)
    else:
        paths = [folder or item.path for item in plan.singles]
        files = ListedFiles(paths, [_value_of(item, cutting) for item in plan.singles])
    if is_held:
        others = files.others
        changed = dict(old.differing([path for path, _ in others], [value for _, value in others]))
    else:
        changed = dict(old.differing(files.paths, files.values))
    strays = {path.rpartition(b"/")[0] for path in changed}
    recall.save(here, [found for found in plan.folders if found.below in strays])
    gone = _gone(old, folder, files, len(plan), changed, alone=bool(plan.singles))
    differing = sorted([*changed, *gone])
    for path, before in zip(differing, old.get_many(differing), strict=True):
        after = changed.get(path)
        yield Change(
            show_path(path),
            decode_value(before) if before is not None else None,
            decode_value(after) if after is not None else None,
        )


def _gone(
    old: Tree, folder: bytes, files: Files, count: int, changed: Mapping[bytes, bytes], *, alone: bool
) -> list[bytes]:
    """Return what the old side has and the `count` files lack; of these, those in `changed` may be new."""
    if not folder and not alone:
        new = sum(before is None for before in old.get_many(sorted(changed)))
        if len(old) == count - new:
            return []  # as many are left as there were: no need to look at each
    there = set(files.paths)
    gone = [path for path, _ in ([] if alone else old.prefix(folder + b"/" if folder else b"")) if path not in there]
    if folder and folder not in there and old.get(folder) is not None:
        gone.append(folder)
    return gone


def _value_of(item: SourceFile, cutting: ContentDefined | None) -> bytes:
    assert item.file is not None
    try:
        return encode_value(value_of_file(Path(item.file), cutting))
    except OSError as error:
        raise InvalidInputError(f"cannot read {item.file}: {error.strerror}", code=ErrorCode.NO_FILE) from error
