"""A commit in the making: edits to one branch, published together or not at all.

Content is stored as it is put; nothing refers to it until `commit` appends one ledger entry. If the branch moved
meanwhile, the edits are replayed on its new head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from ..archive import Archive
from ..clock import utc_now
from ..commits import CommitView
from ..digest import from_hex
from ..errors import BackendError, ErrorCode, InvalidInputError
from ..ledger.ledger import Ledger
from ..objects.writer import Written
from ..records import Record
from ..refs import check_name
from ..state import State
from .editing import Editing, Target
from .publish import head_to_follow, plan_commit, plan_repo


class Session(Editing):
    """Edits to one branch. Safe for use by many threads; a context manager that commits, or aborts on an exception.

    Parameters
    ----------
    archive, ledger
        Of the store.
    target
        Where it publishes.
    open_commit
        Resolves ``repo@ref`` for `copy`.
    clock
        Returns the time that the commit carries.
    owned
        A transaction publishes it, not its own `commit`.
    give_back
        Called with the keys of what was stored, after the medium was full and the session was aborted.

    Raises
    ------
    NotFoundError
        There is no such repo, and it may not be made.
    ReadOnlyError
        The repo is the output of a pipeline.
    """

    def __init__(
        self,
        archive: Archive,
        ledger: Ledger,
        target: Target,
        *,
        open_commit: Callable[[str], CommitView],
        clock: Callable[[], str] = utc_now,
        owned: bool = False,
        give_back: Callable[[Sequence[str]], None] | None = None,
    ) -> None:
        check_name(target.repo, "repo")
        check_name(target.branch, "branch")
        since = archive.nodes.condemned.begin()
        state = ledger.refresh()
        creates_repo = plan_repo(state, target)
        head = state.head(target.repo, target.branch)
        super().__init__(archive, target, head, open_commit=open_commit, since=since)
        self._ledger = ledger
        self._clock = clock
        self._owned = owned
        self._give_back = give_back
        self.creates_repo = creates_repo
        """Whether the commit makes the repo too."""
        self._written = Written()
        self._planned = ""
        self.result: CommitView | None = None
        """The commit that was made, or the head if nothing changed; None before `commit`."""
        self.made = False
        """Whether `commit` made a commit."""

    def commit(self) -> CommitView:
        """Publish the edits; return the new commit, or the head if they change nothing.

        Raises
        ------
        ConflictError
            The branch is not at `if_head`, or a file that was appended to has changed.
        InvalidInputError
            On the branch's new head a name would be both a file and a folder; or a transaction publishes this session.
        """
        if self._owned:
            raise InvalidInputError("this session is part of a transaction", hint="commit the transaction")
        with self._lock:
            keys = self.prepare()
            return self.conclude(made=self._ledger.try_append(self.plan, sync=keys) is not None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            stored = self._writer.take_keys()
            self.abort()
            if isinstance(error, BackendError) and error.code is ErrorCode.DISK_FULL and self._give_back is not None:
                self._give_back(stored)
        elif not self._ended and not self._owned:
            self.commit()

    # --- what `commit` does, apart, for transactions ----------------------------------------------------------------

    def prepare(self) -> list[str]:
        """Store what was put; return the keys of what the commit will refer to."""
        self._open()
        self._written = self._writer.flush()
        return self._writer.take_keys()

    def plan(self, state: State) -> Sequence[Record]:
        """Return the records that publish the edits on the head that `state` has."""
        target = self._target
        self._writer.check()
        head = head_to_follow(state, target, creates_repo=self.creates_repo)
        if head != self._head:
            before, self._edits = self._edits, self._edits.rebased(self._tree_of(head))
            self._head = head
            # What stood in the old head already was not stored again.
            self._rely_on_values(
                value for path, value in self._edits.changes.items() if before.changes.get(path) != value
            )
            self._writer.check()
        planned = plan_commit(
            self._archive,
            state,
            target,
            self._edits.finish(),
            head=head,
            size_change=self._edits.size_change(),
            clock=self._clock,
            written=self._written,
        )
        self._planned = planned.commit
        return planned.records

    def conclude(self, *, made: bool) -> CommitView:
        """End the session: what was planned last is published."""
        self.abort()
        self.made = made
        self.result = CommitView(self._archive, self._target.repo, self._planned)
        if self._folders:
            # Now the head has the values of the local files that were put.
            self._folders.remember(self._edits, from_hex(self.result.body.tree))
        return self.result


__all__ = ["Session", "Target"]
