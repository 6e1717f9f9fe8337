"""Where the nodes of a prolly tree end.

Whether a node ends after an entry depends on the entry's key, the level, and how many entries the node has: never
before t/4 of them, always at 4t; between, if the key's hash falls below a threshold that is low until t and high after
it. Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from zlib import crc32

_MASK = (1 << 64) - 1
_ONE = 0xFF51AFD7ED558CCD
_TWO = 0xC4CEB9FE1A85EC53


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
    The same as asking `CutRule.ends` for each key, but the hashes are computed in one go: a tree of a million entries
    is cut in a few tenths of a second.
    """
    rule = CutRule.of(target)
    _, _, most, low, high = rule
    salt, mask, one, two = (level + 1) << 32, _MASK, _ONE, _TWO
    # `mix` written out. What it is for a key matters only where it is below the higher threshold: one in t/4.
    mixed = [((h := (((h := crc | salt) ^ h >> 33) * one & mask)) ^ h >> 33) * two & mask for crc in map(crc32, keys)]
    candidates = [(place, h) for place, h in enumerate([h ^ h >> 33 for h in mixed]) if h < high]
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
