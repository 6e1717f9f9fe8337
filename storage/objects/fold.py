"""Fold objects: which segments of a running job count, so that taking it up again costs the same whatever its size."""

from __future__ import annotations

import msgspec

from ..errors import FormatError
from ..sealed import decode_msgpack, encode_msgpack
from .segment import SEGMENT_PREFIX

VERSION = 1


class FoldObject(msgspec.Struct, frozen=True, kw_only=True):
    """What a fold object says. Derived from the segments that it covers."""

    v: int = VERSION
    segments: tuple[str, ...]
    """Covered so far, in fold order."""
    done: str
    """Root of the tree of finished datums, hex."""
    open: int
    """Oldest fold whose segments may still arrive."""
    check: bytes = b""
    """See `sealed`."""


def fold_key(job: str, fold: int) -> str:
    """Key of the fold object that closes `fold`."""
    return f"{SEGMENT_PREFIX}/{job}/fold-{fold:06d}"


def is_fold_key(key: str) -> bool:
    """Whether this is the key of a fold object."""
    return key.startswith(f"{SEGMENT_PREFIX}/") and key.rpartition("/")[2].startswith("fold-")


def encode_fold(fold: FoldObject) -> bytes:
    """Return the object's bytes."""
    return encode_msgpack(fold)


def decode_fold(raw: bytes, key: str) -> FoldObject:
    """Parse the object under `key`.

    Raises
    ------
    CorruptError
        It is damaged.
    FormatError
        It was written by a later version.
    """
    fold = decode_msgpack(raw, FoldObject, key)
    if fold.v != VERSION:
        raise FormatError(f"{key} has version {fold.v}: expected {VERSION}", hint="upgrade dmlpipe")
    return fold
