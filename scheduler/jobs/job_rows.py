"""Where a job's rows are: the index of its segments, and the tree from datum to row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import msgspec

from ...storage.digest import Digest
from ...storage.objects.condemned import found_place
from ...storage.objects.content import object_key
from ...storage.objects.index import index_key
from ...storage.objects.node import node_key
from ...storage.objects.value import PACK_BELOW_BYTES, Pieces, Whole, decode_value, is_inline
from ...storage.store import Store
from .results import Results
from .twins import Done

__all__ = ["PlacedRows", "place_rows"]

_encode = msgspec.msgpack.Encoder().encode


@dataclasses.dataclass(frozen=True, slots=True)
class PlacedRows:
    """What a job's end says of its rows."""

    index: str = ""
    """Key of the index of blobs in segments; empty: there are none."""
    segments: tuple[str, ...] = ()
    """Keys, sorted."""
    tree: str = ""
    """Root of datum key to (segment, row), hex; empty: no row."""
    sync: tuple[str, ...] = ()
    """Keys that must be durable before the job's end is published."""


def place_rows(store: Store, results: Results, rows: Iterable[Done]) -> PlacedRows:
    """Write the index of a job's segments and the tree of its rows.

    Parameters
    ----------
    rows
        What is finished, sorted by key.
    """
    if not results.segments:
        return PlacedRows()
    index = ""
    sync: list[str] = []
    data = results.index()
    if data is not None:
        index = index_key(data)
        store.backend.put_if_absent(index, data)
        sync.append(index)
    loose: dict[str, None] = {}
    tree = store.tree("").updated(_placed(store, rows, loose), 0)
    segments = tuple(sorted(results.segments))
    sync += segments
    # What is on a remote store is durable.
    if not store.backend.properties.remote:
        sync += [found_place(store.backend, store.nodes.condemned, key) for key in loose]
    return PlacedRows(index, segments, tree.root.hex(), tuple(sync))


def _placed(store: Store, rows: Iterable[Done], loose: dict[str, None]) -> Iterator[tuple[bytes, bytes]]:
    """Yield (datum key, where its row is); note the objects that workers stored beside their segments."""
    for key, finished, segment in rows:
        yield key, _encode((segment, finished.row))
        for _, raw in finished.outputs:
            if is_inline(raw):
                continue
            match decode_value(raw):
                case Whole(size=size, hash=name) if size >= PACK_BELOW_BYTES:
                    loose[object_key(Digest(name))] = None
                case Pieces() as value:
                    loose[node_key(Digest(value.manifest))] = None
                    pieces = store.objects.manifest(value).pieces
                    loose |= {object_key(Digest(p.hash)): None for p in pieces if p.size >= PACK_BELOW_BYTES}
                case _:
                    continue
