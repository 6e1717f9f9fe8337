"""What the controller and the scheduler's lease pool say to each other: one RPC, `dml_control`.

Both sides send plain msgpack. Each request names its *session*: one controller drives a pool at a time, and a newer
session ends the older one's jobs before it begins. Requests may be repeated: all are idempotent, and events stay until
a `Poll` acknowledges them.
"""

from __future__ import annotations

import msgspec

from ...worker.messages import Stored
from .executor import JobOffer
from .job_status import JobStatus
from .pool_events import PoolEvent

__all__ = [
    "CONTROL_PROTOCOL",
    "AddBlock",
    "AdvanceFold",
    "Bye",
    "Cancel",
    "ControlReply",
    "ControlRequest",
    "EndBlocks",
    "Hello",
    "NumberedEvent",
    "Offer",
    "Poll",
    "Settle",
    "Status",
    "decode_reply",
    "decode_request",
    "encode_reply",
    "encode_request",
]

CONTROL_PROTOCOL = 1


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """Begin a session. Answered when the jobs of the one before have ended: what they computed is stored."""

    session: str
    protocol: int
    version: str
    drain_s: float = 10.0
    """How long workers may take to store what they computed for the session before."""


class Offer(msgspec.Struct, frozen=True, kw_only=True, tag="offer"):
    """`Executor.offer`."""

    session: str
    offer: JobOffer


class AddBlock(msgspec.Struct, frozen=True, kw_only=True, tag="add-block"):
    """`Executor.add_block`."""

    session: str
    job: str
    block: str
    count: int


class EndBlocks(msgspec.Struct, frozen=True, kw_only=True, tag="end-blocks"):
    """`Executor.end_blocks`."""

    session: str
    job: str


class AdvanceFold(msgspec.Struct, frozen=True, kw_only=True, tag="advance-fold"):
    """`Executor.advance_fold`."""

    session: str
    job: str
    fold: int


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag="cancel"):
    """`Executor.cancel`."""

    session: str
    job: str


class Settle(msgspec.Struct, frozen=True, kw_only=True, tag="settle"):
    """What a lost worker had stored of a job without saying so: the answer to `WorkerLost`."""

    session: str
    job: str
    worker: str
    stored: tuple[Stored, ...]


class Poll(msgspec.Struct, frozen=True, kw_only=True, tag="poll"):
    """Events after number `ack`; waits up to `wait_s` for one."""

    session: str
    ack: int
    wait_s: float


class Status(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    """What the pool holds. Needs no session."""


class Bye(msgspec.Struct, frozen=True, kw_only=True, tag="bye"):
    """End the session: its jobs are cancelled."""

    session: str
    stop_workers: bool = False
    """Let the workers store what they computed and end."""


ControlRequest = Hello | Offer | AddBlock | EndBlocks | AdvanceFold | Cancel | Settle | Poll | Status | Bye


class NumberedEvent(msgspec.Struct, frozen=True, array_like=True):
    """An event and its number in the session, from 1."""

    number: int
    event: PoolEvent


class ControlReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the scheduler answers."""

    error: str = ""
    """The request was refused."""
    superseded: bool = False
    """Another session drives this pool now."""
    events: tuple[NumberedEvent, ...] = ()
    jobs: tuple[JobStatus, ...] = ()
    workers: int = 0
    slots: int = 0
    driven: bool = False
    """A controller's session is open."""
    refused: tuple[str, ...] = ()
    """Why workers were turned away."""
    from_store: int = 0
    """Bytes of files from 1 MiB on that hosts took from the store since the scheduler began."""
    from_peers: int = 0
    """The same, from each other."""


_request_decoder: msgspec.msgpack.Decoder[ControlRequest] = msgspec.msgpack.Decoder(ControlRequest)
_reply_decoder = msgspec.msgpack.Decoder(ControlReply)


def encode_request(request: ControlRequest) -> bytes:
    """Bytes of a request."""
    return msgspec.msgpack.encode(request)


def decode_request(data: bytes) -> ControlRequest:
    """Inverse of `encode_request`."""
    return _request_decoder.decode(data)


def encode_reply(reply: ControlReply) -> bytes:
    """Bytes of a reply."""
    return msgspec.msgpack.encode(reply)


def decode_reply(data: bytes) -> ControlReply:
    """Inverse of `encode_reply`."""
    return _reply_decoder.decode(data)
