"""Stats of local files, packed: by which an unchanged file is known, and when they may not be trusted.

A file counts as unchanged if its inode, size, modification and change times are those it had when it was read, and if
that was not right after its last change: a file that is written twice within a tick of the file system's clock has
one time for two contents. Such stats are forgotten at once ("racily clean", as git calls them).
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable
from itertools import chain
from operator import attrgetter

STAT_BYTES = 32
"""Inode, size, modification time, change time: 8 bytes each."""

TICK_NS = 50_000_000
"""Longer than what lies between two times that a file system gives."""
COARSE_TICK_NS = 2_000_000_000
"""The same where it gives whole seconds."""
SECOND_NS = 1_000_000_000
_WORD = (1 << 63) - 1
NEVER = b"\xff" * STAT_BYTES
"""What matches no file."""
_fields = attrgetter("st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")


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
        kept[at * STAT_BYTES : (at + 1) * STAT_BYTES] = NEVER
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


def differing(one: bytes, other: bytes) -> list[int]:
    """Return the numbers of the files whose stats differ."""
    if one == other:
        return []
    size = STAT_BYTES
    return [at // size for at in range(0, len(one), size) if one[at : at + size] != other[at : at + size]]


def replace(stats: bytes, numbers: Iterable[int], news: bytes) -> bytes:
    """Return `stats` with `news`, one after the other, in the places of those of `numbers`."""
    changed = bytearray(stats)
    for place, at in enumerate(numbers):
        changed[at * STAT_BYTES : (at + 1) * STAT_BYTES] = news[place * STAT_BYTES : (place + 1) * STAT_BYTES]
    return bytes(changed)
