"""What the writers of an open commit leave for whoever commits it: objects below ``sessions/<id>/``.

::

    open.json                    where it publishes, and the head it began from; created exclusively
    heartbeat.json               overwritten: {"started": time}; tells the garbage collector to leave what is newer
    <writer>-<seq, 8 digits>.mp  one writer's edits, whole: zstd of the msgpack map `Part`; created exclusively
    closed                       whoever commits or aborts makes it: parts that come later do not count

Nothing refers to these objects. They go when the commit is published or aborted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from ..backend import Backend
from ..errors import CorruptError, FormatError, NotFoundError
from ..objects.compression import compress, decompress
from ..sealed import decode_json
from ..tokens import token_bytes
from ..trees.operations import Append, Delete, Edit, Mirror, Put, PutMany

SESSIONS_PREFIX = "sessions/"
VERSION = 1

_PUT, _APPEND, _DELETE, _MIRROR = range(4)


class OpenInfo(msgspec.Struct, frozen=True, kw_only=True):
    """``open.json``."""

    v: int = VERSION
    repo: str
    branch: str
    message: str
    author: str
    if_head: str | None
    creates_repo: bool
    base: str
    """Head that all writers begin from, hex; empty: a new branch."""
    opened: str
    actor: str
    check: str = ""
    """See `sealed`."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one writer did."""

    v: int = VERSION
    nonce: bytes = msgspec.field(default_factory=lambda: token_bytes(8))
    writer: str
    since: int
    """Last ledger entry that the writer knew before it stored anything: later sweeps may have taken what it stored."""
    edits: list[list[Any]]
    packs: tuple[str, ...]
    index: str
    keys: tuple[str, ...]
    """Objects that the edits need."""
    blobs: tuple[bytes, ...]
    """Hashes of packed blobs that the edits need and that were published before."""

    def log(self) -> Iterator[Edit]:
        """Yield the edits, in order."""
        for kind, path, *rest in self.edits:
            match kind:
                case 0:
                    yield Put(path, rest[0])
                case 1:
                    yield Append(path, rest[0], rest[1])
                case 2:
                    yield Delete(path)
                case 3:
                    yield Mirror(path, frozenset(rest[0]))
                case _:
                    raise FormatError(f"a part of writer {self.writer!r} has an edit of kind {kind}, unknown here")


def encode_edits(log: Sequence[Edit]) -> list[list[Any]]:
    """Return edits as a part holds them."""
    found: list[list[Any]] = []
    for edit in log:
        match edit:
            case Put():
                found.append([_PUT, edit.path, edit.value])
            case PutMany():
                found += [[_PUT, path, value] for path, value in zip(edit.files.paths, edit.files.values, strict=True)]
            case Append():
                found.append([_APPEND, edit.path, edit.old, edit.value])
            case Delete():
                found.append([_DELETE, edit.path])
            case Mirror():
                found.append([_MIRROR, edit.folder, sorted(edit.keep)])
    return found


def folder_of(session: str) -> str:
    """Return the prefix of an open commit's objects."""
    return f"{SESSIONS_PREFIX}{session}/"


def open_key(session: str) -> str:
    """Key of ``open.json``."""
    return folder_of(session) + "open.json"


def heartbeat_key(session: str) -> str:
    """Key of the heartbeat."""
    return folder_of(session) + "heartbeat.json"


def closed_key(session: str) -> str:
    """Key of what closes it."""
    return folder_of(session) + "closed"


def part_key(session: str, writer: str, seq: int) -> str:
    """Key of a part."""
    return f"{folder_of(session)}{writer}-{seq:08d}.mp"


def read_open(backend: Backend, session: str) -> OpenInfo | None:
    """Return ``open.json``; None if there is no such open commit (any more).

    Raises
    ------
    CorruptError
        It is damaged.
    FormatError
        It was made by a later version.
    """
    try:
        raw = backend.get(open_key(session))
    except NotFoundError:
        return None
    info = decode_json(raw, OpenInfo, open_key(session))
    if info.v != VERSION:
        raise FormatError(f"open commit {session} has version {info.v}: expected {VERSION}", hint="upgrade dmlpipe")
    return info


def encode_part(part: Part) -> bytes:
    """Return the bytes of a part."""
    return compress(msgspec.msgpack.encode(part))


def read_parts(backend: Backend, session: str) -> list[Part]:
    """Return all parts, those of one writer in the order that it made them.

    Raises
    ------
    CorruptError
        One is damaged.
    """
    keys = [key for key, _ in backend.list(folder_of(session)) if key.endswith(".mp")]
    return [decode_part(key, raw) for key, raw in zip(keys, _get(backend, keys), strict=True)]


def _get(backend: Backend, keys: Sequence[str]) -> Sequence[bytes]:
    return backend.get_many([(key, None, None) for key in keys]) if keys else []


def decode_part(key: str, raw: bytes) -> Part:
    """Parse the part under `key`.

    Raises
    ------
    CorruptError
        It is damaged.
    FormatError
        It was made by a later version.
    """
    try:
        part = msgspec.msgpack.decode(decompress(raw, key), type=Part)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptError(f"{key} is damaged: {error}") from error
    if part.v != VERSION:
        raise FormatError(f"{key} has version {part.v}: expected {VERSION}", hint="upgrade dmlpipe")
    return part
