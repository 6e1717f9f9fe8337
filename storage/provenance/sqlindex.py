"""A SQLite index of a store's ledger: questions that would otherwise read every commit.

Which jobs used a commit, as data, as a model, or through what it went into; where a content first came in; which
commits changed what stands below a path.

It is derived from the folded state alone, kept in the local cache, and never needed: without it the same questions are
answered by reading the store. It follows the ledger entry by entry, and is made anew when the ledger says that commits
were dropped, or when it is of another ledger, unreadable, or of another version. Made anew, it answers the same, byte
for byte.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..archive import Archive
from ..commits import CommitView
from ..errors import BackendError
from ..ledger.ledger import Ledger
from ..leftovers import TEMPORARY, remove_leftovers, temporary_name
from ..objects.value import Whole, decode_value
from ..paths import normalize_folder, show_path
from ..records import CommitDrop, CommitMade, Entry, JobDone, JobFailed, JobStart, JobStopped, JobUnrunnable
from ..state import State
from ..trees.diff import diff_trees
from ..trees.folders import after_prefix

logger = logging.getLogger(__name__)

VERSION = 1

_SCHEMA = """
CREATE TABLE about (version INTEGER, n INTEGER, chain TEXT);
CREATE TABLE made (repo TEXT, id TEXT, n INTEGER, PRIMARY KEY (repo, id)) WITHOUT ROWID;
CREATE TABLE change (path BLOB, repo TEXT, id TEXT, content BLOB, PRIMARY KEY (path, repo, id)) WITHOUT ROWID;
CREATE INDEX change_content ON change (content) WHERE content IS NOT NULL;
CREATE TABLE job (id TEXT PRIMARY KEY, start_n INTEGER, pipeline TEXT, state TEXT, made TEXT) WITHOUT ROWID;
CREATE TABLE used (repo TEXT, id TEXT, job TEXT, name TEXT, role TEXT, PRIMARY KEY (repo, id, job, name)) WITHOUT ROWID;
CREATE INDEX job_made ON job (pipeline, made);
"""
_JOBS = (JobStart, JobDone, JobFailed, JobStopped, JobUnrunnable)


class JobUse(NamedTuple):
    """A job that used a commit."""

    job: str
    pipeline: str
    state: str
    made: str
    """Commit that it made; empty: none."""
    role: str
    """`data`, `model` or `intermediate`; what the used commit is to it."""
    through: str
    """`repo@commit` that it read: the commit itself, or what came of it."""


class Place(NamedTuple):
    """A commit that gave a path a content."""

    repo: str
    commit: str
    path: str
    content: str
    """Hash of its blob."""


class Touch(NamedTuple):
    """A commit that changed what stands below a path."""

    repo: str
    commit: str
    paths: int
    """How many paths it changed there."""


class SqlIndex:
    """The index of one store in one file. For one thread.

    Parameters
    ----------
    file
        Made when it is first refreshed; its folder too.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        """Where it is."""

    @property
    def exists(self) -> bool:
        """Whether somebody made it."""
        return self.file.exists()

    def refresh(self, archive: Archive, ledger: Ledger) -> None:
        """Bring the index to the state that the ledger has, or make it.

        Raises
        ------
        BackendError
            The file cannot be written.

        Notes
        -----
        Reads the entries since the last time, and for each commit the nodes in which it differs from the one before.
        """
        try:
            if self._follow(archive, ledger):
                return
        except sqlite3.DatabaseError as error:
            logger.warning("the index %s is unreadable and is made anew: %s", self.file, error)
        self.rebuild(archive, ledger)

    def _follow(self, archive: Archive, ledger: Ledger) -> bool:
        """Fold what is new; return False if the index has to be made anew."""
        state = ledger.state
        with self._connected() as db:
            start = _follows(db, ledger, state) if db is not None else None
            if db is None or start is None:
                return False
            entries = [entry for entry, _ in ledger.entries(start)]
            if any(isinstance(record, CommitDrop) for entry in entries for record in entry.recs):
                return False
            _fold(db, archive, state, entries)
            return True

    def rebuild(self, archive: Archive, ledger: Ledger) -> None:
        """Make the index anew; it takes the place of the old one when it is whole."""
        state = ledger.state
        remove_leftovers([str(self.file.parent)], TEMPORARY)
        temporary = self.file.with_name(temporary_name(TEMPORARY))
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(temporary)
            try:
                db.executescript(_SCHEMA)
                db.execute("INSERT INTO about VALUES (?, -1, '')", (VERSION,))
                _fold(db, archive, state, [entry for entry, _ in ledger.entries()])
            finally:
                db.close()
            os.replace(temporary, self.file)
        except (OSError, sqlite3.Error) as error:
            raise BackendError(f"cannot write the index {self.file}: {error}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def mend(self, archive: Archive, ledger: Ledger) -> str:
        """Compare the index with one that is made anew, which takes its place if they differ.

        Returns
        -------
        str
            What was wrong; empty: nothing.

        Raises
        ------
        BackendError
            The file cannot be written.
        """
        try:
            wrong = "" if self._follow(archive, ledger) else "it is no index of this ledger"
            old = self._dump() if not wrong else []
        except sqlite3.DatabaseError as error:
            wrong, old = f"it cannot be read: {error}", []
        fresh = SqlIndex(self.file.with_name(temporary_name(TEMPORARY)))
        try:
            fresh.rebuild(archive, ledger)
            if not wrong and fresh._dump() != old:
                wrong = "it says something else than the ledger"
            if wrong:
                try:
                    os.replace(fresh.file, self.file)
                except OSError as error:
                    raise BackendError(f"cannot write the index {self.file}: {error}") from error
        finally:
            fresh.file.unlink(missing_ok=True)
        return wrong

    def _dump(self) -> list[str]:
        with self._opened() as db:
            problems = [row[0] for row in db.execute("PRAGMA integrity_check")]
            if problems != ["ok"]:
                raise sqlite3.DatabaseError(problems[0])
            return list(db.iterdump())

    # --- questions ------------------------------------------------------------------------------------------------

    def jobs_using(self, repo: str, commit: str) -> list[JobUse]:
        """Return the jobs that read a commit, or what jobs made of it, in the order in which they began."""
        found: dict[tuple[int, str, str], JobUse] = {}
        seen = {(repo, commit)}
        open_ = [(repo, commit)]
        with self._opened() as db:
            while open_:
                at = open_.pop()
                for job, start, pipeline, state, made, role in db.execute(
                    "SELECT job.id, start_n, pipeline, state, made, role FROM used JOIN job ON job.id = used.job"
                    " WHERE used.repo = ? AND used.id = ? ORDER BY start_n, job.id, name",
                    at,
                ):
                    through = f"{at[0]}@{at[1]}"
                    found.setdefault((start, job, through), JobUse(job, pipeline, state, made, role, through))
                    if made and (pipeline, made) not in seen:
                        seen.add((pipeline, made))
                        open_.append((pipeline, made))
        return [found[key] for key in sorted(found)]

    def places_of(self, prefix: str) -> list[Place]:
        """Return the commits that gave a path a content whose hash begins with 8 or more hex digits, oldest first."""
        low = bytes.fromhex(prefix[: len(prefix) // 2 * 2])
        high = after_prefix(low)
        bound, more = (" AND content < ?", (high,)) if high is not None else ("", ())
        with self._opened() as db:
            rows = db.execute(
                f"SELECT repo, id, path, content FROM change JOIN made USING (repo, id) WHERE content >= ?{bound}"
                " ORDER BY n, repo, id, path",
                (low, *more),
            )
            return [
                Place(repo, commit, show_path(path), content.hex())
                for repo, commit, path, content in rows
                if content.hex().startswith(prefix)
            ]

    def commits_below(self, path: str) -> list[Touch]:
        """Return the commits that changed a file, or what is in a folder, newest first."""
        folder = normalize_folder(path)
        below = folder + b"/" if folder else b""
        high = after_prefix(below)
        bound, more = ("AND path < ?", (high,)) if high is not None else ("", ())
        with self._opened() as db:
            rows = db.execute(
                "SELECT repo, id, COUNT(*) FROM change JOIN made USING (repo, id)"
                f" WHERE path = ? OR (path >= ? {bound}) GROUP BY n, repo, id ORDER BY n DESC, repo, id",
                (folder, below, *more),
            )
            return [Touch(*row) for row in rows]

    # --- inside ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection | None]:
        """Yield the file if it is an index of this version."""
        if not self.file.exists():
            yield None
            return
        db = sqlite3.connect(self.file, timeout=30)
        try:
            try:
                version = db.execute("SELECT version FROM about").fetchone()
            except sqlite3.DatabaseError:
                version = None
            yield db if version == (VERSION,) else None
        finally:
            db.close()

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with self._connected() as db:
            if db is None:
                raise BackendError(f"{self.file} is no index of a store", hint="dmlpipe store index --rebuild")
            yield db


def _follows(db: sqlite3.Connection, ledger: Ledger, state: State) -> int | None:
    """Return the first entry that the index lacks; None if it is of another ledger."""
    n, chain = db.execute("SELECT n, chain FROM about").fetchone()
    if n > state.n:
        return None
    if n == state.n:
        return n + 1 if chain == state.chain else None
    first = next(ledger.entries(n + 1), None)
    there = first[0].prev if first is not None else ""
    return n + 1 if n < 0 or there == chain else None


def _fold(db: sqlite3.Connection, archive: Archive, state: State, entries: Sequence[Entry]) -> None:
    with db:
        for entry in entries:
            for record in entry.recs:
                if isinstance(record, CommitMade):
                    _add_commit(db, archive, state, entry.n, record)
                elif isinstance(record, _JOBS):
                    _put_job(db, state, record.job)
        db.execute("UPDATE about SET n = ?, chain = ?", (state.n, state.chain))


def _add_commit(db: sqlite3.Connection, archive: Archive, state: State, n: int, record: CommitMade) -> None:
    known = state.commit(record.repo, record.id)
    if known is None or known.n != n:
        return  # dropped since, or in an entry that counts for nothing
    parents = state.live_parents(record.repo, archive.body(record.id).parents)
    before = archive.tree(archive.body(parents[0]).tree if parents else "")
    db.execute("INSERT OR REPLACE INTO made VALUES (?, ?, ?)", (record.repo, record.id, n))
    rows = (
        (change.path[1:].encode(), record.repo, record.id, change.new.hash if isinstance(change.new, Whole) else None)
        for change in diff_trees(before, archive.tree(record.tree), b"")
    )
    db.executemany("INSERT OR REPLACE INTO change VALUES (?, ?, ?, ?)", rows)


def _put_job(db: sqlite3.Connection, state: State, name: str) -> None:
    job = state.job(name)
    if job is None:
        return
    row = (name, job.start_n, job.pipeline, job.state, job.commit)
    db.execute("INSERT OR REPLACE INTO job VALUES (?, ?, ?, ?, ?)", row)
    uses = [(bound.repo, bound.commit, name, bound.name, bound.role) for bound in job.inputs if bound.commit]
    db.executemany("INSERT OR REPLACE INTO used VALUES (?, ?, ?, ?, ?)", uses)


def find_content(index: SqlIndex, archive: Archive, state: State, prefix: str) -> Iterator[tuple[CommitView, str]]:
    """Yield what `provenance.find_content` yields, reading only the paths that the index names."""
    paths: dict[str, set[str]] = {}
    for place in index.places_of(prefix):
        paths.setdefault(place.repo, set()).add(place.path)
    for repo, _ in state.repos():
        candidates = sorted(path[1:].encode() for path in paths.get(repo, ()))
        for head in sorted(set(state.branches(repo).values())) if candidates else ():
            view = CommitView(archive, repo, head)
            for path, raw in zip(candidates, view.tree.get_many(candidates), strict=True):
                value = decode_value(raw) if raw is not None else None
                if isinstance(value, Whole) and value.hash.hex().startswith(prefix):
                    yield view, show_path(path)
