"""Edits to a commit's tree, kept as operations so that they can be replayed on a newer head.

A put overwrites whatever the head then has; a deletion takes what is there then; an append to a file that somebody
changed meanwhile is a conflict. A name is a file or a folder, never both: `collisions` finds what would break that.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set

from ..digest import Digest
from ..errors import ConflictError, ErrorCode, InvalidInputError
from ..objects.value import Sizes
from ..paths import folders_of, show_path
from .folders import after_prefix
from .operations import Append, Delete, Edit, Files, Mirror, Put, PutMany
from .prolly import Tree, build_of_lists

_INSERT_UP_TO = 16
"""Fewer new paths are put in their places one by one; more are sorted in."""


class Edits:
    """A tree with edits on top.

    Parameters
    ----------
    base
        What the edits apply to.
    """

    def __init__(self, base: Tree) -> None:
        self.base = base
        self._log: list[Edit] = []
        self._changes: dict[bytes, bytes | None] = {}
        self._folders: set[bytes] = set()
        """Those that changed paths stand right in, and maybe more."""
        # The paths of the changes, sorted when first needed; a new list takes its place, so that scans may go on.
        self._sorted: list[bytes] = []

    @classmethod
    def of_changes(cls, base: Tree, changes: Mapping[bytes, bytes | None]) -> Edits:
        """Return edits that set each path to its value, or delete the file (None), whatever order they came in."""
        edits = cls(base)
        edits._changes = dict(changes)
        edits._folders = _parents(changes)
        return edits

    # --- looking --------------------------------------------------------------------------------------------------

    @property
    def log(self) -> Sequence[Edit]:
        """What was done, in order."""
        return tuple(self._log)

    @property
    def changes(self) -> Mapping[bytes, bytes | None]:
        """What came of it: paths with their new values; None: deleted."""
        return self._changes

    def __bool__(self) -> bool:
        return bool(self._log)

    def is_at(self, root: Digest) -> bool:
        """Whether all is as in the tree with this root: that is what the edits apply to, and none changed anything."""
        return self.base.root == root and not self._changes

    def get(self, path: bytes) -> bytes | None:
        """Return the encoded value of a file, or None."""
        if path in self._changes:
            return self._changes[path]
        return self.base.get(path)

    def is_folder(self, path: bytes) -> bool:
        """Whether something stands below `path`."""
        return next(self.entries(path + b"/" if path else b""), None) is not None

    def entries(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield (path, encoded value) of what begins with `prefix`, sorted by path."""
        return self.scan(prefix, after_prefix(prefix))

    def scan(self, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield (path, encoded value) for start <= path < stop, sorted by path."""
        mine = self._sorted_changes()
        position = bisect_left(mine, start)
        end = len(mine) if stop is None else bisect_left(mine, stop)
        for path, value in self.base.scan(start, stop):
            while position < end and mine[position] < path:
                new = self._changes[mine[position]]
                if new is not None:
                    yield mine[position], new
                position += 1
            if position < end and mine[position] == path:
                position += 1
                new = self._changes[path]
                if new is not None:
                    yield path, new
            else:
                yield path, value
        for number in range(position, end):
            new = self._changes[mine[number]]
            if new is not None:
                yield mine[number], new

    def _sorted_changes(self) -> list[bytes]:
        have, want = len(self._sorted), len(self._changes)
        if have < want:
            # Changes are never taken back, so the new ones are the last of the dictionary.
            new = [path for path, _ in zip(reversed(self._changes), range(want - have), strict=False)]
            merged = list(self._sorted)
            if len(new) < _INSERT_UP_TO:
                for path in new:
                    insort(merged, path)
            else:
                merged += new
                merged.sort()
            self._sorted = merged
        return self._sorted

    # --- editing --------------------------------------------------------------------------------------------------

    def put(self, path: bytes, value: bytes) -> None:
        """Set a file."""
        self._do(Put(path, value))

    def put_many(self, files: Files, held: Digest | None = None) -> None:
        """Set files. Those that have their value already cost next to nothing.

        Parameters
        ----------
        files
            What they get.
        held
            Root of a tree that has these values, but for `others`, if one is known: an edit to that tree costs no more
            than the others.
        """
        self._do(PutMany(files, held))

    def append(self, path: bytes, value: bytes) -> None:
        """Set a file to `value`, which was made from what it holds now."""
        self._do(Append(path, self.get(path), value))

    def delete(self, path: bytes) -> bool:
        """Delete a file, or a folder with all that is in it (``b""``: everything); return whether there was one."""
        existed = self.get(path) is not None or self.is_folder(path)
        if existed:
            self._do(Delete(path))
        return existed

    def mirror(self, folder: bytes, keep: Iterable[bytes]) -> None:
        """Delete what stands below `folder` and is not in `keep`."""
        self._do(Mirror(folder, frozenset(keep)))

    def rebased(self, base: Tree) -> Edits:
        """Return the same edits on another tree.

        Raises
        ------
        ConflictError
            A file that was appended to has another content there.
        """
        other = Edits(base)
        other.replay(self._log)
        return other

    def replay(self, log: Iterable[Edit]) -> None:
        """Do again what was done to another tree.

        Raises
        ------
        ConflictError
            A file that was appended to has another content here.
        """
        for edit in log:
            self._do(edit)

    def _do(self, edit: Edit) -> None:
        match edit:
            case Put():
                self._changes[edit.path] = edit.value
                self._folders.add(_parent(edit.path))
            case PutMany():
                self._put_many(edit.files, edit.held)
            case Append():
                if self.get(edit.path) != edit.old:
                    raise ConflictError(
                        f"{show_path(edit.path)} was changed by somebody else while it was appended to",
                        hint="append again",
                    )
                self._changes[edit.path] = edit.value
                self._folders.add(_parent(edit.path))
            case Delete():
                below = edit.path + b"/" if edit.path else b""
                gone = [path for path, _ in self.entries(below)]
                if edit.path and self.get(edit.path) is not None:
                    gone.append(edit.path)
                self._changes.update(dict.fromkeys(gone))
            case Mirror():
                below = edit.folder + b"/" if edit.folder else b""
                gone = [path for path, _ in self.entries(below) if path not in edit.keep]
                self._changes.update(dict.fromkeys(gone))
        self._log.append(edit)

    def _put_many(self, files: Files, held: Digest | None) -> None:
        if held is not None and self.is_at(held):
            others = [path for path, _ in files.others]
            self._changes.update(self.base.differing(others, [value for _, value in files.others]))
            self._folders |= _parents(others)
            return
        paths, values = files.paths, files.values
        if self.base.is_empty():
            self._changes.update(zip(paths, values, strict=True))
        else:
            pairs = zip(paths, values, strict=True) if self._changes else ()
            again = [pair for pair in pairs if pair[0] in self._changes]
            self._changes.update(self.base.differing(paths, values))
            self._changes.update(again)
        self._folders |= files.folders if files.folders is not None else _parents(paths)

    # --- finishing ------------------------------------------------------------------------------------------------

    def check(self, paths: Collection[bytes], folders: Set[bytes] | None = None) -> None:
        """Raise unless files may be put at `paths` (which need not have been put yet).

        Parameters
        ----------
        paths
            Where they are to be; fastest if they are sorted.
        folders
            Those that they stand right in, if that is known: saves looking at each path.

        Raises
        ------
        InvalidInputError
            One of them is a folder, or stands below a file, here or among themselves (code ``bad-path``).
        """
        for path in self._collisions(paths, _parents(paths) if folders is None else folders):
            raise InvalidInputError(
                f"{show_path(path)} cannot be both a file and a folder",
                code=ErrorCode.BAD_PATH,
                hint="delete one of them first, or choose another name",
            )

    def _collisions(self, paths: Collection[bytes], folders: Set[bytes]) -> Iterator[bytes]:
        in_order = sorted(paths)
        for folder in _all_above(folders):
            at = bisect_left(in_order, folder)
            if in_order[at : at + 1] == [folder] or self.get(folder) is not None:
                yield folder
        # A new name can be a folder already only where its own folder exists: a new folder needs no look.
        known: dict[bytes, bool] = {}
        if self.base.is_empty():
            return
        for path in self.base.lacking(in_order):
            parent = _parent(path)
            if parent not in known:
                known[parent] = self._base_has(parent)
            if known[parent] and self._is_live_folder(path):
                yield path

    def _base_has(self, folder: bytes) -> bool:
        return next(self.base.prefix(folder + b"/" if folder else b""), None) is not None

    def _is_live_folder(self, path: bytes) -> bool:
        return any(self._changes.get(below, b"") is not None for below, _ in self.base.prefix(path + b"/"))

    def finish(self) -> Tree:
        """Return the edited tree; writes its new nodes.

        Raises
        ------
        InvalidInputError
            A name would be both a file and a folder.
        """
        alone = self._alone()
        if alone is not None and not any(self.get(folder) is not None for folder in _all_above(self._folders)):
            return build_of_lists(self.base.nodes, alone.files.paths, alone.files.values)
        live: Set[bytes] = self._changes.keys()
        if None in self._changes.values():
            live = {path for path, value in self._changes.items() if value is not None}
        if not self.base.is_empty() or any(self.get(folder) is not None for folder in _all_above(self._folders)):
            self.check(live)
        if self.base.is_empty():
            paths = sorted(live)
            values = [value for value in map(self._changes.__getitem__, paths) if value is not None]
            return build_of_lists(self.base.nodes, paths, values)
        return self.base.update(sorted(self._changes.items()))

    def _alone(self) -> PutMany | None:
        """Return the edit that is all there is: a first put of many files."""
        edit = self._log[0] if len(self._log) == 1 and self.base.is_empty() else None
        return edit if isinstance(edit, PutMany) and len(edit.files.paths) == len(self._changes) else None

    def size_change(self) -> int:
        """Return by how many bytes of content the edits make the tree larger."""
        alone = self._alone()
        if alone is not None and alone.files.size is not None:
            return alone.files.size
        olds = [] if self.base.is_empty() else self.base.get_many(sorted(self._changes))
        news = self._changes.values()
        sizes = Sizes()
        return sizes.sum([new for new in news if new is not None]) - sizes.sum([old for old in olds if old is not None])


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def _parents(paths: Iterable[bytes]) -> set[bytes]:
    return {path.rpartition(b"/")[0] for path in paths}


def _all_above(folders: Set[bytes]) -> set[bytes]:
    """Return folders with all that they stand in, without the root."""
    return set(folders).union(*map(folders_of, folders)) - {b""}
