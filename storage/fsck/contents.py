"""Stored bytes against their names: every object of a store, or a sample of them, is read and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..backend import Backend
from ..digest import Digest, digest, from_hex
from ..errors import CorruptError, FormatError, NotFoundError
from ..layout import Kind, kind_of
from ..objects.condemned import plain_key
from ..objects.content import OBJECT_PREFIX
from ..objects.fold import decode_fold
from ..objects.index import INDEX_PREFIX, BlobIndex, index_key
from ..objects.node import NODE_PREFIX, unpack_node
from ..objects.pack import PACK_PREFIX, Footer, Location, check_blob, read_footer, unpack, verify_pack
from ..objects.segment import SEGMENT_PREFIX
from ..sealed import decode_json
from ..sessions.parts import SESSIONS_PREFIX, OpenInfo, decode_part, open_key
from ..state import State
from .report import Findings

_SESSIONS = SESSIONS_PREFIX.rstrip("/")
PREFIXES = (NODE_PREFIX, OBJECT_PREFIX, PACK_PREFIX, SEGMENT_PREFIX, _SESSIONS, INDEX_PREFIX)
"""Folders of what is compared with its name, in the order of the checks."""


@dataclass(slots=True)
class Contents:
    """What a store has, and what of it is sound."""

    listed: dict[str, dict[str, int]]
    """Folder to key to size, of `PREFIXES`."""
    places: dict[str, list[str]] = field(default_factory=dict)
    """Key of a node or loose object to the keys that hold its content: it, and what stands beside it."""
    locations: dict[Digest, Location] = field(default_factory=dict)
    """Where the blobs of sound packs, and the sound blobs of damaged ones, are."""
    broken: dict[str, Footer | None] = field(default_factory=dict)
    """Damaged pack or segment to its footer, if that can be read."""

    def stored(self) -> int:
        """How many objects are listed."""
        return sum(map(len, self.listed.values()))


def list_contents(backend: Backend) -> Contents:
    """List a store's objects; reads none."""
    # Open commits first: what a part needs was stored before it, and so is among what is listed after it.
    sessions = dict(backend.list(SESSIONS_PREFIX))
    contents = Contents({p: sessions if p == _SESSIONS else dict(backend.list(f"{p}/")) for p in PREFIXES})
    for prefix in (NODE_PREFIX, OBJECT_PREFIX):
        for key in contents.listed[prefix]:
            contents.places.setdefault(plain_key(key), []).append(key)
    return contents


def read_contents(
    backend: Backend, state: State, contents: Contents, findings: Findings, *, only: frozenset[str] | None = None
) -> None:
    """Compare objects with their names.

    Parameters
    ----------
    state
        Names the packs and indexes that have to be there.
    contents
        From `list_contents`; what is sound is noted in it.
    only
        Keys that are read; None: all. What the state names and is not there is noted in any case.
    """
    _Reading(backend, contents, findings, only).run(state)


def locate_unread(backend: Backend, contents: Contents, findings: Findings, read: frozenset[str]) -> None:
    """Note where the blobs of packs are that were not read, from their footers alone: they count as sound."""
    for prefix in (PACK_PREFIX, SEGMENT_PREFIX):
        for key in contents.listed[prefix]:
            if key in read or not key.endswith((".pack", ".seg")):
                continue
            try:
                for name, location in read_footer(backend, key).locations(key):
                    contents.locations.setdefault(name, location)
            except (CorruptError, FormatError) as error:
                findings.bad("damaged", key, str(error))
                contents.broken[key] = None
            except NotFoundError:  # deleted since it was listed
                continue


def check_object(backend: Backend, key: str) -> int:
    """Compare one object with its name; return its size in bytes.

    Raises
    ------
    NotFoundError
        It does not exist.
    CorruptError, FormatError
        It is something else.
    """
    return check_body(key, backend.get(key))


def check_body(key: str, data: bytes) -> int:
    """Compare bytes with the name that they are stored under; return the size of what they hold.

    Raises
    ------
    CorruptError, FormatError
        They are something else.
    """
    match kind_of(key):
        case Kind.NODE:
            # Past the cache: what was read on the way to here must not hide what is stored.
            return len(unpack_node(_name_in(key, NODE_PREFIX), data))
        case Kind.OBJECT:
            actual = digest(data)
            if actual != _name_in(key, OBJECT_PREFIX):
                raise CorruptError(f"its {len(data)} bytes hash to {actual.hex()[:12]}")
        case Kind.PACK | Kind.SEGMENT:
            verify_pack(data, key)
        case Kind.INDEX:
            if index_key(data) != key:
                raise CorruptError(f"its {len(data)} bytes hash to {index_key(data)}")
            BlobIndex(data, key)
        case Kind.FOLD:
            decode_fold(data, key)
        case Kind.PART:
            decode_part(key, data)
        case Kind.OPEN_COMMIT:
            decode_json(data, OpenInfo, key)
        case Kind.CLOSED | Kind.HEARTBEAT:
            pass  # nothing depends on what they hold but when somebody's work began
        case _:
            raise FormatError(f"{key} is nothing that a store holds")
    return len(data)


@dataclass(slots=True)
class _Reading:
    backend: Backend
    contents: Contents
    findings: Findings
    only: frozenset[str] | None

    def run(self, state: State) -> None:
        listed = self.contents.listed
        self._each("nodes", listed[NODE_PREFIX], self._object)
        self._each("objects", listed[OBJECT_PREFIX], self._object)
        published = dict.fromkeys(state.packs(), 0)
        in_packs = {key: 0 for key in published if key.startswith(f"{PACK_PREFIX}/")}
        self._each("packs", {**listed[PACK_PREFIX], **in_packs}, self._pack)
        segments = {key: 0 for key in (*listed[SEGMENT_PREFIX], *published) if key.startswith(f"{SEGMENT_PREFIX}/")}
        self._each("segments", segments, self._pack)
        self._each("sessions", listed[_SESSIONS], self._session)
        self._open_commits(listed[_SESSIONS])
        self._indexes(set(state.indexes()), listed[INDEX_PREFIX])

    def _each(self, what: str, keys: Iterable[str], check: Callable[[str], int]) -> None:
        for count, key in enumerate(keys, 1):
            if not self._is_read(key):
                continue
            try:
                self.findings.read(check(key))
            except NotFoundError:
                self.findings.bad("missing", key, "it does not exist")
            except (CorruptError, FormatError) as error:
                self.findings.bad("damaged", key, str(error))
                self.findings.read(0)
            self.findings.progress(what, count)

    def _is_read(self, key: str) -> bool:
        if self.only is None or key in self.only:
            return True
        if key not in self.contents.listed[key.partition("/")[0]]:
            self.findings.bad("missing", key, "it does not exist")
        return False

    def _object(self, key: str) -> int:
        return check_object(self.backend, key)

    def _session(self, key: str) -> int:
        try:
            return check_object(self.backend, key)
        except NotFoundError:  # published or aborted since it was listed
            return 0

    def _open_commits(self, listed: Iterable[str]) -> None:
        """Notice parts of an open commit that does not say where it publishes: that goes last."""
        for part in listed:
            key = open_key(part.split("/")[1])
            if part.endswith(".mp") and self.backend.size(key) is None and self.backend.size(part) is not None:
                self.findings.bad("missing", key, "it does not exist, and there are parts of what it describes")

    def _pack(self, key: str) -> int:
        if not key.endswith((".pack", ".seg")):
            return check_object(self.backend, key)
        data = self.backend.get(key)
        try:
            footer = verify_pack(data, key)
        except (CorruptError, FormatError):
            self._sound_blobs(key, data)
            raise
        for name, location in footer.locations(key):
            self.contents.locations.setdefault(name, location)
        return len(data)

    def _sound_blobs(self, key: str, data: bytes) -> None:
        """Of a damaged pack, keep what can be read; the rest is missing."""
        try:
            footer = read_footer(self.backend, key)
        except (CorruptError, FormatError, NotFoundError):
            self.contents.broken[key] = None
            return
        self.contents.broken[key] = footer
        for name, location in footer.locations(key):
            if blob_in(data, name, location) is not None:
                self.contents.locations.setdefault(name, location)

    def _indexes(self, named: set[str], stored: dict[str, int]) -> None:
        for key in sorted(named | set(stored)):
            if self.only is not None and key not in self.only:
                if key not in stored:
                    self.findings.bad("derived", key, "it does not exist")
                continue
            try:
                data = self.backend.get(key)
                check_body(key, data)
                index = BlobIndex(data, key)
            except NotFoundError:
                self.findings.bad("derived", key, "it does not exist")
                continue
            except (CorruptError, FormatError) as error:
                self.findings.bad("derived", key, str(error))
                continue
            self.findings.read(len(data))
            if key in named and self.only is None:
                self._index(key, index)

    def _index(self, key: str, index: BlobIndex) -> None:
        for name, location in index:
            there = self.contents.locations.get(name)
            if there is None and location.key not in self.findings:
                message = f"it names blob {name.hex()[:12]} in {location.key}, which does not hold it"
                self.findings.bad("derived", key, message)


def blob_in(pack: bytes, name: Digest, at: Location) -> bytes | None:
    """Return a blob's stored bytes from those of its pack; None if they are not what its hash says."""
    raw = pack[at.offset : at.offset + at.stored]
    try:
        check_blob(name, unpack(raw, at.codec, name), at.key)
    except (CorruptError, FormatError):
        return None
    return raw


def _name_in(key: str, prefix: str) -> Digest:
    try:
        return from_hex(plain_key(key)[len(prefix) + 1 :].replace("/", ""))
    except ValueError as error:
        raise CorruptError(f"{key} is no name of content") from error
