"""The last ledger entry that this machine saw, per store.

A hash chain alone cannot show that its tail was cut off or written anew: whoever remembers (number, hash) can.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..errors import BackendError, CorruptError, ErrorCode
from ..leftovers import TEMPORARY, temporary_name
from ..sealed import decode_json, encode_json

logger = logging.getLogger(__name__)


class SeenHead(msgspec.Struct, frozen=True, kw_only=True):
    """An entry's number and hash."""

    n: int
    hash: str
    check: str = ""
    """See `sealed`."""


@dataclass(frozen=True, slots=True)
class RememberedHead:
    """The file that remembers one store's head.

    Written atomically and never fsynced: losing it loses a check, not data. Two processes may write it at once; the
    smaller number may then stay, which is still a head that was seen.
    """

    file: Path

    def read(self) -> SeenHead | None:
        """Return what was last seen, or None."""
        try:
            raw = self.file.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return decode_json(raw, SeenHead, str(self.file))
        except CorruptError as error:
            logger.warning("%s; it is written anew", error)
            return None

    def write(self, n: int, entry_hash: str) -> None:
        """Remember an entry.

        Raises
        ------
        BackendError
            The cache folder cannot be written.
        """
        temporary = self.file.with_name(temporary_name(TEMPORARY))
        raw = encode_json(SeenHead(n=n, hash=entry_hash))
        try:
            try:
                temporary.write_bytes(raw)
            except FileNotFoundError:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(raw)
            os.replace(temporary, self.file)
        except OSError as error:
            raise BackendError(
                f"cannot remember the ledger's head in {self.file}: {error.strerror}",
                code=ErrorCode.PERMISSION if isinstance(error, PermissionError) else ErrorCode.BACKEND,
                hint="set $DMLPIPE_CACHE_DIR to a folder that you can write",
            ) from error


def seen_heads(cache_dir: Path) -> Iterator[SeenHead]:
    """Yield the heads that this machine remembers, of all stores and their copies."""
    for pattern in ("stores/*/head.json", "stores/*/heads/*.json"):
        for file in sorted(cache_dir.glob(pattern)):
            found = RememberedHead(file).read()
            if found is not None:
                yield found
