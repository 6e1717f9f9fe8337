"""Commits, and one session, as an fsspec file system: paths ``repo@ref/path``.

Commits do not change: writing to them is `OSError` (``EROFS``). In the file system of a session the session's branch
shows its edits and takes writes; ``/path`` is short for a path in it. Copies and moves there are edits of the tree: no
content is read.
"""

from __future__ import annotations

import errno
import os
import uuid
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import tokenize

from ..commits import CommitView
from ..errors import InvalidInputError
from ..objects.reading import Reader
from ..paths import normalize_folder
from ..refs import parse_ref
from .draft import Draft
from .reading_fs import CommitReader, is_target
from .tree_files import Editor, missing


class CommitFileSystem(CommitReader):
    """Commits as files, with the writing half, which refuses all but the branch of a session."""

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        **kwargs: Any,
    ) -> Any:
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

        return Draft(publish, autocommit=autocommit, seekable=mode != "ab")

    def _writable(self, path: str, *, root: bool = False) -> tuple[Editor, str]:
        """Return the session and the tree path in it, or refuse; the whole of it only if `root`."""
        text = self._strip_protocol(path)
        session = self._session
        head, _, rest = text.partition("/")
        if session is None:
            raise OSError(
                errno.EROFS,
                "commits do not change; write in a session: with store.commit(REPO) as c: c.fs.open('/path', 'wb')",
                text,
            )
        if text == "" or (head and not is_target(session, parse_ref(head))):
            raise OSError(
                errno.EROFS, f"commits do not change; this session writes to {_show_target(session)} alone", text
            )
        key = normalize_folder(rest)
        if not key and not root:
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
            raise missing(at)

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
                    raise missing(self._at(name))
                session, key = self._writable(name, root=True)
                session.delete(key, missing_ok=not key)
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
        self._content = Reader(session.archive.objects)
        self._token = _token_of(session)

    def _view(self, name: str) -> CommitView:
        assert self._session is not None
        return self._session.open_commit(name)

    def _branches(self) -> Iterable[str]:
        assert self._session is not None
        return (_show_target(self._session),)

    @property
    def _reader(self) -> Reader:
        return self._content

    @property
    def _fs_token(self) -> Any:
        return tokenize(self._token)

    def _writable(self, path: str, *, root: bool = False) -> tuple[Editor, str]:
        if not _is_ours(self._token):
            raise OSError(errno.EROFS, "this session is in another process, which alone can write to it", path)
        return super()._writable(path, root=root)

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


def _show_target(session: Editor) -> str:
    return f"{session.target.repo}@{session.target.branch}"
