"""Put back ledger entries that were damaged or lost, from a clone.

Nothing is rewritten: an entry is put back only where its bytes are those that the chain says it had. It follows the
sound entry before it, and the first sound one after it follows it; at the very end of the ledger, where nothing
follows, it must be what this machine has seen, or the last entry that a clone of this very store has.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..backend import Backend
from ..digest import digest
from ..errors import CorruptError, FormatError, NotFoundError
from ..ledger.heads import SeenHead
from ..ledger.ledger import decode_entry, entry_key
from ..state import ZERO_HASH
from .history import last_entry
from .mirrors import Mirror


def plan_ledger(
    backend: Backend, mirrors: Sequence[Mirror], first: int, seen: SeenHead | None
) -> tuple[dict[int, bytes], str] | None:
    """Return the entries to put back, by number, and where they are from; None if no mirror has them.

    Parameters
    ----------
    first
        The entry that is not sound; the one before it is.
    """
    before = _hash_of(backend, first - 1) if first else ZERO_HASH
    if before is None:
        return None
    last = max(last_entry(backend), seen.n if seen is not None else -1, first)
    for mirror in mirrors:
        found = _from_mirror(backend, mirror, first, before, last, seen)
        if found is not None:
            return found, mirror.backend.url
    return None


def _from_mirror(
    backend: Backend, mirror: Mirror, first: int, before: str, last: int, seen: SeenHead | None
) -> dict[int, bytes] | None:
    found: dict[int, bytes] = {}
    n, chain = first, before
    while True:
        data = mirror.entry(entry_key(n))
        if data is None or _prev(data, n) != chain:
            return None
        found[n] = data
        chain = digest(data).hex()
        if seen is not None and seen.n == n and seen.hash != chain:
            return None
        if n >= last:
            return found  # nothing follows that could say otherwise
        after = _stored_prev(backend, n + 1)
        if after == chain:
            return found
        n += 1


def _hash_of(backend: Backend, n: int) -> str | None:
    try:
        return digest(backend.get(entry_key(n))).hex()
    except NotFoundError:
        return None


def _stored_prev(backend: Backend, n: int) -> str | None:
    try:
        return _prev(backend.get(entry_key(n)), n)
    except NotFoundError:
        return None


def _prev(data: bytes, n: int) -> str | None:
    try:
        return decode_entry(data, n).prev
    except (CorruptError, FormatError):
        return None
