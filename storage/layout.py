"""Every kind of object that a store holds, by its key: the table in §1 of docs/format.md."""

from __future__ import annotations

import enum
import re


class Kind(enum.StrEnum):
    """What an object is. Whoever adds one says in `docs/format.md` how damage to it is noticed."""

    INFO = r"dmlpipe\.json"
    ENTRY = r"ledger/[0-9]{9}/[0-9]{12}\.json"
    CHECKPOINT = r"ledger/ckpt/[0-9]{12}\.mpz"
    NODE = r"nodes/[0-9a-f]{2}/[0-9a-f]{62}(\.[0-9a-f]{16})?"
    OBJECT = r"objects/[0-9a-f]{2}/[0-9a-f]{62}(\.[0-9a-f]{16})?"
    PACK = r"packs/[0-9a-f]{2}/[0-9a-f]{62}\.pack"
    SEGMENT = r"results/[^/]+/[0-9]{6,}/[^/]+-[0-9]{8,}\.seg"
    FOLD = r"results/[^/]+/fold-[0-9]{6,}"
    INDEX = r"index/[0-9a-f]{64}\.idx"
    OPEN_COMMIT = r"sessions/[0-9a-f]+/open\.json"
    PART = r"sessions/[0-9a-f]+/[^/]+-[0-9]{8,}\.mp"
    CLOSED = r"sessions/[0-9a-f]+/closed"
    HEARTBEAT = r"(sessions/[0-9a-f]+|controller)/heartbeat\.json"
    MARKS = r"gc/[0-9a-f]{12}\.json\.zst"
    QUARANTINE = r"quarantine/.+\.[0-9a-f]{12}"


_PATTERNS = [(kind, re.compile(kind.value)) for kind in Kind]


def kind_of(key: str) -> Kind | None:
    """Return what the object under `key` is; None: nothing that a store holds."""
    return next((kind for kind, pattern in _PATTERNS if pattern.fullmatch(key)), None)
