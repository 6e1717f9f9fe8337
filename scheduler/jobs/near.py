"""The large files that every datum of a job reads: a host that has them in its cache is near the job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from ...storage.digest import from_hex
from ...storage.objects.cache import content_name
from ...storage.objects.value import Value, decode_value
from ...storage.store import Store
from ...worker.job import JobInput

NEAR_MIN_BYTES = 1 << 20
"""Smaller files are fetched faster than anybody could be waited for, and peers do not hand them out."""
NEAR_MAX = 8
_LOOKED_AT = 100
"""Files of an input that are looked at: a model has a few; a million files are nobody's model."""


def near_files(store: Store, inputs: Sequence[JobInput]) -> tuple[bytes, ...]:
    """Return the names that the largest files of the constant inputs have in a host's cache, at most `NEAR_MAX`."""
    found = [
        value
        for item in inputs
        if item.constant and item.tree
        for value in islice(_files(store, item), _LOOKED_AT)
        if value.size >= NEAR_MIN_BYTES
    ]
    found.sort(key=lambda value: -value.size)
    return tuple(content_name(value) for value in found[:NEAR_MAX])


def _files(store: Store, item: JobInput) -> Iterator[Value]:
    tree, path = store.tree(from_hex(item.tree)), item.path.strip("/")
    if not path:
        yield from (decode_value(raw) for _, raw in tree.scan())
        return
    raw = tree.get(path.encode())
    if raw is not None:
        yield decode_value(raw)
        return
    yield from (decode_value(raw) for _, raw in tree.prefix(path.encode() + b"/"))
