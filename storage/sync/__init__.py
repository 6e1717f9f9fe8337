"""Copies of a store: `clone`, `push`, `pull`, and one-file archives for places without a network.

Two copies of a store have the same id and the same ledger, as far as the shorter one goes. Objects that the longer one
refers to and the other lacks travel first, each verified against its name before it is written; then the entries, in
order. So a copy is at every moment a whole store as of some entry, and an interrupted transfer goes on where it was.

Key types: `Transfer` (what a transfer did), `Relation` (how two ledgers compare), `ArchiveBackend` (an archive, read).
"""

from .archive_file import ArchiveBackend, is_archive, write_archive
from .relation import Relation, relate
from .transfer import Progress, Transfer, clone, pull, push

__all__ = [
    "ArchiveBackend",
    "Progress",
    "Relation",
    "Transfer",
    "clone",
    "is_archive",
    "pull",
    "push",
    "relate",
    "write_archive",
]
