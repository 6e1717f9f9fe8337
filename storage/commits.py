"""A commit as people look at it: list, find, read and fetch its files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from .archive import Archive
from .errors import ErrorCode, InvalidInputError, NotFoundError
from .local.outlet import write_file, write_files
from .objects.value import Value, decode_value
from .paths import join_path, normalize_folder, normalize_path, show_path
from .records import Commit
from .refs import CommitRef, show_commit
from .trees.diff import Change, diff_folder, diff_trees
from .trees.prolly import Tree

if TYPE_CHECKING:
    from zarr import Array as ZarrArray

    from .array import ArrayStore

_FETCH_TOGETHER = 100_000
"""Files whose names are in memory at once while a folder is copied out."""

_NAMES_SEARCHED = 10_000


class FileInfo(msgspec.Struct, frozen=True):
    """A file or folder of a commit."""

    path: str
    """With leading slash."""
    value: Value | None
    """None: a folder."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def is_folder(self) -> bool:
        """Whether this is a folder."""
        return self.value is None

    @property
    def size(self) -> int | None:
        """Bytes of content; None for a folder, which would have to be walked."""
        return self.value.size if self.value is not None else None

    def to_dict(self) -> dict[str, object]:
        """Return plain data with stable keys."""
        return {"path": self.path, "type": "folder" if self.is_folder else "file", "size": self.size}


class CommitView:
    """An immutable commit of a repo: what ``store["repo@ref"]`` returns.

    Parameters
    ----------
    archive
        Where its bytes are.
    repo
        Repo it belongs to.
    commit
        Its id, hex.
    root
        A path that was named along with it; methods take paths from the commit's root all the same.
    """

    def __init__(self, archive: Archive, repo: str, commit: str, root: str | None = None) -> None:
        self._archive = archive
        self.repo = repo
        self.id = commit
        self.path = root
        """The path that the name had, without leading slash, or None."""

    def __repr__(self) -> str:
        return f"<commit {show_commit(self.repo, self.id)}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CommitView) and (self.repo, self.id) == (other.repo, other.id)

    def __hash__(self) -> int:
        return hash((self.repo, self.id))

    @property
    def ref(self) -> CommitRef:
        """Its resolved name."""
        return CommitRef(self.repo, self.id, self.path)

    @property
    def body(self) -> Commit:
        """Tree, parents, message, author, time, job."""
        return self._archive.body(self.id)

    @property
    def tree(self) -> Tree:
        """Path to encoded value."""
        return self._archive.tree(self.body.tree)

    @property
    def parents(self) -> tuple[str, ...]:
        """Ids of the commits that this one followed."""
        return self.body.parents

    @property
    def message(self) -> str:
        """What its author said."""
        return self.body.message

    @property
    def author(self) -> str:
        """Who made it."""
        return self.body.author

    @property
    def time(self) -> str:
        """When it was made: UTC, ISO 8601."""
        return self.body.time

    @property
    def job(self) -> str:
        """The job that made it; empty if people did."""
        return self.body.job

    @property
    def files(self) -> int:
        """How many files it has."""
        return self.body.files

    @property
    def size(self) -> int:
        """Bytes of content, as if each file were stored alone."""
        return self.body.size

    # --- looking --------------------------------------------------------------------------------------------------

    def ls(self, path: str = "/", *, recursive: bool = False) -> Iterator[FileInfo]:
        """List what stands in a folder, or the file of that name.

        Parameters
        ----------
        path
            Folder or file.
        recursive
            All files below, without the folders.

        Raises
        ------
        NotFoundError
            There is neither.
        """
        folder = normalize_folder(path)
        tree = self.tree
        value = tree.get(folder) if folder else None
        if value is not None:
            return iter([FileInfo(show_path(folder), decode_value(value))])
        below = folder + b"/" if folder else b""
        if folder and next(tree.prefix(below), None) is None:
            raise self._no_file(folder)
        if recursive:
            return (FileInfo(show_path(key), decode_value(raw)) for key, raw in tree.prefix(below))
        return (
            FileInfo(show_path(below + name), decode_value(raw) if raw is not None else None)
            for name, _, raw in tree.list_dir(below)
        )

    def glob(self, pattern: str) -> Iterator[FileInfo]:
        """Yield the files and folders that a glob matches, sorted by path."""
        from .glob import compile_glob, glob_tree

        for match in glob_tree(self.tree, compile_glob(pattern)):
            yield FileInfo("/" + match.path, decode_value(match.value) if match.value is not None else None)

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder of that name."""
        folder = normalize_folder(path)
        return not folder or self.tree.get(folder) is not None or self._is_folder(folder)

    def info(self, path: str) -> FileInfo:
        """Return what stands under a path.

        Raises
        ------
        NotFoundError
            Nothing does.
        """
        folder = normalize_folder(path)
        raw = self.tree.get(folder) if folder else None
        if raw is not None:
            return FileInfo(show_path(folder), decode_value(raw))
        if folder and not self._is_folder(folder):
            raise self._no_file(folder)
        return FileInfo(show_path(folder), None)

    def value(self, path: str) -> Value:
        """Return what the tree says of a file.

        Raises
        ------
        NotFoundError
            There is no such file; the hint names the nearest.
        InvalidInputError
            It is a folder.
        """
        key = normalize_path(path)
        raw = self.tree.get(key)
        if raw is not None:
            return decode_value(raw)
        if self._is_folder(key):
            raise InvalidInputError(f"{self._show(key)} is a folder", code=ErrorCode.BAD_PATH)
        raise self._no_file(key)

    # --- reading --------------------------------------------------------------------------------------------------

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading; seekable."""
        return self._archive.objects.open(self.value(path))

    def read_bytes(self, path: str) -> bytes:
        """Return a file's content."""
        return self._archive.objects.read(self.value(path))

    def read_text(self, path: str, encoding: str = "utf-8") -> str:
        """Return a file's content as text."""
        return self.read_bytes(path).decode(encoding)

    def get(self, path: str, dest: str | os.PathLike[str]) -> int:
        """Write a file, or all files of a folder, to a local place; return how many files were written.

        Parameters
        ----------
        path
            A folder's contents land in `dest`, which is made; a file lands in `dest` if that is a folder, else it gets
            that name.
        dest
            Local path. Files of the same names are replaced, each at once.
        """
        key = normalize_folder(path)
        target = Path(dest)
        raw = self.tree.get(key) if key else None
        if raw is not None:
            if target.is_dir():
                target = target / os.fsdecode(key.rpartition(b"/")[2])
            target.parent.mkdir(parents=True, exist_ok=True)
            write_file(self._archive.objects, decode_value(raw), target)
            return 1
        if key and not self._is_folder(key):
            raise self._no_file(key)
        if target.exists() and not target.is_dir():
            raise InvalidInputError(f"{target} is a file, and {self._show(key)} is a folder", code=ErrorCode.BAD_PATH)
        target.mkdir(parents=True, exist_ok=True)
        below = key + b"/" if key else b""
        entries = self.tree.prefix(below)
        count = 0
        while part := list(islice(entries, _FETCH_TOGETHER)):
            write_files(self._archive.objects, target, [(name[len(below) :], raw) for name, raw in part])
            count += len(part)
        return count

    def zarr(self, path: str = "/") -> ArrayStore:
        """Return the commit below `path` as a Zarr store, read-only."""
        from .array import ArrayStore

        return ArrayStore.of_tree(self._archive.objects, self.tree, normalize_folder(path))

    def array(self, path: str = "/") -> ZarrArray[Any]:
        """Open a Zarr array of the commit, read-only.

        Raises
        ------
        InvalidInputError
            What stands there is a group.
        NotFoundError
            Nothing does.
        """
        from zarr import Array, open

        self.info(f"{path}/zarr.json")
        found = open(self.zarr(path), mode="r")
        if not isinstance(found, Array):
            raise InvalidInputError(f"{self._show(normalize_folder(path))} is a Zarr group, not an array")
        return found

    def diff(
        self,
        other: CommitView | str | os.PathLike[str],
        path: str = "/",
        *,
        skip: Path | None = None,
        rehash: bool = False,
    ) -> Iterator[Change]:
        """Yield what differs from this commit to another one, or to a local folder.

        Parameters
        ----------
        other
            The new side: a commit, or a local folder or file.
        path
            Look only below this folder.
        skip
            A local folder to pass over.
        rehash
            Read also those local files whose inode, size and times are what they were when they were last read.
        """
        folder = normalize_folder(path)
        if isinstance(other, CommitView):
            return diff_trees(self.tree, other.tree, folder)
        archive = self._archive
        return diff_folder(
            self.tree, other, folder, skip=skip, stats=archive.stats, rehash=rehash, cutting=archive.objects.cutting
        )

    # --- inside ---------------------------------------------------------------------------------------------------

    def _is_folder(self, path: bytes) -> bool:
        return next(self.tree.prefix(path + b"/"), None) is not None

    def _show(self, path: bytes) -> str:
        return show_commit(self.repo, self.id, show_path(path))

    def _no_file(self, path: bytes) -> NotFoundError:
        parent = path.rpartition(b"/")[0]
        siblings = []
        for name, _, _ in self.tree.list_dir(parent + b"/" if parent else b""):
            siblings.append(name.decode())
            if len(siblings) == _NAMES_SEARCHED:
                break
        import difflib

        near = difflib.get_close_matches(path.rpartition(b"/")[2].decode(), siblings, n=1, cutoff=0.7)
        meant = join_path(parent, near[0].encode()) if near else None
        shown = show_path(parent)
        return NotFoundError(
            f"no file {show_path(path)} in {show_commit(self.repo, self.id)}",
            code=ErrorCode.NO_FILE,
            hint=(f"did you mean {show_path(meant)}? " if meant is not None else "")
            + f"list: dmlpipe ls {show_commit(self.repo, self.id, shown)}",
        )
