"""The content of a store: reading (`content.py`) and writing (`writer.py`) behind one name."""

from __future__ import annotations

from .content import Content, Manifest, Piece, encode_manifest, object_key, plan_coalesced
from .pack import PackBuilder
from .writer import ObjectWriter, Written

__all__ = [
    "Manifest",
    "ObjectWriter",
    "Objects",
    "Piece",
    "Written",
    "encode_manifest",
    "object_key",
    "plan_coalesced",
]


class Objects(Content):
    """Content of a store, read and written. See `Content` for its parameters."""

    def writer(self, *, builder: PackBuilder | None = None) -> ObjectWriter:
        """Return a new writer; with `builder`, one whose small blobs go there for the caller to store."""
        return ObjectWriter(self, builder)
