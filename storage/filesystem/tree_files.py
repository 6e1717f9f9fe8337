"""The files of a commit, or of a session, as a file system looks at them."""

from __future__ import annotations

import datetime
import errno
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from ..archive import Archive
from ..commits import CommitView
from ..digest import Digest, digest
from ..objects.cache import content_name
from ..objects.object_store import ObjectWriter
from ..objects.value import Value, decode_value, encode_value
from ..paths import show_path
from ..sources import Source
from ..trees.folders import list_folder
from ..trees.prolly import Tree

Info = dict[str, Any]
"""What fsspec's `info` returns."""


class SessionTarget(Protocol):
    """Where a session publishes."""

    @property
    def repo(self) -> str:
        """Its repo."""
        ...

    @property
    def branch(self) -> str:
        """Its branch."""
        ...


class Editor(Protocol):
    """What the file system needs of a session. Tree paths are `bytes`."""

    @property
    def target(self) -> SessionTarget:
        """Where it publishes."""
        ...

    @property
    def archive(self) -> Archive:
        """The store's immutable side."""
        ...

    @property
    def writer(self) -> ObjectWriter:
        """Stores content."""
        ...

    def open_commit(self, name: str) -> CommitView:
        """Return the commit that ``repo@ref`` means now."""
        ...

    def value(self, path: str) -> Value | None:
        """Return what stands at a path, or None."""
        ...

    def is_folder(self, path: bytes) -> bool:
        """Whether something stands below a path."""
        ...

    def list_folder(self, folder: bytes, starting: bytes = b"") -> Iterable[tuple[bytes, Value | None]]:
        """Return (name, value or None) of what is right in a folder."""
        ...

    def entries(self, prefix: bytes = b"") -> Iterator[tuple[bytes, Value]]:
        """Yield (path, value) of what begins with `prefix`, sorted."""
        ...

    def put(self, source: Source | list[Source], dest: str = "/", *, append: bool = False) -> int:
        """Put files below a folder."""
        ...

    def put_value(self, path: str, value: Value) -> None:
        """Set a file to content that is in the store."""
        ...

    def delete(self, path: str, *, missing_ok: bool = False) -> None:
        """Delete a file or folder."""
        ...


class Files(Protocol):
    """The files of a commit or a session."""

    shown: str
    """In messages."""
    time: datetime.datetime | None
    """When they were committed."""

    def value(self, path: bytes) -> Value | None:
        """Return what the path of a file has; None if there is no such file."""
        ...

    def is_folder(self, path: bytes) -> bool:
        """Whether something stands below a path."""
        ...

    def names(self, folder: bytes, starting: bytes = b"") -> Iterable[tuple[bytes, Value | None]]:
        """Return (name, value; None for a folder) of what is right in a folder."""
        ...

    def below(self, prefix: bytes) -> Iterator[tuple[bytes, Value]]:
        """Yield (path, value) of what begins with a prefix, sorted."""
        ...

    def folder_id(self, folder: bytes) -> Digest:
        """Return a name for what a folder holds: another content has another one."""
        ...


class CommitFiles:
    """Those of a commit."""

    def __init__(self, view: CommitView) -> None:
        body = view.body
        self._tree: Tree = view.tree
        self.shown = f"{view.repo}@{view.id[:6]}"
        self.time: datetime.datetime | None = datetime.datetime.fromisoformat(body.time) if body.time else None

    def value(self, path: bytes) -> Value | None:
        """See `Files`."""
        raw = self._tree.get(path) if path else None
        return decode_value(raw) if raw is not None else None

    def is_folder(self, path: bytes) -> bool:
        """See `Files`."""
        return not path or next(self._tree.prefix(path + b"/"), None) is not None

    def names(self, folder: bytes, starting: bytes = b"") -> Iterator[tuple[bytes, Value | None]]:
        """See `Files`."""
        for name, raw in list_folder(self._tree.scan, folder, starting):
            yield name, decode_value(raw) if raw is not None else None

    def below(self, prefix: bytes) -> Iterator[tuple[bytes, Value]]:
        """See `Files`."""
        return ((path, decode_value(raw)) for path, raw in self._tree.prefix(prefix))

    def folder_id(self, folder: bytes) -> Digest:
        """See `Files`."""
        return digest(b"folder\0" + self._tree.root + folder)


class SessionFiles:
    """Those of a session, edits included."""

    def __init__(self, session: Editor) -> None:
        self._session = session
        self.shown = f"the session on {session.target.repo}@{session.target.branch}"
        self.time: datetime.datetime | None = None

    def value(self, path: bytes) -> Value | None:
        """See `Files`."""
        return self._session.value(path.decode()) if path else None

    def is_folder(self, path: bytes) -> bool:
        """See `Files`."""
        return not path or self._session.is_folder(path)

    def names(self, folder: bytes, starting: bytes = b"") -> Iterable[tuple[bytes, Value | None]]:
        """See `Files`."""
        return self._session.list_folder(folder, starting)

    def below(self, prefix: bytes) -> Iterator[tuple[bytes, Value]]:
        """See `Files`."""
        return self._session.entries(prefix)

    def folder_id(self, folder: bytes) -> Digest:
        """See `Files`."""
        below = folder + b"/" if folder else b""
        return digest(b"".join(path + b"\0" + encode_value(value) for path, value in self.below(below)))


class At:
    """A parsed path."""

    __slots__ = ("files", "key", "root")

    def __init__(self, root: str, files: Files | None, key: bytes) -> None:
        self.root = root
        """``repo@ref`` as it was written, or ``/`` for the session; empty for the list of branches."""
        self.files = files
        """None for the list of branches."""
        self.key = key
        """Tree path."""

    def name(self, key: bytes) -> str:
        """Return the name of another tree path under the same root."""
        if not key:
            return self.root
        return f"/{key.decode()}" if self.root == "/" else f"{self.root}/{key.decode()}"


def file_info(name: str, value: Value, files: Files) -> Info:
    """Describe a file."""
    info: Info = {"name": name, "size": value.size, "type": "file", "checksum": content_name(value).hex()}
    if files.time is not None:
        info["mtime"] = files.time.timestamp()
    return info


def folder_info(name: str) -> Info:
    """Describe a folder."""
    return {"name": name, "size": 0, "type": "directory"}


def missing(at: At) -> FileNotFoundError:
    """Return the error that says that a path has nothing."""
    where = at.files.shown if at.files is not None else "the store"
    return FileNotFoundError(errno.ENOENT, f"no file {show_path(at.key)} in {where}", at.name(at.key))
