"""Commits, and one session, as an fsspec file system: paths ``repo@ref/path``.

What is read comes from commit trees by seeking: a listing reads the nodes of that folder, a pattern those of the
folders that may match, and the content of many files is fetched together. Commits do not change: writing to them is
`OSError` (``EROFS``). In the file system of a session the session's branch shows its edits and takes writes; ``/path``
is short for a path in it. Copies and moves there are edits of the tree: no content is read.
"""

from __future__ import annotations

import datetime
import errno
import io
import os
import re
import unicodedata
import uuid
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from glob import has_magic
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any, BinaryIO, Protocol, cast

from fsspec import AbstractFileSystem
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import glob_translate, isfilelike, stringify_path, tokenize

from .archive import Archive
from .cache import content_name
from .commits import CommitView
from .digest import Digest, digest
from .errors import DmlpipeError, InvalidInputError, NotFoundError
from .folders import list_folder
from .objects import ObjectWriter
from .paths import join_path, normalize_folder, show_path
from .prolly import Tree
from .reading import Range, Reader
from .refs import Ref, parse_ref
from .sources import Source
from .value import Value, Whole, decode_value, encode_value

PROTOCOL = "dml"

_SLASHES = re.compile("//+")
_MAGIC = re.compile(r"[*?\[]")
_SPOOL_BYTES = 16 << 20
_COPY_BYTES = 4 << 20

Info = dict[str, Any]


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


class _Files(Protocol):
    """The files of a commit or a session."""

    shown: str
    """In messages."""
    time: datetime.datetime | None
    """When they were committed."""

    def value(self, path: bytes) -> Value | None: ...

    def is_folder(self, path: bytes) -> bool: ...

    def names(self, folder: bytes, starting: bytes = b"") -> Iterable[tuple[bytes, Value | None]]: ...

    def below(self, prefix: bytes) -> Iterator[tuple[bytes, Value]]: ...

    def folder_id(self, folder: bytes) -> Digest: ...


class _CommitFiles:
    def __init__(self, view: CommitView) -> None:
        body = view.body
        self._tree: Tree = view.tree
        self.shown = f"{view.repo}@{view.id[:6]}"
        self.time: datetime.datetime | None = datetime.datetime.fromisoformat(body.time) if body.time else None

    def value(self, path: bytes) -> Value | None:
        raw = self._tree.get(path) if path else None
        return decode_value(raw) if raw is not None else None

    def is_folder(self, path: bytes) -> bool:
        return not path or next(self._tree.prefix(path + b"/"), None) is not None

    def names(self, folder: bytes, starting: bytes = b"") -> Iterator[tuple[bytes, Value | None]]:
        for name, raw in list_folder(self._tree.scan, folder, starting):
            yield name, decode_value(raw) if raw is not None else None

    def below(self, prefix: bytes) -> Iterator[tuple[bytes, Value]]:
        return ((path, decode_value(raw)) for path, raw in self._tree.prefix(prefix))

    def folder_id(self, folder: bytes) -> Digest:
        return digest(b"folder\0" + self._tree.root + folder)


class _SessionFiles:
    def __init__(self, session: Editor) -> None:
        self._session = session
        self.shown = f"the session on {session.target.repo}@{session.target.branch}"
        self.time: datetime.datetime | None = None

    def value(self, path: bytes) -> Value | None:
        return self._session.value(path.decode()) if path else None

    def is_folder(self, path: bytes) -> bool:
        return not path or self._session.is_folder(path)

    def names(self, folder: bytes, starting: bytes = b"") -> Iterable[tuple[bytes, Value | None]]:
        return self._session.list_folder(folder, starting)

    def below(self, prefix: bytes) -> Iterator[tuple[bytes, Value]]:
        return self._session.entries(prefix)

    def folder_id(self, folder: bytes) -> Digest:
        below = folder + b"/" if folder else b""
        return digest(b"".join(path + b"\0" + encode_value(value) for path, value in self.below(below)))


class _At:
    """A parsed path."""

    __slots__ = ("files", "key", "root")

    def __init__(self, root: str, files: _Files | None, key: bytes) -> None:
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


class CommitFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Commits as files. Safe for use by many threads.

    A folder exists as long as there is a file in it: making an empty one does nothing. ``repo/path`` is short for
    ``repo@master/path``; the root lists all branches.

    Raises
    ------
    FileNotFoundError
        There is no such repo, ref or file.
    OSError
        (``EROFS``) A write to anything but the session's branch.
    """

    protocol = PROTOCOL
    cachable = False
    _session: Editor | None = None

    # --- what a subclass says -------------------------------------------------------------------------------------

    @abstractmethod
    def _view(self, name: str) -> CommitView:
        """Return the commit that ``repo@ref`` means; `NotFoundError`."""

    @abstractmethod
    def _branches(self) -> Iterable[str]:
        """Return ``repo@branch`` of all branches with a commit."""

    @property
    @abstractmethod
    def _reader(self) -> Reader:
        """Reads content."""

    # --- paths ----------------------------------------------------------------------------------------------------

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text: str = stringify_path(path)
        for mark in (f"{PROTOCOL}://", f"{PROTOCOL}::"):
            text = text.removeprefix(mark)
        text = _SLASHES.sub("/", text)
        return text if text == "/" else text.rstrip("/")

    @classmethod
    def _parent(cls, path: str) -> str:
        text: str = cls._strip_protocol(path)
        head, slash, _ = text.rpartition("/")
        return head or slash

    def _at(self, path: str) -> _At:
        """Find what a path is below; the ref is resolved, the file is not looked for."""
        text = self._strip_protocol(path)
        if not text:
            return _At("", None, b"")
        try:
            if text.startswith("/"):
                return _At("/", self._session_files(text), normalize_folder(text))
            root, _, rest = text.partition("/")
            ref = parse_ref(root)
            key = normalize_folder(rest)
            return _At(root, self._files_of(ref), key)
        except (NotFoundError, InvalidInputError) as error:
            hint = f" ({error.hint})" if error.hint else ""
            raise FileNotFoundError(errno.ENOENT, f"{error}{hint}", text) from error

    def _session_files(self, text: str) -> _Files:
        if self._session is None:
            raise InvalidInputError(f"{text} names no repo", hint=f"write {PROTOCOL}://repo@branch{text}")
        return _SessionFiles(self._session)

    def _files_of(self, ref: Ref) -> _Files:
        if self._session is not None and _is_target(self._session, ref):
            return _SessionFiles(self._session)
        return _CommitFiles(self._view(ref.commitish))

    # --- looking --------------------------------------------------------------------------------------------------

    def info(self, path: str, **kwargs: Any) -> Info:
        """Return name, type, size and, of a file, the checksum of its content (hex)."""
        at = self._at(path)
        if at.files is None or not at.key:
            return _folder_info(at.root)
        value = at.files.value(at.key)
        if value is not None:
            return _file_info(at.name(at.key), value, at.files)
        if at.files.is_folder(at.key):
            return _folder_info(at.name(at.key))
        raise _missing(at)

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Whether there is a file or folder of that name. What else goes wrong is raised."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def isfile(self, path: str) -> bool:
        """Whether there is a file of that name."""
        try:
            return bool(self.info(path)["type"] == "file")
        except FileNotFoundError:
            return False

    def isdir(self, path: str) -> bool:
        """Whether there is a folder of that name."""
        try:
            return bool(self.info(path)["type"] == "directory")
        except FileNotFoundError:
            return False

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """List a folder, or the file of that name."""
        at = self._at(path)
        value = at.files.value(at.key) if at.files is not None else None
        if value is not None:
            assert at.files is not None
            found = [_file_info(at.name(at.key), value, at.files)]
        else:
            found = list(self._children(at))
            if not found and at.files is not None and at.key:
                raise _missing(at)
        return found if detail else [info["name"] for info in found]

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **kwargs: Any
    ) -> Any:
        """Return all files below a path, sorted; with `detail` a dictionary of their infos."""
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        found: dict[str, Info] = {}
        with suppress(FileNotFoundError):
            at = self._at(path)
            root = self.info(path)
            if root["type"] == "file":
                found[root["name"]] = root
            else:
                if withdirs and root["name"]:
                    found[root["name"]] = root
                found.update((info["name"], info) for info in self._below(at, maxdepth, withdirs))
        names = sorted(found)
        return {name: found[name] for name in names} if detail else names

    def glob(self, path: str, maxdepth: int | None = None, **kwargs: Any) -> Any:
        """Return what matches a pattern, as `AbstractFileSystem.glob` says; only folders that may match are listed."""
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        detail, withdirs = kwargs.pop("detail", False), kwargs.pop("withdirs", True)
        pattern = unicodedata.normalize("NFC", self._strip_protocol(path))
        only_folders = path.endswith("/")
        whole = re.compile(glob_translate(pattern + "/" if only_folders else pattern))
        mark_folders = only_folders or pattern.endswith("/**")
        found: dict[str, Info] = {}
        for info in self._matching(pattern, maxdepth):
            folder = info["type"] == "directory"
            if not has_magic(pattern):
                found[pattern] = info
            elif (withdirs or not folder) and whole.match(info["name"] + "/" * (folder and mark_folders)):
                found[info["name"]] = info
        names = sorted(found)
        return {name: found[name] for name in names} if detail else names

    def _matching(self, pattern: str, maxdepth: int | None) -> Iterator[Info]:
        """Yield what may match: parts are expanded from left to right, literal ones without a look."""
        parts = pattern.split("/")
        names = [""]
        infos: list[Info] | None = None
        if pattern.startswith("/"):
            names, parts = ["/"], parts[1:]
        for number, part in enumerate(parts):
            if "**" in part:
                for name in names:
                    yield from self.find(name, maxdepth=maxdepth, withdirs=True, detail=True).values()
                return
            if not has_magic(part):
                names, infos = [_join(name, part) for name in names], None
                continue
            wanted = re.compile(glob_translate(part))
            infos = []
            for name in names:
                with suppress(FileNotFoundError):
                    infos += self._children(self._at(name), wanted, _literal_start(part))
            if number < len(parts) - 1:
                names = [info["name"] for info in infos if info["type"] == "directory"]
        if infos is not None:
            yield from infos
            return
        for name in names:
            with suppress(FileNotFoundError):
                yield self.info(name)

    def _children(self, at: _At, wanted: re.Pattern[str] | None = None, starting: str = "") -> Iterator[Info]:
        if at.files is None:
            for branch in self._branches():
                if wanted is None or wanted.match(branch):
                    yield _folder_info(branch)
            return
        for raw, value in at.files.names(at.key, starting.encode()):
            if wanted is None or wanted.match(raw.decode()):
                name = at.name(join_path(at.key, raw))
                yield _file_info(name, value, at.files) if value is not None else _folder_info(name)

    def _below(self, at: _At, maxdepth: int | None, withdirs: bool) -> Iterator[Info]:
        if at.files is None or maxdepth is not None:
            for info in self._children(at):
                folder = info["type"] == "directory"
                if withdirs or not folder:
                    yield info
                if folder and (maxdepth is None or maxdepth > 1):
                    yield from self._below(self._at(info["name"]), maxdepth and maxdepth - 1, withdirs)
            return
        start = at.key + b"/" if at.key else b""
        seen: set[bytes] = set()
        for path, value in at.files.below(start):
            if withdirs:
                slash = path.rfind(b"/")
                while slash >= len(start) and path[:slash] not in seen:
                    seen.add(path[:slash])
                    yield _folder_info(at.name(path[:slash]))
                    slash = path.rfind(b"/", 0, slash)
            yield _file_info(at.name(path), value, at.files)

    def du(
        self, path: str, total: bool = True, maxdepth: int | None = None, withdirs: bool = False, **kwargs: Any
    ) -> Any:
        """Return the bytes of content below a path, or of each file there."""
        found = self.find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True)
        sizes = {name: info["size"] for name, info in found.items()}
        return sum(sizes.values()) if total else sizes

    def ukey(self, path: str) -> str:
        """Return the hash of the content (hex): equal if and only if the content is."""
        at = self._at(path)
        if at.files is None:
            return digest("\n".join(self._branches()).encode()).hex()
        value = at.files.value(at.key)
        if value is not None:
            return content_name(value).hex()
        if not at.files.is_folder(at.key):
            raise _missing(at)
        return at.files.folder_id(at.key).hex()

    def checksum(self, path: str) -> int:
        """Return `ukey` as a number."""
        return int(self.ukey(path), 16)

    def modified(self, path: str) -> datetime.datetime:
        """Return the time of the commit. Content is told apart by `ukey`, not by times."""
        at = self._at(path)
        self.info(path)
        if at.files is None or at.files.time is None:
            raise NotImplementedError("what is not committed has no time yet")
        return at.files.time

    created = modified

    # --- reading --------------------------------------------------------------------------------------------------

    def _value(self, path: str) -> Value:
        at = self._at(path)
        value = at.files.value(at.key) if at.files is not None else None
        if value is not None:
            return value
        if at.files is None or at.files.is_folder(at.key):
            raise IsADirectoryError(errno.EISDIR, "this is a folder", self._strip_protocol(path))
        raise _missing(at)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Return a file's content, or its bytes [start, end) as slicing would."""
        return self._reader.read(self._value(path), start, end)

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any) -> Any:
        """Return a file's content, or {path: content} of many, which are fetched together."""
        paths = self.expand_path(path, recursive=recursive)
        if len(paths) == 1 and not isinstance(path, list) and paths[0] == self._strip_protocol(path):
            return self.cat_file(paths[0])
        if recursive:
            paths = [name for name in paths if not self.isdir(name)]
        read = self._read_all(paths, [None] * len(paths), [None] * len(paths), on_error == "raise")
        return {
            name: data
            for name, data in zip(paths, read, strict=True)
            if on_error != "omit" or not isinstance(data, Exception)
        }

    def cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[Any]:
        """Return ranges of files, fetched together; `max_gap` is the store's own affair."""
        if not isinstance(paths, list):
            raise TypeError("paths must be a list")
        starts = starts if isinstance(starts, list) else [starts] * len(paths)
        ends = ends if isinstance(ends, list) else [ends] * len(paths)
        if not len(paths) == len(starts) == len(ends):
            raise ValueError(f"{len(paths)} paths, {len(starts)} starts and {len(ends)} ends: their number differs")
        return self._read_all(paths, starts, ends, on_error == "raise")

    def _read_all(
        self, paths: Sequence[str], starts: Sequence[int | None], ends: Sequence[int | None], strict: bool
    ) -> list[Any]:
        """Return the content, or what went wrong if not `strict`, of each path."""
        out: list[Any] = []
        ranges: list[Range] = []
        for path, start, end in zip(paths, starts, ends, strict=True):
            try:
                wanted = Range(self._value(path), start, end)
            except OSError as error:
                if strict:
                    raise
                out.append(error)
            else:
                out.append(wanted)
                ranges.append(wanted)
        read = self._reader.read_ranges(ranges) if strict else self._read_each(ranges)
        return [next(read) if isinstance(item, Range) else item for item in out]

    def _read_each(self, ranges: Sequence[Range]) -> Iterator[bytes | Exception]:
        """Yield contents; once one of them fails, the rest is read one by one."""
        position = 0
        try:
            for data in self._reader.read_ranges(ranges):
                yield data
                position += 1
        except DmlpipeError:
            for part in ranges[position:]:
                try:
                    yield self._reader.read(part.value, part.start, part.end)
                except DmlpipeError as error:
                    yield error

    def get_file(
        self, rpath: str, lpath: Any = None, callback: Any = DEFAULT_CALLBACK, outfile: Any = None, **kwargs: Any
    ) -> None:
        """Copy a file to a local place."""
        planned: list[tuple[Value, Any]] | None = kwargs.get("_planned")
        if outfile is None and isfilelike(lpath):
            outfile = lpath
        elif outfile is None and self.isdir(rpath):
            os.makedirs(lpath, exist_ok=True)
            return
        value = self._value(rpath)
        if planned is not None:
            planned.append((value, lpath))
            return
        callback.set_size(value.size)
        if outfile is not None:
            self._copy_out(value, outfile, callback)
            return
        self._write_local(value, lpath, callback)

    def get(
        self,
        rpath: Any,
        lpath: Any,
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Copy files to local places; those that lie close together in the store are fetched together."""
        planned: list[tuple[Value, Any]] = []
        super().get(rpath, lpath, recursive=recursive, maxdepth=maxdepth, _planned=planned)
        callback.set_size(len(planned))
        small = [(value, place) for value, place in planned if isinstance(value, Whole)]
        contents = self._reader.read_ranges([Range(value) for value, _ in small])
        for (_, place), data in zip(small, contents, strict=True):
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            Path(place).write_bytes(data)
            callback.relative_update(1)
        for value, place in planned:
            if not isinstance(value, Whole):
                self._write_local(value, place, DEFAULT_CALLBACK)
                callback.relative_update(1)

    def _write_local(self, value: Value, place: str, callback: Any) -> None:
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        with open(place, "wb") as file:
            self._copy_out(value, file, callback)

    def _copy_out(self, value: Value, file: IO[bytes], callback: Any) -> None:
        with self._reader.open(value) as source:
            while part := source.read(_COPY_BYTES):
                file.write(part)
                callback.relative_update(len(part))

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        **kwargs: Any,
    ) -> BinaryIO:
        if mode == "rb":
            return self._reader.open(self._value(path))
        if mode not in ("wb", "xb", "ab"):
            raise ValueError(f"files cannot be opened in mode {mode!r}: read them, or write them anew")
        session, key = self._writable(path)
        exclusive = mode == "xb"
        if exclusive:
            self._refuse_existing(path)

        def publish(content: BinaryIO) -> None:
            if exclusive:
                self._refuse_existing(path)
            if mode == "ab":
                folder, _, name = key.rpartition("/")
                session.put((name, content), folder or "/", append=True)
            else:
                session.put_value(key, session.writer.put_file(content))

        return cast(BinaryIO, _Draft(publish, autocommit=autocommit, seekable=mode != "ab"))

    # --- writing --------------------------------------------------------------------------------------------------

    def _writable(self, path: str) -> tuple[Editor, str]:
        """Return the session and the tree path in it, or refuse."""
        text = self._strip_protocol(path)
        session = self._session
        root, _, rest = text.partition("/")
        if session is None:
            raise OSError(
                errno.EROFS,
                "commits do not change; write in a session: with store.commit(REPO) as c: c.fs.open('/path', 'wb')",
                text,
            )
        if root and not _is_target(session, parse_ref(root)):
            raise OSError(
                errno.EROFS, f"commits do not change; this session writes to {_show_target(session)} alone", text
            )
        key = normalize_folder(rest)
        if not key:
            raise IsADirectoryError(errno.EISDIR, "this is a folder", text)
        return session, key.decode()

    def _refuse_existing(self, path: str) -> None:
        if self.exists(path):
            raise FileExistsError(errno.EEXIST, "there is such a file", self._strip_protocol(path))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Set a file's content."""
        session, key = self._writable(path)
        if mode == "create":
            self._refuse_existing(path)
        session.put_value(key, session.writer.put(value))

    def put_file(
        self, lpath: Any, rpath: str, callback: Any = DEFAULT_CALLBACK, mode: str = "overwrite", **kwargs: Any
    ) -> None:
        """Store a local file; a folder is passed over."""
        if os.path.isdir(lpath):
            self.makedirs(rpath, exist_ok=True)
            return
        session, key = self._writable(rpath)
        if mode == "create":
            self._refuse_existing(rpath)
        value = session.writer.put_file(Path(lpath))
        session.put_value(key, value)
        callback.set_size(value.size)
        callback.relative_update(value.size)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Copy a file of this session or of any commit of the store, without reading it; a folder is passed over."""
        session, key = self._writable(path2)
        at = self._at(path1)
        value = at.files.value(at.key) if at.files is not None else None
        if value is not None:
            session.put_value(key, value)
        elif at.files is None or not at.files.is_folder(at.key):
            raise _missing(at)

    def rm_file(self, path: str) -> None:
        """Delete a file."""
        session, key = self._writable(path)
        self._value(path)
        session.delete(key)

    _rm = rm_file

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Delete files, and folders if `recursive`."""
        if recursive and maxdepth is None:
            for name in self.expand_path(path):
                if not self.exists(name):
                    raise _missing(self._at(name))
                text = self._strip_protocol(name)
                if text == "/" or (text and "/" not in text):
                    session, _ = self._writable(f"{text}/any")
                    session.delete("/", missing_ok=True)
                else:
                    session, key = self._writable(name)
                    session.delete(key)
            return
        for name in reversed(self.expand_path(path, recursive=recursive, maxdepth=maxdepth)):
            if not (recursive and self.isdir(name)):
                self.rm_file(name)

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        """Make an empty file; without `truncate` only if there is none."""
        if truncate or not self.exists(path):
            self.pipe_file(path, b"")

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Do nothing: folders are there while there are files in them."""
        self.makedirs(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing: folders are there while there are files in them."""
        if self.isfile(path):
            raise FileExistsError(errno.EEXIST, "there is a file of that name", self._strip_protocol(path))
        if self.isdir(path):
            if exist_ok:
                return
            raise FileExistsError(errno.EEXIST, "there is such a folder", self._strip_protocol(path))
        self._writable(path)

    def rmdir(self, path: str) -> None:
        """Refuse: there are no empty folders."""
        self._writable(path)
        self.ls(path)
        raise OSError(errno.ENOTEMPTY, "the folder is not empty", self._strip_protocol(path))


class SessionFileSystem(CommitFileSystem):
    """A session's branch, to read and write, beside all commits of the store, to read. ``session.fs`` makes one.

    Parameters
    ----------
    session
        Takes the edits. They are published by its commit.

    Notes
    -----
    Pickles within its process: nobody else may edit the session. Commits are resolved at their first use.
    """

    def __init__(self, session: Editor, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._session = session
        self._views: dict[str, CommitView] = {}
        self._token = _token_of(session)

    def _view(self, name: str) -> CommitView:
        if name not in self._views:
            assert self._session is not None
            self._views[name] = self._session.open_commit(name)
        return self._views[name]

    def _branches(self) -> Iterable[str]:
        assert self._session is not None
        return (_show_target(self._session),)

    @cached_property
    def _reader(self) -> Reader:
        assert self._session is not None
        return Reader(self._session.archive.objects)

    @property
    def _fs_token(self) -> str:
        return str(tokenize(self._token))

    def _writable(self, path: str) -> tuple[Editor, str]:
        if not _is_ours(self._token):
            raise OSError(errno.EROFS, "this session is in another process, which alone can write to it", path)
        return super()._writable(path)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Look up again what refs mean."""
        super().invalidate_cache(path)
        self._views.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_find_session, (self._token,))


_sessions: weakref.WeakValueDictionary[str, Editor] = weakref.WeakValueDictionary()
_tokens: weakref.WeakKeyDictionary[Editor, str] = weakref.WeakKeyDictionary()


def _token_of(session: Editor) -> str:
    token = _tokens.setdefault(session, f"{os.getpid()}-{uuid.uuid4().hex}")
    _sessions[token] = session
    return token


def _is_ours(token: str) -> bool:
    return token.partition("-")[0] == str(os.getpid())


def _find_session(token: str) -> SessionFileSystem:
    session = _sessions.get(token)
    if session is None or not _is_ours(token):
        raise InvalidInputError(
            "this file system is part of a session in another process",
            hint="commit first and read the commit, or write in the process that holds the session",
        )
    return SessionFileSystem(session)


class _Draft(io.BufferedIOBase):
    """A file that is being written; published as a whole when it is closed, or by `commit` in a transaction."""

    def __init__(self, publish: Callable[[BinaryIO], None], *, autocommit: bool, seekable: bool) -> None:
        super().__init__()
        self._publish = publish
        self._autocommit = autocommit
        self._seekable = seekable
        self._content = SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115  (closed with this file)

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._seekable

    def write(self, data: Any, /) -> int:
        self._open()
        with memoryview(data) as view:
            self._content.write(view.cast("B") if view.nbytes else b"")
            return view.nbytes

    def tell(self) -> int:
        self._open()
        return self._content.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._open()
        if not self._seekable:
            raise io.UnsupportedOperation("what is appended cannot be sought in")
        return self._content.seek(offset, whence)

    def truncate(self, size: int | None = None, /) -> int:
        self._open()
        self._content.truncate(size)
        return self._content.tell() if size is None else size

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        if self._autocommit:
            self.commit()

    def commit(self) -> None:
        """Publish what was written."""
        try:
            self._content.seek(0)
            self._publish(cast(BinaryIO, self._content))
        finally:
            self._content.close()

    def discard(self) -> None:
        """Drop what was written."""
        self._content.close()

    def _open(self) -> None:
        if self.closed:
            raise ValueError("the file is closed")


def _is_target(session: Editor, ref: Ref) -> bool:
    return (ref.repo, ref.ref, ref.up) == (session.target.repo, session.target.branch, 0)


def _show_target(session: Editor) -> str:
    return f"{session.target.repo}@{session.target.branch}"


def _file_info(name: str, value: Value, files: _Files) -> Info:
    info: Info = {"name": name, "size": value.size, "type": "file", "checksum": content_name(value).hex()}
    if files.time is not None:
        info["mtime"] = files.time.timestamp()
    return info


def _folder_info(name: str) -> Info:
    return {"name": name, "size": 0, "type": "directory"}


def _missing(at: _At) -> FileNotFoundError:
    where = at.files.shown if at.files is not None else "the store"
    return FileNotFoundError(errno.ENOENT, f"no file {show_path(at.key)} in {where}", at.name(at.key))


def _join(folder: str, name: str) -> str:
    return f"{folder}{name}" if folder in ("", "/") else f"{folder}/{name}"


def _literal_start(part: str) -> str:
    found = _MAGIC.search(part)
    return part[: found.start()] if found is not None else part
