"""Files that were laid out for user code: written anew or hard-linked from the file cache, and compared afterwards.

A hard link shares its inode with the cache, so size, times and inode of every file are compared after the datum: user
code that wrote to an input fails with `wrote to its input`, and the cache drops that entry.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from ...storage.digest import Digest
from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.objects.cache import FileCache
from ...storage.objects.object_store import Objects
from ...storage.objects.value import Inline, Value, decode_value, is_inline
from ...storage.trees.prolly import Tree
from ..child.sealed import Seal, is_sealed, seal, write_sealed

COPIED_MAX_BYTES = 64 << 10
"""Files up to this size are written anew: cheaper than a cache entry and a link, and nobody else's."""
_READ_AHEAD_BYTES = 16 << 20
NAME_MAX_BYTES = 255
"""What one part of a path may have, on all file systems that matter."""


class ContentStore(Protocol):
    """What of a store this module needs."""

    @property
    def objects(self) -> Objects: ...  # noqa: D102
    @property
    def cache(self) -> FileCache: ...  # noqa: D102
    def tree(self, root: str | Digest) -> Tree: ...  # noqa: D102


class _Placed(NamedTuple):
    path: str
    seal: Seal
    value: Value
    linked: bool


def _make_all(path: str) -> None:
    os.makedirs(path, exist_ok=True)


@contextlib.contextmanager
def named(what: str) -> Iterator[None]:
    """Let a path that this machine's files cannot have be an error of the input `what`."""
    try:
        yield
    except OSError as err:
        if err.errno != errno.ENAMETOOLONG:
            raise
        path = str(err.filename or "")
        part = max(map(len, path.encode().split(b"/")))
        why = f"a part of {part} bytes" if part > NAME_MAX_BYTES else f"{len(path.encode())} bytes with its folder"
        raise InvalidInputError(
            f"{what} has a path that is too long for a file on this machine: {why}",
            code=ErrorCode.BAD_PATH,
            hint="take it as `bytes`, or let DMLPIPE_CACHE_DIR name a folder with a shorter path",
        ) from err


class Files:
    """Files that were laid out together: what they were, to see whether somebody wrote to them.

    Parameters
    ----------
    make_all
        Makes a folder and those above it, as far as they are missing.
    """

    def __init__(self, store: ContentStore, make_all: Callable[[str], None] = _make_all) -> None:
        self._store = store
        self._make_all = make_all
        self._placed: list[_Placed] = []

    def place(self, value: Value, target: str, content: bytes | None = None) -> None:
        """Let the content of `value` appear at `target`, whose folder exists."""
        if content is None and (isinstance(value, Inline) or value.size <= COPIED_MAX_BYTES):
            content = self._store.objects.read(value)
        if content is not None:
            self._placed.append(_Placed(target, write_sealed(target, content), value, False))
            return
        linked = self._store.cache.lay(value, self._store.objects, target)
        self._placed.append(_Placed(target, seal(os.lstat(target)), value, linked))

    def changed(self) -> str | None:
        """Return a file that is no longer what it was, having dropped it from the cache; None if all are."""
        found = None
        for placed in self._placed:
            if not is_sealed(placed.path, placed.seal):
                found = found or placed.path
                if placed.linked:
                    self._store.cache.drop(placed.value)
        return found

    def mend(self) -> None:
        """Lay out again what was changed."""
        placed, self._placed = self._placed, []
        for old in placed:
            if is_sealed(old.path, old.seal):
                self._placed.append(old)
                continue
            with contextlib.suppress(FileNotFoundError):
                os.unlink(old.path)
            self._make_all(os.path.dirname(old.path))
            self.place(old.value, old.path)

    def place_all(self, entries: Iterable[tuple[str, Value]]) -> None:
        """Place many (target, value), reading small ones together."""
        made: set[str] = set()
        small: list[tuple[str, Value]] = []
        waiting = 0
        for target, value in entries:
            folder = os.path.dirname(target)
            if folder not in made:
                self._make_all(folder)
                made.add(folder)
            if value.size > COPIED_MAX_BYTES:
                self.place(value, target)
                continue
            small.append((target, value))
            waiting += value.size
            if waiting >= _READ_AHEAD_BYTES or len(small) >= 1024:
                self._place_small(small)
                small, waiting = [], 0
        self._place_small(small)

    def _place_small(self, entries: Sequence[tuple[str, Value]]) -> None:
        if entries:
            contents = self._store.objects.read_many([value for _, value in entries])
            for (target, value), content in zip(entries, contents, strict=True):
                self.place(value, target, content)


def small_bytes(value: bytes) -> int | None:
    """The size of a file that is written anew, by its encoded value; None: it is too large for that."""
    if is_inline(value):
        return len(value)
    size = decode_value(value).size
    return size if size <= COPIED_MAX_BYTES else None


def files_below(tree: Tree, path: str) -> Iterator[tuple[str, Value]]:
    """Files of a commit at or below `path`, relative to the commit's root."""
    path = path.strip("/")
    if path:
        value = tree.get(path.encode())
        if value is not None:
            yield path, decode_value(value)
            return
        entries = tree.prefix(path.encode() + b"/")
    else:
        entries = tree.scan()
    for name, raw in entries:
        yield name.decode(), decode_value(raw)
