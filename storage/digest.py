"""Names of content: blake3-256 of the uncompressed bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NewType

from blake3 import blake3

Digest = NewType("Digest", bytes)
"""32 bytes. In text (ledger, messages, file names) 64 lower-case hex digits."""

DIGEST_SIZE = 32

Data = bytes | bytearray | memoryview


def digest(data: Data) -> Digest:
    """Return the name of `data`."""
    return Digest(blake3(data).digest())


def digest_parts(parts: Iterable[Data]) -> Digest:
    """Return the name of the concatenation of `parts`, without joining them."""
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return Digest(hasher.digest())


def from_hex(text: str) -> Digest:
    """Parse 64 hex digits; raise `ValueError` for anything else."""
    raw = bytes.fromhex(text)
    if len(raw) != DIGEST_SIZE:
        raise ValueError(f"a digest has 64 hex digits, got {len(text)}: {text!r}")
    return Digest(raw)


def short(name: Digest | str) -> str:
    """First 12 hex digits, for messages."""
    return (name if isinstance(name, str) else name.hex())[:12]
