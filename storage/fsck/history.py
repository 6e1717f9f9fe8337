"""The ledger from its first entry: its chain, what it folds to, and the checkpoints on the way."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..backend import Backend
from ..digest import Digest, digest
from ..errors import CorruptError, FormatError, NotFoundError
from ..ledger import checkpoint as ckpt
from ..ledger.heads import SeenHead
from ..ledger.ledger import PREFIX, decode_entry, entry_key
from ..objects.node import NodeStore, OverlayNodes
from ..state import State
from ..trees.prolly import Tree
from .report import Findings


@dataclass(frozen=True, slots=True)
class History:
    """What the ledger says, as far as its chain holds."""

    state: State
    last: int
    """Number of the last entry that is listed; more than `state.n` if the chain is broken."""
    checkpoints: list[tuple[int, str, Digest]] = field(default_factory=list)
    """(number, hash of the entry, root of the state's tree) of every checkpoint that is due, as it has to be."""
    sound: frozenset[int] = frozenset()
    """Numbers of those that are stored so."""
    nodes: OverlayNodes | None = None
    """Has the nodes of their trees."""
    ignored: tuple[str, ...] = ()


def read_history(backend: Backend, nodes: NodeStore, findings: Findings, seen: SeenHead | None) -> History:
    """Fold the ledger, and note where it is not what it was.

    Parameters
    ----------
    seen
        The last entry that this machine saw: the chain alone cannot tell whether its own end is genuine.
    """
    return _Fold(backend, findings, seen, OverlayNodes(nodes)).run()


@dataclass(slots=True)
class _Fold:
    backend: Backend
    findings: Findings
    seen: SeenHead | None
    overlay: OverlayNodes
    checkpoints: list[tuple[int, str, Digest]] = field(default_factory=list)
    sound: set[int] = field(default_factory=set)

    def run(self) -> History:
        state, ignored = State(), list[str]()
        tree = Tree(self.overlay)
        last = last_entry(self.backend)
        while state.n < last:
            entry = self._entry(state, last)
            if entry is None:
                break
            notices, size = entry
            ignored.extend(notices)
            self.findings.read(size)
            self.findings.progress("ledger", state.n + 1)
            if ckpt.is_due(state.n):
                tree = tree.update(state.overlay())
                state.rebase(ckpt.TreeBase(tree))
                self._checkpoint(state.n, state.chain, tree.root)
            if self.seen is not None and self.seen.n == state.n and self.seen.hash != state.chain:
                message = f"it is {state.chain[:12]}, and this machine has seen {self.seen.hash[:12]}"
                self.findings.bad("ledger", entry_key(state.n), message)
        if self.seen is not None and self.seen.n > last:
            message = f"this machine has seen it; the ledger ends at entry {last}"
            self.findings.bad("ledger", entry_key(self.seen.n), message)
        return History(state, last, self.checkpoints, frozenset(self.sound), self.overlay, tuple(ignored))

    def _entry(self, state: State, last: int) -> tuple[list[str], int] | None:
        """Fold the next entry; return what was ignored of it and its size, or None if it is not sound."""
        n = state.n + 1
        try:
            data = self.backend.get(entry_key(n))
            entry = decode_entry(data, n)
            if entry.prev == state.chain:
                return state.apply(entry, digest(data).hex()), len(data)
            self._broken(n, entry.prev, state.chain, digest(data).hex())
        except NotFoundError:
            message = f"entry {n} is missing; the ledger goes on to entry {last}"
            self.findings.bad("ledger", entry_key(n), message)
        except (CorruptError, FormatError) as error:
            self.findings.bad("ledger", entry_key(n), str(error))
        return None

    def _broken(self, n: int, prev: str, before: str, here: str) -> None:
        """Entry `n` does not follow the one before it: the entry after it knows which of the two is genuine."""
        try:
            genuine = decode_entry(self.backend.get(entry_key(n + 1)), n + 1).prev == here
        except (NotFoundError, CorruptError, FormatError):
            genuine = self.seen is not None and self.seen.n == n and self.seen.hash == here
        if genuine and n > 0:
            message = f"its bytes hash to {before[:12]}, but entry {n} says {prev[:12]}"
            self.findings.bad("ledger", entry_key(n - 1), message)
        else:
            message = f"it follows {prev[:12]}, but the entry before it is {before[:12]}"
            self.findings.bad("ledger", entry_key(n), message)

    def _checkpoint(self, n: int, chain: str, root: Digest) -> None:
        self.checkpoints.append((n, chain, root))
        key = ckpt.checkpoint_key(n)
        try:
            body = self.backend.get(key)
        except NotFoundError:
            return  # whoever appended the entry died before writing it
        found = ckpt.decode_checkpoint(body, n)
        if found is None and ckpt.is_of_other_version(body, n):
            return  # nobody goes on from it, and it is not known what it should say
        if found is None:
            self.findings.bad("derived", key, "the checkpoint is unreadable")
        elif (found.chain, found.state) != (chain, root.hex()):
            self.findings.bad("derived", key, "the checkpoint is not what the ledger folds to")
        else:
            self.sound.add(n)


def last_entry(backend: Backend) -> int:
    """Return the number of the last entry that is listed, -1 if there is none."""
    last = -1
    for key, _ in backend.list(PREFIX):
        stem = key.rpartition("/")[2].removesuffix(".json")
        if stem.isdigit():
            last = max(last, int(stem))
    return last
