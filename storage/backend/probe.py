"""Does exclusive create hold on this medium? Asked once, when a store is made."""

from __future__ import annotations

import threading

from ..errors import BackendError, ErrorCode
from ..tokens import token_bytes, token_hex
from .base import Backend

PROBE_PREFIX = "probe/"


def is_vacant(backend: Backend) -> bool:
    """Whether a place holds nothing, but for what a probe left that was interrupted."""
    return all(key.startswith(PROBE_PREFIX) for key, _ in backend.list(""))


def probe_exclusive_create(backend: Backend) -> None:
    """Create one key from two threads at once, then again, and demand one winner whose bytes stay.

    Some S3 servers accept the conditional header and ignore it; a ledger on one of those would lose entries.

    Raises
    ------
    BackendError
        With code `UNSAFE_BACKEND` if there was not exactly one winner; otherwise as the medium failed.
    """
    key = f"{PROBE_PREFIX}{token_hex(16)}"
    gate = threading.Barrier(2)
    bodies = [token_bytes(64), token_bytes(64)]
    won = [False, False]
    errors: list[BaseException] = []

    def create(index: int) -> None:
        try:
            gate.wait(timeout=30)
            won[index] = backend.put_if_absent(key, bodies[index])
        except (BackendError, threading.BrokenBarrierError) as err:
            errors.append(err)

    threads = [threading.Thread(target=create, args=(i,), daemon=True) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        if errors:
            raise errors[0]
        again = backend.put_if_absent(key, token_bytes(64))
        stored = backend.get(key)
        if sum(won) != 1 or again or stored != bodies[won.index(True)]:
            raise BackendError(
                f"{backend.url} does not create exclusively: {sum(won) + again} of 3 writers of a key won, not 1",
                code=ErrorCode.UNSAFE_BACKEND,
                hint="this server ignores If-None-Match; use a newer version of it, or another medium",
            )
    finally:
        backend.delete_many([key])
