"""Commits to several branches and repos in one ledger entry: all of them are published, or none.

Pipelines that read several of them see them together, and run once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from ..commits import CommitView
from ..errors import InvalidInputError
from ..ledger.ledger import Ledger
from ..records import Record, RepoCreate
from ..refs import DEFAULT_BRANCH
from ..state import State
from .session import Session


class Transaction:
    """Sessions that are published together; a context manager that commits, or aborts on an exception.

    Parameters
    ----------
    ledger
        Of the store.
    begin
        Begins a session that is not published by itself: (repo, branch, message, create, if_head, author).
    """

    def __init__(self, ledger: Ledger, begin: Callable[[str, str, str, bool | None, str | None, str], Session]) -> None:
        self._ledger = ledger
        self._begin = begin
        self._sessions: dict[tuple[str, str], Session] = {}
        self._ended = False
        self.results: tuple[CommitView, ...] = ()
        """The commits, in the order of `commit`; the head of a branch on which nothing changed."""

    def commit(
        self,
        repo: str,
        branch: str = DEFAULT_BRANCH,
        message: str = "",
        *,
        create: bool | None = None,
        if_head: str | None = None,
        author: str = "",
    ) -> Session:
        """Begin a commit that is part of this transaction; see `Store.commit` for the parameters.

        Raises
        ------
        InvalidInputError
            The transaction has a commit to this branch already, or has ended.
        """
        self._open()
        if (repo, branch) in self._sessions:
            raise InvalidInputError(
                f"the transaction has a commit to {repo}@{branch} already", hint="go on in the session that it returned"
            )
        session = self._begin(repo, branch, message, create, if_head, author)
        self._sessions[repo, branch] = session
        return session

    def publish(self) -> tuple[CommitView, ...]:
        """Publish all of it in one entry; return the commits.

        Raises
        ------
        ConflictError
            A branch is not at its `if_head`, or a file that was appended to has changed: nothing is published.
        InvalidInputError
            One of the sessions was aborted, or a name would be both a file and a folder: nothing is published.
        """
        self._open()
        sessions = list(self._sessions.values())
        keys = [key for session in sessions for key in session.prepare()]
        changed: set[int] = set()

        def build(state: State) -> Sequence[Record]:
            changed.clear()
            found: dict[Record, None] = {}
            made: list[Record] = []
            for number, session in enumerate(sessions):
                records = session.plan(state)
                if records:
                    changed.add(number)
                # Two branches of a new repo ask for it twice.
                found.update((record, None) for record in records if isinstance(record, RepoCreate))
                made += (record for record in records if not isinstance(record, RepoCreate))
            return [*found, *made]

        self._ledger.try_append(build, sync=keys)
        self._ended = True
        self.results = tuple(session.conclude(made=number in changed) for number, session in enumerate(sessions))
        return self.results

    def abort(self) -> None:
        """Drop all edits. Idempotent."""
        self._ended = True
        for session in self._sessions.values():
            session.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self._ended:
            try:
                self.publish()
            finally:
                self.abort()
        else:
            self.abort()

    def _open(self) -> None:
        if self._ended:
            raise InvalidInputError("this transaction has ended")
