"""`clone`, `push`, `pull`: bring a copy of a store to where another one is.

Order: the objects that the newer entries refer to, then these entries, one after another. A transfer that was
interrupted leaves a whole store as of an earlier entry; the next one sends what is still missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backend import Backend, is_vacant, open_backend, probe_exclusive_create
from ..errors import ConflictError, ErrorCode, InvalidInputError, NotFoundError
from ..info import INFO_KEY, read_info
from ..ledger.ledger import entry_key
from ..store import Store
from .copying import Copier
from .meter import Meter
from .reach import find_needed
from .relation import relate

_ENTRIES_TOGETHER = 512

Progress = Callable[[str, int, int], None]
"""Called with what travels (``nodes``, ``objects``, ``packs``, ``segments``, ``indexes``, ``entries``), how many
objects of it more, and their bytes."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a transfer did."""

    source: str
    dest: str
    repo_id: str
    entries: int
    """Ledger entries sent."""
    last: int
    """The copy's last entry now; -1: none."""
    chain: str
    """Its hash."""
    objects: int
    """Other objects sent."""
    found: int
    """Objects that were needed and there already."""
    size_bytes: int
    """Bytes written."""
    read_requests: int
    """Requests to the source."""
    write_requests: int
    """Requests to the copy."""
    ahead: int = 0
    """Entries that the copy has and the source lacks: a transfer the other way would bring them."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with stable keys."""
        return {
            "source": self.source,
            "dest": self.dest,
            "repo_id": self.repo_id,
            "entries": self.entries,
            "last": self.last,
            "chain": self.chain,
            "objects": self.objects,
            "found": self.found,
            "size": self.size_bytes,
            "read_requests": self.read_requests,
            "write_requests": self.write_requests,
            "ahead": self.ahead,
        }


def clone(
    source: Backend,
    url: str,
    *,
    storage_options: Mapping[str, Any] | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Transfer:
    """Make a copy of a store at `url`, or go on with one that was begun.

    Parameters
    ----------
    source
        Where the store is; an `ArchiveBackend` serves.
    url, storage_options
        The copy's place, as for `Store.init`.
    cache_dir
        See `Store.open`.
    progress
        Hears what has travelled.

    Returns
    -------
    Transfer
        What was done.

    Raises
    ------
    InvalidInputError
        The place is not empty (code ``exists``).
    ConflictError
        Another store is there.
    FormatError
        There is no store at `source`.

    Notes
    -----
    The copy has the same id and the same ledger. Segments of jobs that are under way are not copied.
    """
    info = read_info(source)
    dest = open_backend(url, storage_options)
    empty = dest.size(INFO_KEY) is None
    if empty:
        if not is_vacant(dest):
            raise InvalidInputError(
                f"{dest.url} is not empty and no store", code=ErrorCode.EXISTS, hint="name an empty or a new place"
            )
        probe_exclusive_create(dest)
        dest.put_if_absent(INFO_KEY, source.get(INFO_KEY), durable=True)
        if dest.properties.path is not None:
            dest.put_if_absent(".gitignore", b"*\n")
    elif read_info(dest).repo_id != info.repo_id:
        raise ConflictError(f"another store is at {dest.url}", code=ErrorCode.EXISTS, hint="name a new place")
    return _transfer(source, dest, cache_dir=cache_dir, progress=progress, empty=empty)


def push(
    store: Store,
    url: str,
    *,
    storage_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Transfer:
    """Bring the clone at `url` to where `store` is. See `clone`.

    Raises
    ------
    ConflictError
        It is a clone of another store, or each has entries that the other lacks: the first that differs is named.
    FormatError
        There is no store.
    """
    dest = open_backend(url, storage_options)
    return _transfer(store.backend, dest, cache_dir=store.cache_dir, progress=progress)


def pull(
    store: Store,
    url: str,
    *,
    storage_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Transfer:
    """Bring `store` to where its clone at `url` is. See `push`."""
    source = open_backend(url, storage_options)
    return _transfer(source, store.backend, cache_dir=store.cache_dir, progress=progress)


def _transfer(
    source: Backend, dest: Backend, *, cache_dir: Path | None, progress: Progress | None, empty: bool = False
) -> Transfer:
    told = progress or _silent
    reading, writing = Meter(source), Meter(dest)
    origin = Store(reading, read_info(reading), read_only=True, cache_dir=cache_dir)
    copy = Store(writing, read_info(writing), cache_dir=cache_dir)
    relation = relate(origin, copy)
    base, last = copy.state, origin.state.n
    copier = Copier(origin, writing, empty, told)
    if last > base.n:
        try:
            copier.all(find_needed(origin, base, copy.nodes, copier.nodes))
        except NotFoundError as error:
            raise NotFoundError(
                f"{origin.url} lacks what it refers to: {error.message}",
                hint=error.hint or f"it is damaged, or was collected meanwhile: dmlpipe --store {origin.url} fsck",
            ) from error
        writing.sync(copier.keys)
        for first in range(base.n + 1, last + 1, _ENTRIES_TOGETHER):
            numbers = range(first, min(first + _ENTRIES_TOGETHER, last + 1))
            bodies = reading.get_many([(entry_key(n), None, None) for n in numbers])
            copy.ledger.adopt(first, bodies)
            told("entries", len(bodies), sum(map(len, bodies)))
    return Transfer(
        source=source.url,
        dest=dest.url,
        repo_id=copy.repo_id,
        entries=max(0, last - base.n),
        last=copy.state.n,
        chain=copy.state.chain,
        objects=copier.objects,
        found=copier.found,
        size_bytes=writing.written_bytes,
        read_requests=reading.requests,
        write_requests=writing.requests,
        ahead=relation.there - relation.common,
    )


def _silent(what: str, count: int, size_bytes: int) -> None:
    del what, count, size_bytes
