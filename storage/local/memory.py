"""What local files held when they were last read, by their stat: so that an unchanged file need not be read again.

Losing it, or any part of it, costs reading and nothing else. One file for each folder that was put, in the machine's
cache folder, replaced as a whole. It is read as a whole, too, but the folders in it are decoded when they are asked
for, one by one: of very many files few have changed.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Mapping, Set
from pathlib import Path
from typing import NamedTuple

import msgspec

from ..digest import DIGEST_SIZE, digest
from ..leftovers import TEMPORARY, temporary_name
from .stats import NEVER, STAT_BYTES

logger = logging.getLogger(__name__)

VERSION = 4
_LENGTH = struct.Struct("<Q")


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


class _Kept(NamedTuple):
    size: int
    """Bytes of content of all files."""
    is_stray: bool
    """Whether the tree that has what is remembered has other values for some of them, or lacks some."""
    body: memoryview
    """Encoded `Remembered`."""
    hash: bytes
    """Of the body, which is checked when it is decoded."""


class _Index(msgspec.Struct, array_like=True):
    """What a file begins with, behind its hash and its length; the bodies of the folders follow in their order."""

    version: int
    root: str
    held: Held | None
    folders: list[tuple[str, int, bool, int, bytes]]
    """Where in the root, bytes of content, whether it is a stray, bytes of the body, its hash."""


_encode = msgspec.msgpack.Encoder().encode
_decode_index = msgspec.msgpack.Decoder(_Index).decode
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
        if found is None and kept is not None and digest(kept.body) == kept.hash:
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
        if before is None or bytes(before.body) != body:
            before = _Kept(size, False, memoryview(body), digest(body))
        self._now[inside] = before

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
        rows = [(inside, kept.size, inside in strays, len(kept.body), kept.hash) for inside, kept in self._now.items()]
        index = _encode(_Index(VERSION, self._root, held, rows))
        temporary = self._file.with_name(temporary_name(TEMPORARY))
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            try:
                # Small files' contents are in it.
                with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                    # As they are: of very many folders few are new.
                    out.writelines([digest(index), _LENGTH.pack(len(index)), index])
                    out.writelines(kept.body for kept in self._now.values())
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
        held, folders = _read(file, root) if trust else (None, {})
        return Memory(root, file, held, folders)


def _read(file: Path, root: str) -> tuple[Held | None, dict[str, _Kept]]:
    nothing: tuple[None, dict[str, _Kept]] = None, {}
    try:
        raw = memoryview(file.read_bytes())
    except OSError:
        return nothing
    begin = DIGEST_SIZE + _LENGTH.size
    if len(raw) < begin:
        return nothing
    at = begin + _LENGTH.unpack_from(raw, DIGEST_SIZE)[0]
    if digest(raw[begin:at]) != bytes(raw[:DIGEST_SIZE]):
        return nothing
    try:
        index = _decode_index(raw[begin:at])
    except msgspec.DecodeError:
        return nothing  # of another version
    if index.version != VERSION or index.root != root:
        return nothing
    folders: dict[str, _Kept] = {}
    for inside, size, is_stray, length, name in index.folders:
        folders[inside] = _Kept(size, is_stray, raw[at : at + length], name)
        at += length
    return index.held, folders
