"""What a worker and the scheduler's tracker say to each other: one RPC, `dml_peers`.

A worker that lacks parts of a file says what it has, what is on its way to it, what failed, and how many parts it
wants; the tracker answers with parts and whom to take each from. Every request carries the worker's whole view of that
file, so a lost answer, a repeated request or a new tracker do no harm.

Both sides send plain msgpack: nothing is ever unpickled.
"""

from __future__ import annotations

import enum

import msgspec

PEER_PROTOCOL = 1
"""Raised when a message changes its meaning. Who speaks another number is refused, and reads from the store."""

STORE = ""
"""The source that is no peer."""


class Reason(enum.IntEnum):
    """Why a part did not come from where it was to come from. Append-only."""

    GARBAGE = 0
    """It was not what its name says: never ask that peer again."""
    STALLED = 1
    """It did not come in time."""
    GONE = 2
    """Nobody answers there."""
    ABSENT = 3
    """The peer does not hold it any more."""
    BUSY = 4
    """The peer hands out as much as it may."""
    STORE = 5
    """The store did not give it."""


class Failed(msgspec.Struct, frozen=True, array_like=True):
    """A part that did not come."""

    part: int
    source: str
    """The peer's name, or `STORE`."""
    reason: Reason


class Announce(msgspec.Struct, frozen=True, kw_only=True, tag="announce", omit_defaults=True):
    """A worker joins: where it is, and what its host's cache holds."""

    protocol: int
    worker: str
    address: str
    """Where it serves parts."""
    cache: str
    """Equal for workers that share a cache."""
    files: tuple[bytes, ...] = ()
    """Whole files, by the names that they have in the cache."""


class Fill(msgspec.Struct, frozen=True, kw_only=True, tag="fill", omit_defaults=True):
    """A worker fills a file."""

    protocol: int
    worker: str
    address: str
    cache: str
    file: bytes
    """Its name in the cache."""
    parts: int
    part_bytes: int
    """Size of its largest part."""
    have: bytes
    """The parts that are there: bit n of this little-endian number is part n."""
    flying: tuple[int, ...] = ()
    """Parts that were asked for and neither came nor failed."""
    failed: tuple[Failed, ...] = ()
    want: int = 0
    """Parts to be named."""
    wait_s: float = 0.0
    """The answer may be held back so long while there is nothing to name."""
    ended: bool = False
    """The worker stops filling, done or not."""
    from_store: int = 0
    from_peers: int = 0
    """Bytes that came since the last request."""


PeerRequest = Announce | Fill


class Take(msgspec.Struct, frozen=True, array_like=True):
    """A part, and whom to take it from."""

    part: int
    source: str
    """A worker's name, or `STORE`."""
    address: str = ""


class PeerReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the tracker answers."""

    take: tuple[Take, ...] = ()
    error: str = ""
    """The tracker will not have this worker; it reads from the store."""


_request_decoder: msgspec.msgpack.Decoder[PeerRequest] = msgspec.msgpack.Decoder(PeerRequest)
_reply_decoder = msgspec.msgpack.Decoder(PeerReply)


def encode_peer_request(request: PeerRequest) -> bytes:
    """Bytes of a request."""
    return msgspec.msgpack.encode(request)


def decode_peer_request(data: bytes) -> PeerRequest:
    """Inverse of `encode_peer_request`."""
    return _request_decoder.decode(data)


def encode_peer_reply(reply: PeerReply) -> bytes:
    """Bytes of a reply."""
    return msgspec.msgpack.encode(reply)


def decode_peer_reply(data: bytes) -> PeerReply:
    """Inverse of `encode_peer_reply`."""
    return _reply_decoder.decode(data)


def pack_bits(bits: int) -> bytes:
    """A set of parts as bytes."""
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def unpack_bits(data: bytes) -> int:
    """Inverse of `pack_bits`."""
    return int.from_bytes(data, "little")
