"""How two ledgers compare: equal, one a beginning of the other, or grown apart.

An entry's hash covers all entries before it. So if two ledgers have the same hash at one number they are equal up to
there, and where they part is found by bisection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..digest import digest
from ..errors import ConflictError
from ..ledger.ledger import decode_entry, entry_key
from ..store import Store

HashOf = Callable[[int], str]
"""Hash of the entry of a number."""


@dataclass(frozen=True, slots=True)
class Relation:
    """Where two ledgers stand to each other."""

    common: int
    """Last entry that both have; -1: none."""
    here: int
    """Last entry of the one."""
    there: int
    """Last entry of the other."""

    @property
    def diverged(self) -> bool:
        """Whether each has an entry that the other lacks."""
        return self.common < min(self.here, self.there)


def compare(here: int, there: int, hash_here: HashOf, hash_there: HashOf) -> Relation:
    """Compare two ledgers by their last numbers and entries' hashes. Pure but for what the two functions read.

    Examples
    --------
    >>> one, two = ["a", "b", "c"], ["a", "x"]
    >>> compare(2, 1, one.__getitem__, two.__getitem__)
    Relation(common=0, here=2, there=1)
    """
    low, high = -1, min(here, there)  # equal up to `low`; the answer is not above `high`
    probe = high
    while low < high:
        if hash_here(probe) == hash_there(probe):
            low = probe
        else:
            high = probe - 1
        probe = (low + high + 1) // 2
    return Relation(low, here, there)


def relate(one: Store, other: Store) -> Relation:
    """Compare the ledgers of two copies of a store.

    Raises
    ------
    ConflictError
        They are copies of different stores, or their ledgers have grown apart: the first entry that differs is named.

    Notes
    -----
    Two requests to each if one's ledger is a beginning of the other's.
    """
    if one.repo_id != other.repo_id:
        raise ConflictError(
            f"{other.url} is another store than {one.url}: its id is {other.repo_id}, not {one.repo_id}",
            hint="only clones of one store can be synchronised; make one: dmlpipe store clone",
        )
    here, there = one.refresh(), other.refresh()
    relation = compare(here.n, there.n, lambda n: _hash(one, n), lambda n: _hash(other, n))
    if relation.diverged:
        first = relation.common + 1
        raise ConflictError(
            f"the two stores have grown apart at ledger entry {first}: "
            f"{one.url} has {_describe(one, first)}, {other.url} has {_describe(other, first)}",
            hint="one of them must give way: look with dmlpipe --store URL log --ledger, put again what is missing",
        )
    return relation


def _hash(store: Store, n: int) -> str:
    state = store.state
    return state.chain if n == state.n else digest(store.backend.get(entry_key(n))).hex()


def _describe(store: Store, n: int) -> str:
    data = store.backend.get(entry_key(n))
    entry = decode_entry(data, n)
    return f"{digest(data).hex()[:12]} by {entry.actor} at {entry.ts}"
