"""Datum results as they are stored: rows in the footer of a pack.

A segment is ``results/<job>/<fold>/<worker>-<seq>.seg``: a pack (see `pack.py`) whose footer also holds rows.
A row that is not in a stored segment does not exist: a worker stores first and reports then.
"""

from __future__ import annotations

import enum

import msgspec


class Outcome(enum.IntEnum):
    """What became of a datum. Append-only."""

    OK = 0
    FAILED = 1
    RECOVERED = 2


class Failure(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Why a datum failed."""

    kind: str
    """Exception type with its module (`PIL.UnidentifiedImageError`), or `exit`, `signal`, `timeout`, `lost`."""
    message: str
    where: str = ""
    """`dag.py:24 in __call__`: the last frame of the user's own code."""
    line: str = ""
    """That line's text."""
    traceback: str = ""
    """Cut to the user's frames."""


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The result of one datum."""

    key: bytes
    """Datum key."""
    fingerprint: bytes
    outcome: Outcome
    outputs: list[tuple[str, bytes]]
    """(path without leading slash, encoded value), sorted by path; empty unless `OK`."""
    tries: int
    seconds: float
    log: bytes = b""
    """Hash of the blob that holds what the datum printed; empty if it printed nothing."""
    failure: Failure | None = None
    ended: float = 0.0
    """When the datum ended, Unix seconds by its worker's clock: for people, nothing is decided by it. 0: not known."""
    slot: int = -1
    """Of its worker; -1: not known."""


class SegmentMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Who wrote a segment."""

    job: str
    fold: int
    worker: str
    seq: int
    host: str
    versions: dict[str, str] = {}
    """Third-party packages that the user code had imported, with versions."""


SEGMENT_PREFIX = "results"


def segment_key(job: str, fold: int, worker: str, seq: int) -> str:
    """Key of a segment. Sorting keys sorts by (fold, worker, seq)."""
    return f"{SEGMENT_PREFIX}/{job}/{fold:06d}/{worker}-{seq:08d}.seg"


_row_encoder = msgspec.msgpack.Encoder()
_row_decoder: msgspec.msgpack.Decoder[list[Row] | None] = msgspec.msgpack.Decoder(list[Row] | None)


def encode_rows(rows: list[Row]) -> msgspec.Raw:
    """Rows as they stand in a pack's footer."""
    return msgspec.Raw(_row_encoder.encode(rows))


def decode_rows(data: msgspec.Raw) -> list[Row]:
    """Inverse of `encode_rows`; no rows of a footer that has none."""
    return _row_decoder.decode(data) or []
