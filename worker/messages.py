"""What a worker and the scheduler's lease pool say to each other: one RPC, `dml_lease`, report and take in one.

A *lease* is given to one slot of one worker. It goes through three states at the worker: *held* (datums begun or
waiting), *computed* (every datum tried, results perhaps only in memory) and *stored* (a `Stored` report covers every
datum). The worker answers for a lease until it is stored or given back: a report of what is not stored does not exist.

Both sides send plain msgpack (`encode_request`, ...): nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from ..storage.objects.segment import Failure
from .job import Lease

PROTOCOL = 1
"""Raised when a message changes its meaning; a scheduler refuses workers of another number, by `LeaseReply.error`."""

COMPARED_PACKAGES = ("distributed",)
"""Beside dmlpipe itself: what must be of one version at both ends of a comm."""

MAX_FAILURES_REPORTED = 100
"""Failures of one job that a worker reports with their cause; the rows in the segments are complete."""


class Computed(msgspec.Struct, frozen=True, array_like=True):
    """Progress of a lease since the last report about it. Computed is not yet stored."""

    lease: int
    done: int
    """Datums that ended in any way, failed ones included."""
    failed: int
    seconds: float
    """Sum of the datums' own seconds: what the pool's lease sizes follow."""


class FailedDatum(msgspec.Struct, frozen=True, array_like=True):
    """A datum that used up its tries."""

    job: str
    key: bytes
    failure: Failure


class StoredLease(msgspec.Struct, frozen=True, array_like=True):
    """Datums of one lease that a stored segment covers."""

    lease: int
    indexes: tuple[int, ...]
    """Indexes in the lease's block, `start` <= index < `stop`, ascending."""


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """A segment that is in the store."""

    job: str
    key: str
    """The segment's object key."""
    fold: int
    leases: tuple[StoredLease, ...]
    rows: int
    failed: int


class GivenBack(msgspec.Struct, frozen=True, array_like=True):
    """Datums [start, stop) of a lease that the worker will not begin."""

    lease: int
    start: int
    stop: int


class LeaseRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A slot (or, with `slot` -1, the worker itself) reports and asks."""

    protocol: int
    version: str
    """dmlpipe's version at the worker."""
    worker: str
    """Name of the worker, unique among all workers that ever wrote to the store."""
    packages: dict[str, str] = {}
    """Versions of what both sides must have alike, until the scheduler has answered once."""
    slot: int
    want: int = 0
    """Leases wanted: 0 or 1."""
    wait_s: float = 0.0
    """The reply may be held back so long when there is nothing to say (long poll)."""
    returned: tuple[Computed, ...] = ()
    failures: tuple[FailedDatum, ...] = ()
    stored: tuple[Stored, ...] = ()
    giving_back: tuple[GivenBack, ...] = ()
    running: int = 0
    """Datums in this slot's hands that were begun and have not ended."""
    draining: bool = False
    """The worker is about to leave: give it nothing more."""


class Expected(msgspec.Struct, frozen=True, array_like=True):
    """Datums [start, stop) of a block of the lease's job that will probably be the next lease of this slot."""

    block: str
    start: int
    stop: int


class LeaseReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the pool answers."""

    lease: Lease | None = None
    expected: Expected | None = None
    """With a lease: what to fetch the inputs of meanwhile. It may come to another slot all the same."""
    flush: bool = False
    """Nothing to give: store what is computed now (a job's end waits for it)."""
    cancelled: tuple[str, ...] = ()
    """Jobs that were cancelled: end what runs, flush what is computed, begin no more of their datums."""
    stop: bool = False
    """Flush and end the process."""
    error: str = ""
    """The scheduler refuses this worker (protocol, version); it ends with this text."""


class LeaseSource(Protocol):
    """Where a worker's leases come from."""

    async def lease(self, request: LeaseRequest) -> LeaseReply:
        """Report and take. Raises `ConnectionError` or `OSError` when the scheduler is gone for good.

        May be called concurrently, once per slot and once for the worker. A request that was answered is processed
        exactly once; one that failed may or may not have been, and the worker then ends.
        """
        ...

    def on_recall(self, recall: Callable[[int], None]) -> None:
        """Call `recall` with the number of a lease of which the worker is to give back what it need not begin.

        A recall may get lost, come twice, or name a lease that has ended.
        """
        ...


_request_decoder = msgspec.msgpack.Decoder(LeaseRequest)
_reply_decoder = msgspec.msgpack.Decoder(LeaseReply)


def encode_request(request: LeaseRequest) -> bytes:
    """Bytes of a request."""
    return msgspec.msgpack.encode(request)


def decode_request(data: bytes) -> LeaseRequest:
    """Inverse of `encode_request`."""
    return _request_decoder.decode(data)


def encode_reply(reply: LeaseReply) -> bytes:
    """Bytes of a reply."""
    return msgspec.msgpack.encode(reply)


def decode_reply(data: bytes) -> LeaseReply:
    """Inverse of `encode_reply`."""
    return _reply_decoder.decode(data)
