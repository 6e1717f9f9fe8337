"""Rounds and what is said of them: contenders are measured in turn, so that the machine's moods meet them all."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise values.

        Examples
        --------
        >>> Spread.of([3.0, 1.0, 2.0])
        Spread(median=2.0, low=1.0, high=3.0)
        """
        return cls(statistics.median(values), min(values), max(values))

    def __format__(self, spec: str) -> str:
        if self.low == self.high:
            return format(self.median, spec)
        return f"{self.median:{spec}} ({self.low:{spec}}-{self.high:{spec}})"


def interleaved(contenders: Sequence[T], rounds: int, *, seed: int = 0) -> Iterator[tuple[int, T]]:
    """Yield (round, contender): all of them once a round, each round in another order.

    Examples
    --------
    >>> sorted(interleaved("ab", 2))
    [(0, 'a'), (0, 'b'), (1, 'a'), (1, 'b')]
    """
    rng = random.Random(seed)
    for number in range(rounds):
        for contender in rng.sample(list(contenders), len(contenders)):
            yield number, contender


def ratios(values: Sequence[float], bases: Sequence[float]) -> list[float]:
    """Divide round by round: what is compared was measured within the same minutes."""
    return [value / base for value, base in zip(values, bases, strict=True)]
