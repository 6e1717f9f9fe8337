"""Edits to a branch that are not published yet: what a session, and each writer of an open commit, can do.

Content is stored as it is put. Nothing refers to it until whoever owns the edits publishes them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..archive import Archive
from ..clock import utc_now
from ..commits import CommitView
from ..errors import ConflictError, ErrorCode, InvalidInputError, NotFoundError
from ..local.large import LargeReader
from ..objects.value import Value, decode_value, encode_value
from ..objects.writer import ObjectWriter
from ..paths import join_path, normalize_folder, normalize_path, show_path
from ..refs import DEFAULT_BRANCH, parse_ref
from ..source_files import SourceFile
from ..sources import Source, plan_sources
from ..tokens import token_hex
from ..trees.edits import Edits
from ..trees.folders import list_folder
from ..trees.operations import ListedFiles
from ..trees.prolly import Tree
from .folder_sources import FolderSources
from .parts import heartbeat_key
from .single_sources import is_large, link_source, store_behind, store_source

if TYPE_CHECKING:
    from ..array import ArrayStore
    from ..filesystem.filesystem import SessionFileSystem

BEAT_EVERY_S = 300.0


class Target(msgspec.Struct, frozen=True):
    """Where a session publishes, and how."""

    repo: str
    branch: str = DEFAULT_BRANCH
    message: str = ""
    author: str = ""
    """Empty: the user."""
    create: bool | None = None
    """Make a missing repo: True always, False never, None unless a repo has nearly that name."""
    if_head: str | None = None
    """Publish only if the branch is at this commit (hex; empty: has none)."""


class Editing:
    """Edits on top of a branch's head. Safe for use by many threads.

    Parameters
    ----------
    archive
        The store's immutable side.
    target
        Where they will be published.
    head
        Commit that they begin from (hex); None: a new branch.
    open_commit
        Resolves ``repo@ref`` for `copy`.
    since
        Version of the registry of sweeps from before `head` was looked up; None: now.
    """

    def __init__(
        self,
        archive: Archive,
        target: Target,
        head: str | None,
        *,
        open_commit: Callable[[str], CommitView],
        since: int | None = None,
    ) -> None:
        self._archive = archive
        self._target = target
        self._open_commit = open_commit
        self._lock = threading.RLock()
        self._ended = False
        self._head = head
        self._since = archive.nodes.condemned.begin() if since is None else since
        self._edits = Edits(self._tree_of(head))
        self._opened = utc_now()
        self._beat_due = time.monotonic() + BEAT_EVERY_S
        self._heartbeat = ""
        self._writer = archive.objects.writer()
        self._folders = FolderSources(archive.stats, self._writer, self._beat)
        self._given_bytes = 0

    # --- editing --------------------------------------------------------------------------------------------------

    def put(
        self,
        source: Source | list[Source],
        dest: str = "/",
        *,
        append: bool = False,
        mirror: bool = False,
        exclude: Sequence[str] = (),
        skip: Path | None = None,
        link: bool = False,
        rehash: bool = False,
        foresee: Callable[[int], None] = lambda size: None,
    ) -> int:
        """Put files and folders below the folder `dest`; return how many files were put.

        Parameters
        ----------
        source
            A local path, an fsspec URL, (name, content), or a list of these. A folder's contents land at `dest`.
        dest
            Folder in the commit.
        append
            Add each file's content to the end of what stands there.
        mirror
            Delete what stands below `dest` and is in none of the sources.
        exclude
            Globs of what to leave out; a mirror keeps nothing of it either.
        skip
            A local folder to pass over (the store itself).
        link
            Record where each file is, its size and its version, and leave the content there: it is read when it is
            needed, and refused if the file changed since. For files and URLs.
        rehash
            Read every file, also those whose inode, size and times are what they were when they were last read.
        foresee
            Called with the bytes of local files of 1 MiB and more that will be read, before they are; more than once,
            maybe.

        Raises
        ------
        InvalidInputError
            A name, a kind of file or a collision that cannot be stored. Checked before anything is written.
        NotFoundError
            A source does not exist.
        """
        folder = normalize_folder(dest)
        sources = source if isinstance(source, list) else [source]
        if append and mirror:
            raise InvalidInputError("a put cannot both append and mirror")
        if append and link:
            raise InvalidInputError("a put cannot both append and link")
        own = self._archive.backend.properties.path
        recall = self._folders.recall(trust=not rehash)
        planned = plan_sources(
            sources, folder, exclude=exclude, skip=skip or own, recall=None if append or link else recall
        )
        with self._lock:
            self._open()
            if mirror:
                self._edits.mirror(folder, planned.paths)
            held = self._folders.mark(planned, recall, self._edits, folder)
            self._edits.check(planned.other_paths, planned.other_targets)
        if append:
            for item in planned:
                self._append(item)
        elif link:
            self._put_values([(item.path, encode_value(link_source(item))) for item in planned])
        else:
            self._store_singles(planned.singles, foresee)
            if planned.folders:
                taken = self._folders.take(planned, recall, self._edits, folder, foresee)
                with self._lock:
                    self._edits.put_many(taken, held)
        return len(planned)

    def write(self, path: str, data: bytes | str, *, append: bool = False) -> None:
        """Set a file's content, or add to its end."""
        key = normalize_path(path)
        self._check(key)
        body = data.encode() if isinstance(data, str) else data
        item = SourceFile(key, path, data=body)
        if append:
            self._append(item)
        else:
            self.put_value(path, self._writer.put(body))

    def put_value(self, path: str, value: Value) -> None:
        """Set a file to content that is in the store already (or was put through `writer`)."""
        key = normalize_path(path)
        self._writer.rely(value)
        with self._lock:
            self._open()
            self._edits.check({key})
            self._edits.put(key, encode_value(value))

    def delete(self, path: str, *, missing_ok: bool = False) -> None:
        """Delete a file, or a folder with all that is in it (``/``: everything).

        Raises
        ------
        NotFoundError
            There is neither, unless `missing_ok`.
        """
        key = normalize_folder(path)
        with self._lock:
            self._open()
            if not self._edits.delete(key) and not missing_ok and key:
                raise NotFoundError(
                    f"no file {show_path(key)} in {self._target.repo}@{self._target.branch}",
                    code=ErrorCode.NO_FILE,
                    hint=f"list: dmlpipe ls {self._target.repo}@{self._target.branch}",
                )

    def copy(self, source: str, dest: str) -> int:
        """Copy a file, or a folder's contents, without reading them; return how many files were copied.

        Parameters
        ----------
        source
            A path in this branch (begins with ``/``), or ``repo@ref:/path``.
        dest
            What a file is called there, or the folder in which a folder's contents land.
        """
        since = self._since
        if source.startswith("/"):
            found = self._entries_of(self._edits, normalize_folder(source), source)
        else:
            ref = parse_ref(source)
            since = self._archive.nodes.condemned.begin()
            tree = self._open_commit(source).tree
            found = self._entries_of(Edits(tree), (ref.path or "").encode(), source)
        target = normalize_folder(dest)
        pairs = [(join_path(target, name) if name else normalize_path(target), value) for name, value in found]
        for _, value in pairs:
            self._writer.rely(decode_value(value), since)
        with self._lock:
            self._open()
            self._edits.check({path for path, _ in pairs})
            for path, value in pairs:
                self._edits.put(path, value)
        return len(pairs)

    def _entries_of(self, edits: Edits, key: bytes, shown: str) -> list[tuple[bytes, bytes]]:
        with self._lock:
            value = edits.get(key) if key else None
            if value is not None:
                return [(b"", value)]
            below = key + b"/" if key else b""
            found = [(path[len(below) :], value) for path, value in edits.entries(below)]
        if not found:
            raise NotFoundError(f"no file {shown}", code=ErrorCode.NO_FILE)
        return found

    # --- looking --------------------------------------------------------------------------------------------------

    @property
    def given_bytes(self) -> int:
        """Bytes of content of the files that were put."""
        return self._given_bytes + self._folders.size

    @property
    def cloned_bytes(self) -> int:
        """Bytes of what was stored anew that share their blocks with the files that were put."""
        return self._writer.cloned_bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes of content that this stored, as they lie: less than was given where that was there or compresses."""
        return self._writer.stored_bytes

    @property
    def writer(self) -> ObjectWriter:
        """Stores content for `put_value`."""
        return self._writer

    @property
    def base(self) -> CommitView | None:
        """The head that the edits began from; None for a new branch."""
        return CommitView(self._archive, self._target.repo, self._head) if self._head else None

    def value(self, path: str) -> Value | None:
        """Return what stands at a path with the edits made so far; None if there is no such file."""
        with self._lock:
            raw = self._edits.get(normalize_path(path))
        return decode_value(raw) if raw is not None else None

    def exists(self, path: str) -> bool:
        """Whether there is such a file, with the edits made so far."""
        return self.value(path) is not None

    def read_bytes(self, path: str) -> bytes:
        """Return a file's content, with the edits made so far."""
        value = self.value(path)
        if value is None:
            raise NotFoundError(f"no file {show_path(normalize_path(path))}", code=ErrorCode.NO_FILE)
        return self._archive.objects.read(value)

    def entries(self, prefix: bytes = b"") -> Iterator[tuple[bytes, Value]]:
        """Yield (tree path, value) of the files whose tree path begins with `prefix`, sorted, edits included."""
        with self._lock:
            found = list(self._edits.entries(prefix))
        for path, raw in found:
            yield path, decode_value(raw)

    def list_folder(self, folder: bytes, starting: bytes = b"") -> list[tuple[bytes, Value | None]]:
        """Return (name, value; None for a folder) of what is right in a folder, edits included; see `list_folder`."""
        with self._lock:
            found = list(list_folder(self._edits.scan, folder, starting))
        return [(name, decode_value(raw) if raw is not None else None) for name, raw in found]

    def is_folder(self, path: bytes) -> bool:
        """Whether something stands below a tree path, edits included."""
        with self._lock:
            return self._edits.is_folder(path)

    @property
    def target(self) -> Target:
        """Where it publishes."""
        return self._target

    @property
    def archive(self) -> Archive:
        """The store's immutable side."""
        return self._archive

    @property
    def fs(self) -> SessionFileSystem:
        """The edits as an fsspec file system, to read and to write: ``/path`` in it, or ``dml://repo@branch/path``."""
        from ..filesystem.filesystem import SessionFileSystem

        return SessionFileSystem(self)

    def open_commit(self, name: str) -> CommitView:
        """Return the commit that ``repo@ref`` means now."""
        return self._open_commit(name)

    def zarr(self, path: str = "/") -> ArrayStore:
        """Return the edits below `path` as a writable Zarr store."""
        from ..array import ArrayStore

        return ArrayStore.of_session(self._archive.objects, self, normalize_folder(path))

    def abort(self) -> None:
        """Drop the edits. What they stored stays until it is collected. Idempotent."""
        with self._lock:
            if not self._ended:
                self._ended = True
                self._writer.close()
                if self._heartbeat:
                    self._archive.backend.delete_many([self._heartbeat])

    # --- inside ---------------------------------------------------------------------------------------------------

    def _tree_of(self, head: str | None) -> Tree:
        return self._archive.tree(self._archive.body(head).tree if head else "")

    def _open(self) -> None:
        if self._ended:
            raise InvalidInputError("this session has ended")

    def _check(self, key: bytes) -> None:
        with self._lock:
            self._open()
            self._edits.check({key})

    def _beat(self) -> None:
        """Let a garbage collection know, once in a while, since when something is written that nobody refers to."""
        if time.monotonic() < self._beat_due:
            return
        self._beat_due = time.monotonic() + BEAT_EVERY_S
        self._heartbeat = self._heartbeat or heartbeat_key(token_hex(8))
        self._archive.backend.put(self._heartbeat, msgspec.json.encode({"started": self._opened}))

    def _put_values(self, found: Iterable[tuple[bytes, bytes]]) -> None:
        pairs = sorted(found)
        if pairs:
            with self._lock:
                self._edits.put_many(ListedFiles([path for path, _ in pairs], [value for _, value in pairs]))

    def _store_singles(self, singles: Sequence[SourceFile], foresee: Callable[[int], None]) -> None:
        large = {item.path: item.file for item in singles if item.file is not None and is_large(item)}
        read = LargeReader(self._writer, self._beat, self._writer.cutting, foresee).read(list(large.values()))
        found = [(path, value) for path, (value, _) in zip(large, read, strict=True)]
        self._given_bytes += sum(status.st_size for _, status in read)
        for item in singles:
            if item.path not in large:
                self._beat()
                value = store_source(self._writer, item)
                found.append((item.path, encode_value(value)))
                self._given_bytes += value.size
        self._put_values(found)

    def _rely_on_values(self, values: Iterable[bytes | None]) -> None:
        """Note that values are relied on which were put, or stood in the head that the edits began from."""
        for value in values:
            if value is not None:
                self._writer.rely(decode_value(value), self._since)

    def _append(self, item: SourceFile) -> None:
        """Store what stands there followed by the new content."""
        with self._lock:
            old = self._edits.get(item.path)
        if old is None:
            value = store_behind(self._writer, None, item)
        else:
            with self._archive.objects.open(decode_value(old)) as before:
                value = store_behind(self._writer, before, item)
        with self._lock:
            if self._edits.get(item.path) != old:
                raise ConflictError(f"{show_path(item.path)} was changed by another thread while it was appended to")
            self._edits.append(item.path, encode_value(value))
