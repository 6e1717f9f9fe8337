"""What local files held when they were last read, by their stat: so that an unchanged file need not be read again.

A file counts as unchanged if its inode, size, modification and change times are those it had when it was read, and if
that was not right after its last change: a file that is written twice within a tick of the file system's clock has
one time for two contents. Such entries are forgotten at once ("racily clean", as git calls them).

Losing the cache, or any part of it, costs reading and nothing else. One file for each folder that was put, in the
machine's cache folder, replaced as a whole.
"""

from __future__ import annotations

import logging
import os
import uuid
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from pathlib import Path

import msgspec

from ..digest import DIGEST_SIZE, digest

logger = logging.getLogger(__name__)

VERSION = 1
STAT_BYTES = 32
"""Inode, size, modification time, change time: 8 bytes each."""

TICK_NS = 50_000_000
"""Longer than what lies between two times that a file system gives."""
COARSE_TICK_NS = 2_000_000_000
"""The same where it gives whole seconds."""
SECOND_NS = 1_000_000_000
_WORD = (1 << 63) - 1
_NEVER = b"\xff" * STAT_BYTES
_fields = attrgetter("st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")


class Remembered(msgspec.Struct, array_like=True):
    """The files of one folder."""

    device: int
    names: bytes
    """Joined by NUL, as the listing sorted them."""
    stats: bytes
    """`STAT_BYTES` for each."""
    values: list[bytes]
    """Encoded value of each."""

    def align(self, joined: bytes) -> tuple[bytes, list[bytes]]:
        """Return stats and values in the order of names joined by NUL; for those not known what matches no file."""
        if joined == self.names:
            return self.stats, self.values
        places = {name: number for number, name in enumerate(self.names.split(b"\0"))}
        stats: list[bytes] = []
        values: list[bytes] = []
        for name in joined.split(b"\0"):
            at = places.get(name)
            stats.append(_NEVER if at is None else self.stats[at * STAT_BYTES : (at + 1) * STAT_BYTES])
            values.append(b"" if at is None else self.values[at])
        return b"".join(stats), values


class _Stored(msgspec.Struct, array_like=True):
    version: int
    root: str
    folders: dict[str, Remembered]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Stored)


@dataclass
class Memory:
    """What is remembered of one source folder, and what is to be."""

    root: str
    file: Path
    before: dict[str, Remembered] = field(default_factory=dict)
    """By local folder."""
    now: dict[str, Remembered] = field(default_factory=dict)

    def save(self) -> None:
        """Write what is remembered now, if that is news. A cache folder that cannot be written is no failure."""
        if self.now == self.before:
            return
        body = _encoder.encode(_Stored(VERSION, self.root, self.now))
        temporary = self.file.with_name(f".tmp-{os.getpid()}-{uuid.uuid4().hex}")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            try:
                # Small files' contents are in it.
                with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                    out.write(body)
                    out.write(digest(body))
                os.replace(temporary, self.file)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            logger.info("the stats of %s are not remembered: %s", self.root, error)


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
        memory = Memory(root, self._folder / f"{digest(os.fsencode(root)).hex()[:32]}.mp")
        if trust:
            memory.before = _read(memory.file, root)
        return memory


def _read(file: Path, root: str) -> dict[str, Remembered]:
    try:
        raw = file.read_bytes()
    except OSError:
        return {}
    body = memoryview(raw)[:-DIGEST_SIZE]
    if len(raw) < DIGEST_SIZE or digest(body) != raw[-DIGEST_SIZE:]:
        return {}
    try:
        stored = _decoder.decode(body)
    except msgspec.DecodeError:
        return {}
    return stored.folders if stored.version == VERSION and stored.root == root else {}


def pack_stats(found: Iterable[os.stat_result]) -> bytes:
    """Return `STAT_BYTES` for each."""
    flat = list(chain.from_iterable(map(_fields, found)))
    try:
        return array("q", flat).tobytes()
    except OverflowError:  # file systems that use all 64 bits of an inode's number
        return array("q", [number & _WORD for number in flat]).tobytes()


def sum_sizes(stats: bytes) -> int:
    """Return the bytes of content of all files."""
    return sum(array("q", stats)[1::4])


def forget(stats: bytes, numbers: Iterable[int]) -> bytes:
    """Return `stats` with what matches no file for those of `numbers`."""
    kept = bytearray(stats)
    for at in numbers:
        kept[at * STAT_BYTES : (at + 1) * STAT_BYTES] = _NEVER
    return bytes(kept)


def forget_fresh(stats: bytes, read_at_ns: int) -> bytes:
    """Return `stats` without those of files that had changed right before they were read, from `read_at_ns` on."""
    numbers = array("q", stats)
    changes = list(map(max, numbers[2::4], numbers[3::4]))
    fresh, maybe_fresh = read_at_ns - TICK_NS, read_at_ns - COARSE_TICK_NS
    if not changes or max(changes) < maybe_fresh:
        return stats
    return forget(
        stats,
        [
            number
            for number, changed in enumerate(changes)
            if changed >= maybe_fresh and (changed >= fresh or not changed % SECOND_NS)
        ],
    )
