"""Other places that may have what a store lost: clones, archives, any store that holds the same content.

Nothing that comes from one is believed: it is compared with the name that it is asked for under.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..backend import Backend
from ..digest import Digest, digest
from ..errors import CorruptError, FormatError, NotFoundError
from ..ledger.ledger import Ledger
from ..objects.condemned import displaced, plain_key
from ..objects.content import Content
from ..objects.locations import Locator
from ..objects.node import NodeStore
from .contents import check_body


class Mirror:
    """One such place. Reads only.

    Parameters
    ----------
    backend
        Where it is; an `ArchiveBackend` serves.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        nodes = NodeStore(backend)
        ledger = Ledger(backend, nodes, read_only=True)
        locator = Locator(backend, state=ledger.refresh, refresh=ledger.refresh)
        self._content = Content(backend, nodes, locate=locator.find)

    def object(self, key: str) -> bytes | None:
        """Return the object `key`, verified; None if the place has none, or a damaged one."""
        body = sound(self.backend, key)
        if body is not None or not key.startswith(("nodes/", "objects/")):
            return body
        plain = plain_key(key)
        for place in (plain, *displaced(self.backend, plain)):
            body = sound(self.backend, place)
            if body is not None:
                return body
        return None

    def blob(self, name: Digest) -> bytes | None:
        """Return a blob, packed or loose; None if the place has it not, or itself is damaged there."""
        try:
            return self._content.get_blob(name)
        except (NotFoundError, CorruptError, FormatError):
            return None

    def entry(self, key: str) -> bytes | None:
        """Return a ledger entry's bytes as they are, not verified."""
        try:
            return self.backend.get(key)
        except NotFoundError:
            return None


def sound(backend: Backend, key: str) -> bytes | None:
    """Return an object if it is what its name says, else None."""
    try:
        body = backend.get(key)
        check_body(key, body)
    except (NotFoundError, CorruptError, FormatError):
        return None
    return body


def find_blob(mirrors: Sequence[Mirror], name: Digest) -> tuple[bytes, str] | None:
    """Return (content of a blob, where it was) from the first place that has it."""
    for mirror in mirrors:
        body = mirror.blob(name)
        if body is not None and digest(body) == name:
            return body, mirror.backend.url
    return None
