"""A store in one file: a tar for places without a network.

The first member says what it is and where the ledger ends, so that an archive that was cut off is noticed; the others
are the store's objects, sorted by key, with nothing of the machine that made them. So one state of a store, and of its
clones, makes one archive, byte for byte. Checkpoints are left out: they are derived.

An archive comes from elsewhere: it is never unpacked to the names that it gives. It is read where it is, as a backend
that takes no writes; a member that is no plain file, or whose name is no object's, is refused before anything is read.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..backend import MAX_OBJECT_BYTES, Backend, Properties
from ..digest import Data, Digest, digest
from ..errors import BackendError, CorruptError, ErrorCode, FormatError, InvalidInputError, NotFoundError, ReadOnlyError
from ..info import INFO_KEY
from ..ledger.ledger import entry_key
from ..leftovers import TEMPORARY, remove_leftovers, temporary_name
from ..objects.segment import SEGMENT_PREFIX
from ..state import State
from ..store import Store
from .copying import Copied, Copier
from .reach import find_needed

ABOUT_KEY = "archive.json"
ARCHIVE_FORMAT = "dmlpipe-archive"
ARCHIVE_VERSION = 1

_FORMAT = tarfile.GNU_FORMAT
_HEX = "[0-9a-f]"
_NAMES = re.compile(
    rf"(dmlpipe\.json|{ABOUT_KEY}|ledger/\d{{9}}/\d{{12}}\.json"
    rf"|(nodes|objects)/{_HEX}{{2}}/{_HEX}{{62}}(\.{_HEX}+)?|packs/{_HEX}{{2}}/{_HEX}{{62}}\.pack"
    rf"|index/{_HEX}{{64}}\.idx|{SEGMENT_PREFIX}/{_HEX}{{16}}/\d{{6}}/[^/\0]{{1,200}}\.seg)"
)


class About(msgspec.Struct, frozen=True, kw_only=True):
    """The first member."""

    format: str = ARCHIVE_FORMAT
    version: int = ARCHIVE_VERSION
    repo_id: str
    n: int
    """Last ledger entry; -1: none."""
    chain: str
    """Its hash."""
    objects: int
    """How many members follow."""


def write_archive(store: Store, file: Path, *, copied: Copied | None = None) -> About:
    """Write everything that a store refers to into one new file.

    Parameters
    ----------
    store
        Read as it is now.
    file
        Must not exist; appears when it is whole.
    copied
        Hears what was written: a kind, how many objects, their bytes.

    Raises
    ------
    InvalidInputError
        There is such a file (code ``exists``).
    CorruptError, NotFoundError
        An object of the store is damaged or missing.
    BackendError
        The file cannot be written.

    Notes
    -----
    Each node is read twice: once to learn what there is, once to write it. Memory: the names of all objects, and about
    100 MiB.
    """
    if file.exists():
        raise InvalidInputError(f"{file} exists already", code=ErrorCode.EXISTS, hint="name a new file")
    remove_leftovers([str(file.parent)], TEMPORARY)
    temporary = file.with_name(temporary_name(TEMPORARY))
    try:
        try:
            with open(temporary, "xb") as out:
                about = _write(store, out, copied or _silent)
                out.flush()
                os.fsync(out.fileno())
            os.link(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError as error:
        raise InvalidInputError(f"{file} exists already", code=ErrorCode.EXISTS, hint="name a new file") from error
    except BackendError:
        raise
    except OSError as error:
        raise BackendError(f"cannot write {file}: {error.strerror or error}") from error
    return about


def is_archive(place: str) -> bool:
    """Whether `place` is a file, and so an archive if anything; stores are folders and URLs."""
    return "://" not in place and os.path.isfile(place)


def _write(store: Store, out: io.BufferedWriter, copied: Copied) -> About:
    state = store.refresh()
    # Two passes: names first, since the order in the file is that of the names.
    names = _Names()
    planner = Copier(store, names, True, _silent)
    needed = find_needed(store, State(), store.nodes, planner.nodes)
    planner.all(needed)
    keys = sorted([INFO_KEY, *(entry_key(n) for n in range(state.n + 1)), *names.keys])
    about = About(repo_id=store.repo_id, n=state.n, chain=state.chain, objects=len(keys))
    with tarfile.open(fileobj=out, mode="w", format=_FORMAT) as tar:
        _add(tar, ABOUT_KEY, msgspec.json.encode(about) + b"\n")
        for first in range(0, len(keys), 16):
            batch = keys[first : first + 16]
            for key, body in zip(batch, store.backend.get_many([(key, None, None) for key in batch]), strict=True):
                expected = names.keys.get(key)
                if expected is not None and expected != digest(body):
                    raise CorruptError(f"{key} changed while it was read")
                _add(tar, key, body)
                copied(key.partition("/")[0], 1, len(body))
    return about


def _add(tar: tarfile.TarFile, key: str, body: bytes) -> None:
    info = tarfile.TarInfo(key)
    info.size = len(body)
    info.mode = 0o644
    tar.addfile(info, io.BytesIO(body))


def _silent(what: str, count: int, size_bytes: int) -> None:
    del what, count, size_bytes


class _ReadOnly(Backend):
    """What neither an archive nor a plan can do."""

    @property
    def properties(self) -> Properties:
        """Not shared: nobody else changes it."""
        return Properties(remote=True, shared=False, hard_links=False)

    def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
        """Refused."""
        raise ReadOnlyError(f"{self.url} takes no writes")

    def put(self, key: str, data: Data) -> None:
        """Refused."""
        raise ReadOnlyError(f"{self.url} takes no writes")

    def delete_many(self, keys: Iterable[str]) -> None:
        """Refused."""
        raise ReadOnlyError(f"{self.url} takes no writes")


class _Names(_ReadOnly):
    """Takes objects and keeps their names, with a hash of what was verified."""

    def __init__(self) -> None:
        self.keys: dict[str, Digest] = {}

    @property
    def url(self) -> str:
        """None that could be opened."""
        return "plan:"

    def put_many_if_absent(self, items: Sequence[tuple[str, Data]]) -> Sequence[bool]:
        """Note names."""
        self.keys.update((key, digest(data)) for key, data in items)
        return [True] * len(items)

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """Nothing is kept."""
        raise NotFoundError(f"no object {key} in {self.url}")

    def size(self, key: str) -> int | None:
        """Nothing is kept."""
        del key
        return None

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Nothing is kept."""
        del prefix
        return iter(())

    def list_folders(self, prefix: str = "") -> Sequence[str]:
        """Nothing is kept."""
        del prefix
        return ()


class ArchiveBackend(_ReadOnly):
    """The objects of an archive, where it is. Takes no writes. Safe for use by many threads.

    Parameters
    ----------
    file
        The archive.

    Raises
    ------
    NotFoundError
        There is no such file.
    FormatError
        It is no archive of a store, or one of a later version.
    CorruptError
        It was cut off, or holds what no archive holds: a link, a name outside the store, an object twice.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self._path = Path(file).absolute()
        self._lock = threading.Lock()
        try:
            self._file = open(self._path, "rb")  # noqa: SIM115  (open as long as the archive is)
        except OSError as error:
            raise NotFoundError(f"cannot read {file}: {error.strerror}", code=ErrorCode.NO_FILE) from error
        try:
            self._members = self._scan()
            self.about = self._read_about()
        except BaseException:
            self._file.close()
            raise

    @property
    def url(self) -> str:
        """The file's path."""
        return str(self._path)

    def __reduce__(self) -> tuple[Any, ...]:
        return (ArchiveBackend, (str(self._path),))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """See `Backend.get`."""
        place = self._members.get(key)
        if place is None:
            raise NotFoundError(f"no object {key} in {self.url}")
        offset, size = place
        low, high, _ = slice(start, end).indices(size)
        data = os.pread(self._file.fileno(), max(0, high - low), offset + low)
        if len(data) != max(0, high - low):
            raise CorruptError(f"{self.url} is cut off: {key} has {len(data)} bytes of {high - low}")
        return data

    def size(self, key: str) -> int | None:
        """See `Backend.size`."""
        place = self._members.get(key)
        return place[1] if place is not None else None

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """See `Backend.list`."""
        for key in sorted(self._members):
            if key.startswith(prefix):
                yield key, self._members[key][1]

    def list_folders(self, prefix: str = "") -> Sequence[str]:
        """See `Backend.list_folders`."""
        below = [key[len(prefix) :] for key in self._members if key.startswith(prefix)]
        return sorted({name.partition("/")[0] for name in below if "/" in name})

    def _scan(self) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                for info in tar:
                    self._check(info, found)
                    found[info.name] = (info.offset_data, info.size)
        except tarfile.TarError as error:
            raise FormatError(f"{self.url} is no archive of a store: {error}", code=ErrorCode.NO_STORE) from error
        return found

    def _check(self, info: tarfile.TarInfo, found: dict[str, tuple[int, int]]) -> None:
        name = info.name
        problem = ""
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.sparse is not None:
            problem = "is no plain file"
        elif not _NAMES.fullmatch(name):
            problem = "is the name of no object"
        elif name in found:
            problem = "is there twice"
        elif info.size > MAX_OBJECT_BYTES:
            problem = f"has {info.size} bytes, more than an object can have"
        if problem:
            raise CorruptError(f"{self.url} is refused: its member {name[:200]!r} {problem}")

    def _read_about(self) -> About:
        try:
            about = msgspec.json.decode(self.get(ABOUT_KEY), type=About)
        except (NotFoundError, msgspec.DecodeError) as error:
            raise FormatError(f"{self.url} is no archive of a store", code=ErrorCode.NO_STORE) from error
        if (about.format, about.version) != (ARCHIVE_FORMAT, ARCHIVE_VERSION):
            raise FormatError(
                f"{self.url} has archive format {about.version}; this dmlpipe reads {ARCHIVE_VERSION}",
                hint="upgrade dmlpipe",
            )
        if len(self._members) != about.objects + 1:
            raise CorruptError(
                f"{self.url} is cut off: it has {len(self._members) - 1} of {about.objects} objects",
                hint="copy it again",
            )
        return about
