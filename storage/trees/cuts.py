"""Where the nodes of a prolly tree end.

Whether a node ends after an entry depends on the entry's key, the level, and how many entries the node has: never
before t/4 of them, always at 4t; between, if the key's hash falls below a threshold that is low until t and high after
it. Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import NamedTuple
from zlib import crc32

_MASK = (1 << 64) - 1
_ONE = 0xFF51AFD7ED558CCD
_TWO = 0xC4CEB9FE1A85EC53

_LANES = 1024
_LANE = Struct("<" + "Q8x" * _LANES)
_IN_EACH = int.from_bytes(_LANE.pack(*[1] * _LANES), "little")
_LOWER = _MASK * _IN_EACH


def mix(key: bytes, level: int) -> int:
    """Split "crc32-fmix64-v1": murmur3's finaliser over the key's crc32 and the level."""
    h = crc32(key) | (level + 1) << 32
    h = ((h ^ (h >> 33)) * _ONE) & _MASK
    h = ((h ^ (h >> 33)) * _TWO) & _MASK
    return h ^ (h >> 33)


class CutRule(NamedTuple):
    """When a node ends."""

    least: int
    """No node that is not the last of its level has fewer entries."""
    target: int
    most: int
    low: int
    """Threshold below `target` entries."""
    high: int
    """Threshold from `target` entries on."""

    @classmethod
    def of(cls, target: int) -> CutRule:
        """Return the rule for nodes that aim at `target` entries."""
        least = max(1, target // 4)
        return cls(least, target, target * 4, (1 << 64) // (4 * target), (1 << 64) // least)

    def ends(self, key: bytes, level: int, count: int) -> bool:
        """Whether a node ends with the entry `key`, its `count`-th."""
        if count < self.least:
            return False
        return count >= self.most or mix(key, level) < (self.low if count < self.target else self.high)


def find_cuts(keys: Sequence[bytes], level: int, target: int) -> Iterator[int]:
    """Yield the number of keys before each cut that `keys`, which begin a node, have for certain.

    Notes
    -----
    The same as asking `CutRule.ends` for each key, but the hashes are computed many at a time: a tree of a million
    entries is cut in a few tenths of a second.
    """
    rule = CutRule.of(target)
    _, _, most, low, high = rule
    candidates = list(_mixed_below(keys, level, high))
    places = [place for place, _ in candidates]
    start = 0
    while True:
        stop = start + most
        at = bisect_left(places, start + rule.least - 1)
        while at < len(places) and places[at] < stop - 1:
            place, h = candidates[at]
            if place - start + 1 >= target or h < low:
                stop = place + 1
                break
            at += 1
        if stop > len(keys):
            return
        yield stop
        start = stop


def _mixed_below(keys: Sequence[bytes], level: int, limit: int) -> Iterator[tuple[int, int]]:
    """Yield (place, `mix`) of the keys for which that is below `limit`: few of them."""
    # `mix` for `_LANES` keys at once, in one large integer. A key has 128 bits of it. The upper 64 are zero but right
    # after a multiplication, which so cannot reach the next key's, and after a shift.
    salt = ((level + 1) << 32) * _IN_EACH
    is_low = bytes(byte <= limit >> 56 for byte in range(256))
    for start in range(0, len(keys), _LANES):
        part = keys[start : start + _LANES]
        crcs = _LANE.pack(*map(crc32, part), *bytes(_LANES - len(part)))
        h = int.from_bytes(crcs, "little") | salt
        h = ((h ^ (h >> 33 & _LOWER)) * _ONE) & _LOWER
        h = ((h ^ (h >> 33 & _LOWER)) * _TWO) & _LOWER
        mixed = (h ^ (h >> 33 & _LOWER)).to_bytes(_LANE.size, "little")
        marks = mixed[7 : 16 * len(part) : 16].translate(is_low)
        place = marks.find(1)
        while place >= 0:
            found = int.from_bytes(mixed[16 * place : 16 * place + 8], "little")
            if found < limit:
                yield start + place, found
            place = marks.find(1, place + 1)
