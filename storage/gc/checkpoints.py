"""Checkpoints that nobody wrote, because whoever appended their entry died or still sleeps.

A collector writes them before it marks. So every node that a late writer of one would refer to is marked, and its late
write changes nothing: a checkpoint follows from the ledger alone.
"""

from __future__ import annotations

from ..backend import Backend
from ..ledger import checkpoint as ckpt
from ..ledger.ledger import Ledger
from ..objects.node import NodeStore
from ..state import State
from ..trees.prolly import Tree, empty


def write_missing(backend: Backend, nodes: NodeStore, ledger: Ledger) -> int:
    """Write the checkpoints up to the ledger's present end that are missing; return how many.

    Notes
    -----
    One listing where none is missing; else reads the ledger from the last checkpoint before the first gap.
    """
    last = ledger.state.n
    due = range(ckpt.CHECKPOINT_EVERY - 1, last + 1, ckpt.CHECKPOINT_EVERY)
    there = {key for key, _ in backend.list("ledger/ckpt/")}
    missing = [n for n in due if ckpt.checkpoint_key(n) not in there]
    if not missing:
        return 0
    start = _base(backend, nodes, missing[0] - ckpt.CHECKPOINT_EVERY)
    tree, state = start if start is not None else (empty(nodes), State())
    for entry, entry_hash in ledger.entries(state.n + 1):
        if entry.n > missing[-1]:
            break
        state.apply(entry, entry_hash)
        if ckpt.is_due(entry.n):
            tree = tree.update(state.overlay())
            state.rebase(ckpt.TreeBase(tree))
            if entry.n in missing:
                keys = nodes.take_written()
                backend.sync(keys)
                body = ckpt.Checkpoint(n=entry.n, chain=state.chain, state=tree.root.hex())
                backend.put_if_absent(ckpt.checkpoint_key(entry.n), ckpt.encode_checkpoint(body))
    return len(missing)


def _base(backend: Backend, nodes: NodeStore, n: int) -> tuple[Tree, State] | None:
    found = ckpt.read_checkpoint(backend, n) if n >= 0 else None
    if found is None:
        return None
    tree = ckpt.open_tree(nodes, found)
    return tree, State(ckpt.TreeBase(tree), found.n, found.chain)
