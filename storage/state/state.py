"""The ledger, folded: what exists now.

Rules
-----
1. The state is a function of the ledger's entries in order, and of nothing else: no clock, no environment.
2. An entry counts whole or not at all. An entry with an invalid record (a `ref.set` whose `old` is not the head, a
   record of an epoch that has passed) is ignored and reported; every reader decides so alike.

What is in it is read as `view.py` says; what each record does to it stands in `fold.py` and the modules
that it names.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import records as r
from ..errors import DmlpipeError, InvalidInputError
from .fold import fold_record
from .scratch import Scratch
from .view import ZERO_HASH, Base, StateView


class State(StateView):
    """What exists after entry `n`. See `StateView` for its parameters."""

    def apply(self, entry: r.Entry, entry_hash: str) -> list[str]:
        """Fold one entry; return why it was ignored, if it was."""
        if entry.n != self.n + 1:
            raise InvalidInputError(f"entry {entry.n} cannot follow entry {self.n}")
        notices: list[str] = []
        scratch = Scratch(self)
        try:
            for record in entry.recs:
                fold_record(scratch, record, entry, entry_hash)
        except DmlpipeError as error:
            notices.append(f"ledger entry {entry.n} is ignored: {error}")
        else:
            self._edits.update(scratch.edits)
        self.n = entry.n
        self.chain = entry_hash
        return notices

    def check(self, recs: Sequence[r.Record]) -> None:
        """Raise what makes `recs` invalid as the next entry; return if nothing does."""
        scratch = Scratch(self)
        entry = r.Entry(v=1, n=self.n + 1, prev=self.chain, ts="", nonce="", actor="", recs=tuple(recs))
        for record in recs:
            fold_record(scratch, record, entry, ZERO_HASH)

    def check_more(self, recs: Sequence[r.Record], *, n: int) -> None:
        """Apply `recs` as part of an entry `n` that is still being made, or raise what makes them invalid.

        For drafts on a `fork`: the state stays at its number. Causes that such records begin carry a hash of zeros.
        """
        scratch = Scratch(self)
        entry = r.Entry(v=1, n=n, prev=self.chain, ts="", nonce="", actor="", recs=tuple(recs))
        for record in recs:
            fold_record(scratch, record, entry, ZERO_HASH)
        self._edits.update(scratch.edits)

    def overlay(self) -> list[tuple[bytes, bytes | None]]:
        """Edits since the base, sorted: what the next checkpoint writes."""
        return sorted(self._edits.items())

    def rebase(self, base: Base) -> None:
        """Begin from `base`, a checkpoint of exactly this state."""
        self._base = base
        self._edits = {}

    def fork(self) -> State:
        """Return a copy that can be folded further without changing this one."""
        copy = State(self._base, self.n, self.chain)
        copy._edits = dict(self._edits)
        return copy
