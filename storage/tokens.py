"""Random bytes for names that nobody else chooses.

What `secrets` gives, whose import loads OpenSSL and more: too much for what every command waits for.
"""

from __future__ import annotations

import os


def token_bytes(size: int) -> bytes:
    """Return so many random bytes, from the operating system."""
    return os.urandom(size)


def token_hex(size: int) -> str:
    """Return so many random bytes as hex digits, two for each."""
    return os.urandom(size).hex()
