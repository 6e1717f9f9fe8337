"""Commits as an fsspec file system, the reading half: find, list, match and fetch.

A listing reads the nodes of that folder, a pattern those of the folders that may match, and the content of many files
is fetched together.
"""

from __future__ import annotations

import datetime
import errno
import os
import re
import unicodedata
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import has_magic
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import glob_translate, isfilelike, stringify_path

from ..commits import CommitView
from ..digest import digest
from ..errors import DmlpipeError, InvalidInputError, NotFoundError
from ..objects.cache import content_name
from ..objects.reading import Range, Reader
from ..objects.value import Value, Whole
from ..paths import join_path, normalize_folder
from ..refs import Ref, parse_ref
from .tree_files import At, CommitFiles, Editor, Files, Info, SessionFiles, file_info, folder_info, missing

PROTOCOL = "dml"

_SLASHES = re.compile("//+")
_MAGIC = re.compile(r"[*?\[]")
_COPY_BYTES = 4 << 20


class CommitReader(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
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

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._pid = os.getpid()
        self._roots: dict[str, Files] = {}

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
        if text.startswith(PROTOCOL):
            text = text.removeprefix(f"{PROTOCOL}://").removeprefix(f"{PROTOCOL}::")
        if "//" in text:
            text = _SLASHES.sub("/", text)
        return text if text == "/" else text.rstrip("/")

    @classmethod
    def _parent(cls, path: str) -> str:
        text: str = cls._strip_protocol(path)
        head, slash, _ = text.rpartition("/")
        return head or slash

    def _at(self, path: str) -> At:
        """Find what a path is below; the ref is resolved, the file is not looked for."""
        if os.getpid() != self._pid:
            self._renew()
        text = self._strip_protocol(path)
        if not text:
            return At("", None, b"")
        root, _, rest = text.partition("/")
        root = root or "/"
        try:
            files = self._roots.get(root)
            if files is None:
                files = self._roots[root] = self._files_of(root)
            return At(root, files, normalize_folder(rest))
        except (NotFoundError, InvalidInputError) as error:
            hint = f" ({error.hint})" if error.hint else ""
            raise FileNotFoundError(errno.ENOENT, f"{error}{hint}", text) from error

    def _files_of(self, root: str) -> Files:
        if root == "/" and self._session is None:
            raise InvalidInputError("a path that begins with / is one of a session", hint=f"{PROTOCOL}://repo@ref/path")
        ref = parse_ref(root) if root != "/" else None
        if self._session is not None and (ref is None or is_target(self._session, ref)):
            return SessionFiles(self._session)
        assert ref is not None
        return CommitFiles(self._view(ref.commitish))

    def _renew(self) -> None:
        """Begin anew in a forked process, or with other meanings of refs."""
        self._pid = os.getpid()
        self._roots = {}

    def invalidate_cache(self, path: str | None = None) -> None:
        """Look up again what refs mean."""
        super().invalidate_cache(path)
        self._renew()

    # --- looking --------------------------------------------------------------------------------------------------

    def info(self, path: str, **kwargs: Any) -> Info:
        """Return name, type, size and, of a file, the checksum of its content (hex)."""
        at = self._at(path)
        if at.files is None or not at.key:
            return folder_info(at.root)
        value = at.files.value(at.key)
        if value is not None:
            return file_info(at.name(at.key), value, at.files)
        if at.files.is_folder(at.key):
            return folder_info(at.name(at.key))
        raise missing(at)

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
            found = [file_info(at.name(at.key), value, at.files)]
        else:
            found = list(self._children(at))
            if not found and at.files is not None and at.key:
                raise missing(at)
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

    def _children(self, at: At, wanted: re.Pattern[str] | None = None, starting: str = "") -> Iterator[Info]:
        if at.files is None:
            for branch in self._branches():
                if wanted is None or wanted.match(branch):
                    yield folder_info(branch)
            return
        for raw, value in at.files.names(at.key, starting.encode()):
            if wanted is None or wanted.match(raw.decode()):
                name = at.name(join_path(at.key, raw))
                yield file_info(name, value, at.files) if value is not None else folder_info(name)

    def _below(self, at: At, maxdepth: int | None, withdirs: bool) -> Iterator[Info]:
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
                    yield folder_info(at.name(path[:slash]))
                    slash = path.rfind(b"/", 0, slash)
            yield file_info(at.name(path), value, at.files)

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
            raise missing(at)
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
        raise missing(at)

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
        place = lpath if outfile is None else outfile
        if not isfilelike(place) and self.isdir(rpath):
            os.makedirs(place, exist_ok=True)
            return
        value = self._value(rpath)
        if planned is not None:
            planned.append((value, place))
            return
        callback.set_size(value.size)
        with _local(place) as file:
            self._copy_out(value, file, callback)

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
            with _local(place) as file:
                file.write(data)
            callback.relative_update(1)
        for value, place in planned:
            if not isinstance(value, Whole):
                with _local(place) as file:
                    self._copy_out(value, file, DEFAULT_CALLBACK)
                callback.relative_update(1)

    def _copy_out(self, value: Value, file: Any, callback: Any) -> None:
        with self._reader.open(value) as source:
            while part := source.read(_COPY_BYTES):
                file.write(part)
                callback.relative_update(len(part))


@contextmanager
def _local(place: Any) -> Iterator[Any]:
    """Yield a file to write to: `place` itself if it is one, else the local file of that name."""
    if isfilelike(place):
        yield place
        return
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    with open(place, "wb") as file:
        yield file


def is_target(session: Editor, ref: Ref) -> bool:
    """Whether a ref is the branch that a session publishes to."""
    return (ref.repo, ref.ref, ref.up) == (session.target.repo, session.target.branch, 0)


def _join(folder: str, name: str) -> str:
    return f"{folder}{name}" if folder in ("", "/") else f"{folder}/{name}"


def _literal_start(part: str) -> str:
    found = _MAGIC.search(part)
    return part[: found.start()] if found is not None else part
