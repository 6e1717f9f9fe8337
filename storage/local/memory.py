"""What local files held when they were last read, by their stat: so that an unchanged file need not be read again.

Losing it, or any part of it, costs reading and nothing else. One file for each folder that was put, in the machine's
cache folder, replaced as a whole. It is read as a whole, too, but the folders in it are decoded when they are asked
for, one by one: of very many files few have changed.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping, Set
from pathlib import Path

import msgspec

from ..digest import DIGEST_SIZE, digest
from .stats import NEVER, STAT_BYTES

logger = logging.getLogger(__name__)

VERSION = 2


class Remembered(msgspec.Struct, array_like=True, frozen=True):
    """The files of one folder."""

    device: int
    names: bytes
    """Joined by NUL, as the listing sorted them."""
    stats: bytes
    """`STAT_BYTES` for each."""
    packed: msgspec.Raw
    """See `values`."""

    @classmethod
    def of(cls, device: int, names: bytes, stats: bytes, values: list[bytes]) -> Remembered:
        """Return what is to be remembered of a folder, given the encoded value of each file."""
        return cls(device, names, stats, msgspec.Raw(_encode(values)))

    def values(self) -> list[bytes]:
        """Decode the encoded value of each."""
        return _decode_values(self.packed)

    def align(self, joined: bytes) -> bytes:
        """Return stats in the order of names joined by NUL; for those not known what matches no file."""
        if joined == self.names:
            return self.stats
        places = self._places()
        return b"".join(
            NEVER if at is None else self.stats[at * STAT_BYTES : (at + 1) * STAT_BYTES]
            for at in map(places.get, joined.split(b"\0"))
        )

    def align_values(self, joined: bytes) -> list[bytes]:
        """Return values in the order of names joined by NUL; for those not known nothing."""
        values = self.values()
        if joined == self.names:
            return values
        return [b"" if at is None else values[at] for at in map(self._places().get, joined.split(b"\0"))]

    def _places(self) -> dict[bytes, int]:
        return {name: number for number, name in enumerate(self.names.split(b"\0"))}


class Held(msgspec.Struct, array_like=True, frozen=True):
    """A tree that has what is remembered: the files, with their values, below a folder of it."""

    root: bytes
    folder: bytes


class _Kept(msgspec.Struct, array_like=True, eq=False):
    size: int
    """Bytes of content of all files."""
    is_stray: bool
    """Whether the tree that has what is remembered has other values for some of them, or lacks some."""
    body: memoryview
    """Encoded `Remembered`."""


class _Stored(msgspec.Struct, array_like=True):
    version: int
    root: str
    held: Held | None
    folders: dict[str, _Kept]


_encode = msgspec.msgpack.Encoder().encode
_decode_stored = msgspec.msgpack.Decoder(_Stored).decode
_decode_folder = msgspec.msgpack.Decoder(Remembered).decode
_decode_values = msgspec.msgpack.Decoder(list[bytes]).decode


class Memory:
    """What is remembered of one source folder, and what is to be.

    Parameters
    ----------
    root
        The folder.
    file
        Where it is remembered.
    held
        A tree that has it, but for strays.
    before
        What is remembered, by local folder.
    """

    def __init__(self, root: str, file: Path, held: Held | None, before: Mapping[str, _Kept]) -> None:
        self._root = root
        self._file = file
        self._before = before
        self._now: dict[str, _Kept] = {}
        self._found: dict[str, Remembered] = {}
        self._held = held

    def get(self, inside: str) -> Remembered | None:
        """Return what is remembered of the files right in a folder."""
        found = self._found.get(inside)
        kept = self._before.get(inside)
        if found is None and kept is not None:
            found = self._found[inside] = _decode_folder(kept.body)
        return found

    def is_held(self, inside: str, held: Held) -> bool:
        """Whether a tree has what is remembered of a folder."""
        kept = self._before.get(inside)
        return kept is not None and not kept.is_stray and self._held == held

    def keep(self, inside: str) -> int:
        """Go on remembering a folder, which is as it was; return the bytes of content of its files."""
        kept = self._now[inside] = self._before[inside]
        return kept.size

    def note(self, inside: str, folder: Remembered, size: int) -> None:
        """Remember a folder with so many bytes of content."""
        body = _encode(folder)
        before = self._before.get(inside)
        is_same = before is not None and bytes(before.body) == body
        self._now[inside] = before if before is not None and is_same else _Kept(size, False, memoryview(body))

    def save(self, held: Held | None, strays: Set[str] = frozenset()) -> None:
        """Write what is to be remembered, if that is news. A cache folder that cannot be written is no failure.

        Parameters
        ----------
        held
            A tree that has it; None: not known.
        strays
            Folders that it has otherwise.
        """
        changed = len(self._now) != len(self._before) or any(
            kept is not self._before.get(inside) for inside, kept in self._now.items()
        )
        # A tree that has what is remembered has it for ever: what has some of it is no better.
        known = self._held is not None and (held is None or bool(strays) or held == self._held)
        if not changed and (held is None or known):
            return
        folders = {inside: _Kept(kept.size, inside in strays, kept.body) for inside, kept in self._now.items()}
        body = _encode(_Stored(VERSION, self._root, held, folders))
        temporary = self._file.with_name(f".tmp-{os.getpid()}-{uuid.uuid4().hex}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            try:
                # Small files' contents are in it.
                with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                    out.write(body)
                    out.write(digest(body))
                os.replace(temporary, self._file)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            logger.info("the stats of %s are not remembered: %s", self._root, error)


class StatCache:
    """Remembers the stats of folders that were read.

    Parameters
    ----------
    folder
        Where; made when something is remembered.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, root: str, *, trust: bool = True) -> Memory:
        """Return what is remembered of the local folder `root`; nothing, if that is not to be trusted."""
        root = os.path.abspath(root)
        file = self._folder / f"{digest(os.fsencode(root)).hex()[:32]}.mp"
        stored = _read(file, root) if trust else None
        return Memory(root, file, stored.held, stored.folders) if stored is not None else Memory(root, file, None, {})


def _read(file: Path, root: str) -> _Stored | None:
    try:
        raw = file.read_bytes()
    except OSError:
        return None
    body = memoryview(raw)[:-DIGEST_SIZE]
    if len(raw) < DIGEST_SIZE or digest(body) != raw[-DIGEST_SIZE:]:
        return None
    try:
        stored = _decode_stored(body)
    except msgspec.DecodeError:
        return None  # an earlier version's
    return stored if stored.version == VERSION and stored.root == root else None
