"""Results of a running job that a garbage collection took from under it.

A worker that finds content in the store does not store it again; nothing refers to that content until its segment is
there. If a collection was published between the two, the content may be gone. The controller publishes, so it looks:
once at a job's end, and only if a collection was published since the job began.
"""

from __future__ import annotations

from ...storage.digest import Digest
from ...storage.errors import NotFoundError
from ...storage.ledger.sweeps import read_list
from ...storage.objects.condemned import SweepList
from ...storage.objects.content import object_key
from ...storage.objects.node import node_key
from ...storage.objects.segment import Failure, Outcome
from ...storage.objects.value import Pieces, Value, Whole, decode_value
from ...storage.state import State
from ...storage.store import Store
from .results import Results

FAILURE = Failure(
    "collected",
    "its output was in the store already and was collected as garbage before this job could publish it: run again",
)


def find_collected(store: Store, state: State, job: str, results: Results) -> frozenset[bytes]:
    """Return the keys of datums whose stored results cannot be relied on as of `state`.

    Notes
    -----
    Nothing is read unless a collection was published since the job began; then its list, the segments' footers, and a
    request or two for each result that the list names.
    """
    known = state.job(job)
    if known is None:
        return frozenset()
    swept = [read_list(store.nodes, sweep) for _, sweep in state.sweeps(after=known.start_n)]
    if not swept:
        return frozenset()
    look = _Look(store, swept, results)
    return frozenset(
        key
        for key, finished, _ in results.rows()
        if finished.outcome == Outcome.OK and not all(look.is_sound(decode_value(raw)) for _, raw in finished.outputs)
    )


class _Look:
    def __init__(self, store: Store, swept: list[SweepList | None], results: Results) -> None:
        self._store = store
        self._all = any(found is None for found in swept)
        self._keys = {key for found in swept if found is not None for key in found.keys}
        self._blobs = {name for found in swept if found is not None for name in found.blobs}
        self._own = {name for key, footer in results.footers() for name, _ in footer.locations(key)}

    def is_sound(self, value: Value) -> bool:
        match value:
            case Whole(size, name):
                return self._blob(Digest(name), size)
            case Pieces():
                name = Digest(value.manifest)
                if (self._all or node_key(name) in self._keys) and not self._store.nodes.is_sound(name):
                    return False
                try:
                    pieces = self._store.objects.manifest(value).pieces
                except NotFoundError:
                    return False
                return all(self._blob(Digest(piece.hash), piece.size) for piece in pieces)
            case _:
                return True

    def _blob(self, name: Digest, size: int) -> bool:
        if name in self._own:
            return True
        named = self._all or name in self._blobs or object_key(name) in self._keys
        return not named or self._store.objects.is_sound(name, size)
