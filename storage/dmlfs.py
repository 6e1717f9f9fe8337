"""``dml://repo@ref/path`` for every library that reads through fsspec. Registered by an entry point.

::

    pandas.read_parquet("dml://features@master/part.parquet")
    fsspec.open("dml://features@master/part.parquet", store="s3://bucket/store")

A file system is a snapshot: all its refs mean what they meant in the state of the ledger that it was made from, so that
what is listed can be opened, and what was resolved travels with it to other processes. Making one
(as ``fsspec.open`` does for each URL) looks at the ledger once, so that it sees what was published before;
`invalidate_cache` looks again. What is costly, an open store with its caches, is shared by all of a process.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from fsspec.utils import tokenize

from .backend import Backend
from .commits import CommitView
from .filesystem.filesystem import CommitFileSystem, SessionFileSystem
from .filesystem.tree_files import Editor
from .info import INFO_KEY, STORE_VARIABLE, find_store, read_info
from .objects.reading import Reader
from .refs import CommitRef, parse_ref, resolve
from .state import State
from .store import Store

_Key = tuple[object, ...]

_lock = threading.Lock()
_stores: dict[_Key, Store] = {}


class DmlFileSystem(CommitFileSystem):
    """The commits of a store, read-only; with `session` also a session's branch, to write.

    Parameters
    ----------
    store
        Its URL or folder; None: ``$DMLPIPE_STORE``, else the nearest ``.dmlpipe`` here or above. An open `Store` too.
    session
        What ``store.commit(...)`` returned; ``session.fs`` is the same.
    store_options
        For the store's medium, as ``storage_options`` of `Store.open`.
    cache_dir
        This machine's caches.
    cache
        Keep what was fetched in the local file cache; None: if the store is remote.

    Examples
    --------
    >>> import fsspec
    >>> from dmlpipe.storage.store import Store
    >>> store = Store.init("memory://dmlfs-example")
    >>> commit = store.put("images", ("a/1.txt", "one"), ("a/2.txt", "two"))
    >>> with fsspec.open("dml://images@master/a/1.txt", "r", store="memory://dmlfs-example") as file:
    ...     file.read()
    'one'
    >>> fs = fsspec.filesystem("dml", store="memory://dmlfs-example")
    >>> fs.glob("images@master/*/2.*")
    ['images@master/a/2.txt']
    >>> with store.commit("images") as session:
    ...     session.fs.cp("/a/1.txt", "/b.txt")
    >>> fs.exists("images@master/b.txt")
    False
    >>> fs.invalidate_cache()
    >>> fs.cat("images@master/b.txt")
    b'one'
    """

    def __new__(cls, *args: Any, session: Editor | None = None, **kwargs: Any) -> Any:  # noqa: D102
        return super().__new__(cls) if session is None else SessionFileSystem(session)

    def __init__(
        self,
        store: Store | str | os.PathLike[str] | None = None,
        *,
        store_options: Mapping[str, Any] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        cache: bool | None = None,
        _resolved: tuple[int, dict[str, CommitRef]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        opened = store if isinstance(store, Store) else _open_store(store, store_options, cache_dir)
        self._held = opened
        self._backend = opened.backend
        self._cache_dir = opened.cache_dir
        self._cache = cache
        self._made: Reader | None = None
        self._commits: dict[str, CommitRef] = {}
        if _resolved is None:
            self._state: State | None = opened.refresh()
            self._n = self._state.n
        else:
            self._state = None
            self._n, self._commits = _resolved

    @property
    def store(self) -> Store:
        """The store that is read; after a fork another one than before."""
        if os.getpid() != self._pid:
            self._renew()
        return self._held

    def _renew(self) -> None:
        if os.getpid() != self._pid:
            self._held = _reopen_store(self._backend, self._cache_dir)
            self._made = None
            self._state = None  # reads through the parent's store, whose locks may be held for ever here
        super()._renew()

    def invalidate_cache(self, path: str | None = None) -> None:
        """Look at the ledger again: from now on refs mean what they mean now."""
        super().invalidate_cache(path)
        self._commits = {}
        self._state = self._held.refresh()
        self._n = self._state.n

    def _snapshot(self) -> State:
        if self._state is None:
            self._state = self.store.refresh()
        return self._state

    def _view(self, name: str) -> CommitView:
        found = self._commits.get(name)
        if found is None:
            ref = parse_ref(name)
            commit = resolve(ref, self._snapshot(), lambda commit: self._held.body(commit).parents)
            found = self._commits[name] = CommitRef(ref.repo, commit)
        return self._held[found]

    def _branches(self) -> Iterable[str]:
        state = self._snapshot()
        for repo, _ in state.repos():
            for branch in sorted(state.branches(repo)):
                yield f"{repo}@{branch}"

    @property
    def _reader(self) -> Reader:
        store = self.store
        if self._made is None:
            wanted = store.backend.properties.remote if self._cache is None else self._cache
            self._made = Reader(store.objects, store.cache if wanted else None)
        return self._made

    @property
    def _fs_token(self) -> Any:
        return tokenize(type(self).__name__, self._backend.url, self._n)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (self._backend, self._cache_dir, self._cache, self._n, dict(self._commits)))


def _reopen(
    backend: Backend, cache_dir: Path, cache: bool | None, n: int, commits: dict[str, CommitRef]
) -> DmlFileSystem:
    return DmlFileSystem(_reopen_store(backend, cache_dir), cache=cache, _resolved=(n, commits))


# --- the stores of this process ---


def _open_store(
    url: str | os.PathLike[str] | None, options: Mapping[str, Any] | None, cache_dir: str | os.PathLike[str] | None
) -> Store:
    place = os.fspath(url) if url is not None else os.environ.get(STORE_VARIABLE) or find_store(Path.cwd())
    text = str(place) if place is not None else ""
    local = "://" not in text or text.startswith("file://")
    if local:
        text = os.path.abspath(text.removeprefix("file://")) if text else ""
    key = (text, tokenize(options), _identity(text) if local else None, cache_dir)
    folder = Path(cache_dir) if cache_dir is not None else None
    return _shared(key, lambda: Store.open(text or None, read_only=True, cache_dir=folder, storage_options=options))


def _reopen_store(backend: Backend, cache_dir: Path) -> Store:
    return _shared(
        (pickle.dumps(backend), cache_dir),
        lambda: Store(backend, read_info(backend), read_only=True, cache_dir=cache_dir),
    )


def _shared(key: _Key, make: Callable[[], Store]) -> Store:
    with _lock:
        found = _stores.get(key)
    if found is None:
        made = make()
        with _lock:
            found = _stores.setdefault(key, made)
    return found


def _identity(folder: str) -> tuple[int, int] | None:
    """Tell a store from another one that was made in its place."""
    try:
        status = os.stat(os.path.join(folder, INFO_KEY))
    except OSError:
        return None  # opening it says what is wrong
    return status.st_ino, status.st_mtime_ns


def _forget_stores() -> None:
    # A child has neither its parent's connections nor the threads that held its locks.
    global _lock
    _lock = threading.Lock()
    _stores.clear()


os.register_at_fork(after_in_child=_forget_stores)
