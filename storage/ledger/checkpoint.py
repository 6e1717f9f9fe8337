"""Checkpoints: the folded state after every 32nd entry, so that opening a store does not read its whole ledger.

A checkpoint is ``ledger/ckpt/<n>.mpz``: zstd over msgpack ``{v, n, chain, state}``, where `state` is the root of a
prolly tree of the state's keys. It is derived from the ledger and may be missing or wrong without harm: readers check
its `chain` against the ledger and fall back to an earlier one, or to none.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ..backend import Backend
from ..digest import from_hex
from ..errors import CorruptError, NotFoundError
from ..objects.compression import compress, decompress
from ..objects.node import NodeStore
from ..state import State
from ..trees.prolly import Tree, empty

CHECKPOINT_EVERY = 32
VERSION = 2
"""Of the fold: raised when the same entries make another state than before, so that nobody goes on from that one."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in a checkpoint object."""

    v: int = VERSION
    n: int
    """Last entry that is folded in."""
    chain: str
    """Hash of that entry."""
    state: str
    """Root of the state's tree, hex."""


class TreeBase:
    """A checkpoint's tree as `State` reads it."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def get(self, key: bytes) -> bytes | None:
        """Value of `key`."""
        return self.tree.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs whose key begins with `prefix`, sorted."""
        return self.tree.prefix(prefix)


def checkpoint_key(n: int) -> str:
    """Key of the checkpoint after entry `n`."""
    return f"ledger/ckpt/{n:012d}.mpz"


def is_due(n: int) -> bool:
    """Whether a checkpoint belongs after entry `n`."""
    return (n + 1) % CHECKPOINT_EVERY == 0


def last_due(n: int) -> int:
    """Return the last entry up to `n` that a checkpoint belongs after; -1 if there is none."""
    return (n + 1) // CHECKPOINT_EVERY * CHECKPOINT_EVERY - 1


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Return the object's bytes."""
    return compress(msgspec.msgpack.encode(checkpoint))


def decode_checkpoint(data: bytes, n: int) -> Checkpoint | None:
    """Parse the checkpoint after entry `n`; None if it is damaged or of another version (it is derived)."""
    found = _decode(data, n)
    return found if found is not None and found.v == VERSION and found.n == n else None


def is_of_other_version(data: bytes, n: int) -> bool:
    """Whether these bytes are a sound checkpoint after entry `n` that another version made."""
    found = _decode(data, n)
    return found is not None and found.v != VERSION and found.n == n


def _decode(data: bytes, n: int) -> Checkpoint | None:
    try:
        return msgspec.msgpack.decode(decompress(data, checkpoint_key(n)), type=Checkpoint)
    except (CorruptError, msgspec.DecodeError):
        return None


def read_checkpoint(backend: Backend, n: int) -> Checkpoint | None:
    """Return the checkpoint after entry `n`, or None if it is missing or unreadable."""
    try:
        return decode_checkpoint(backend.get(checkpoint_key(n)), n)
    except NotFoundError:
        return None


def open_tree(nodes: NodeStore, checkpoint: Checkpoint) -> Tree:
    """Return the tree of a checkpoint, having read its root.

    Raises
    ------
    NotFoundError, CorruptError
        The root is missing or damaged.
    """
    tree = Tree(nodes, from_hex(checkpoint.state))
    tree.get(b"\0")
    return tree


def fold_tree(nodes: NodeStore, base: Tree | None, state: State) -> Tree:
    """Return the tree of `state`, which began from `base`; writes the nodes that are new."""
    return (base if base is not None else empty(nodes)).update(state.overlay())
