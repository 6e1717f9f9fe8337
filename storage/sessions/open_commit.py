"""Commits that many processes write into: each writer leaves its edits in the store, one process publishes them all.

Rules
-----
1. All writers begin from the head that the branch had when the commit was opened, and see only their own edits.
2. A writer's edits count as a whole, from when it finished; of one that died nothing does.
3. Two writers that leave different content (or one a file and the other none) at one path conflict: nothing is
   published. Equal content is no conflict, so a task may run twice. Of parts with one writer's name the later ones win.
4. It is published at most once, whoever asks how often: the ledger refuses a second time.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from ..archive import Archive
from ..backend import MAX_OBJECT_BYTES, Backend
from ..clock import utc_now
from ..commits import CommitView
from ..errors import BackendError, ConflictError, ErrorCode, InvalidInputError, NotFoundError
from ..ledger.ledger import Ledger
from ..ledger.sweeps import read_list
from ..objects.index import BlobIndex, index_key
from ..objects.writer import Written
from ..paths import folders_of, show_path
from ..records import Record
from ..refs import check_name
from ..sealed import encode_json
from ..state import State
from ..tokens import token_bytes, token_hex
from ..trees.edits import Edits
from ..trees.operations import PutMany
from ..trees.prolly import Tree
from .editing import Editing, Target
from .parts import (
    OpenInfo,
    Part,
    closed_key,
    encode_edits,
    encode_part,
    folder_of,
    heartbeat_key,
    open_key,
    part_key,
    read_open,
    read_parts,
)
from .publish import Planned, head_to_follow, plan_commit, plan_repo

logger = logging.getLogger(__name__)

_ID = re.compile(r"[0-9a-f]{16}")
_MAX_PACKS_NAMED = 1000

Reopen = Callable[[Backend, Path, str], "OpenCommit"]
"""Opens the commit of an id in the store on a backend, in another process."""


class OpenCommit:
    """A commit in the making, in any number of processes. Pickles; `Store.attach` finds it by its id too.

    Parameters
    ----------
    archive, ledger
        Of the store.
    session
        Its id.
    info
        What was decided when it was opened.
    open_commit
        Resolves ``repo@ref`` for writers' `copy`.
    reopen, cache_dir
        How a copy in another process opens the store.
    clock
        Returns the time that the commit carries.
    """

    def __init__(
        self,
        archive: Archive,
        ledger: Ledger,
        session: str,
        info: OpenInfo,
        *,
        open_commit: Callable[[str], CommitView],
        reopen: Reopen,
        cache_dir: Path,
        clock: Callable[[], str] = utc_now,
    ) -> None:
        self._archive = archive
        self._ledger = ledger
        self.id = session
        """Names it in the store: 16 hex digits."""
        self.info = info
        """Where it publishes, and the head that its writers begin from."""
        self._open_commit = open_commit
        self._reopen = reopen
        self._cache_dir = cache_dir
        self._clock = clock

    def __repr__(self) -> str:
        return f"<open commit {self.id} of {self.info.repo}@{self.info.branch}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (self._reopen, (self._archive.backend, self._cache_dir, self.id))

    @property
    def target(self) -> Target:
        """Where it publishes."""
        info = self.info
        return Target(info.repo, info.branch, info.message, info.author, info.creates_repo, info.if_head)

    def writer(self, name: str = "") -> PartWriter:
        """Begin one writer's edits: a context manager that leaves them in the store, or drops them on an exception.

        Parameters
        ----------
        name
            Names the writer in conflicts, and orders its parts; empty: at random. Used by one process at a time.

        Raises
        ------
        NotFoundError
            The commit was published or aborted.
        """
        self._check_open()
        name = check_name(name or token_hex(8), "writer")
        return PartWriter(self._archive, self._ledger, self, name, open_commit=self._open_commit)

    def renew(self) -> None:
        """Tell the garbage collector that it is alive. Writers do, when they begin and finish; else once an hour."""
        self._archive.backend.put(heartbeat_key(self.id), msgspec.json.encode({"started": self.info.opened}))

    def commit(self) -> CommitView:
        """Publish what all writers left; return the commit, or the head if it changes nothing.

        Ask when all writers have finished: one that is at work finds the commit closed, and fails.

        Raises
        ------
        ConflictError
            Two writers left different content at one path; the branch is not at `if_head`; a file that was appended to
            has changed; or a garbage collection took what a writer stored (code ``collected``). Nothing is published.
        InvalidInputError
            On the branch's head a name would be both a file and a folder.
        NotFoundError
            It was aborted.
        """
        published = self._published()
        if published is not None:
            return published
        self._check_open(closed_too=True)
        backend = self._archive.backend
        backend.put_if_absent(closed_key(self.id), token_bytes(8), durable=True)
        try:
            parts = read_parts(backend, self.id)
            written, version = self._join(parts)
        except NotFoundError:
            # Another process published it meanwhile, and cleared away.
            published = self._published()
            if published is None:
                raise
            return published
        result = ""

        def build(state: State) -> Sequence[Record]:
            nonlocal result
            before = state.session(self.id)
            if before is not None:
                result = before[1]
                return ()
            self._check_sweeps(state, parts)
            if written.index and self._archive.nodes.condemned.voided(written.index, version):
                raise _collected()
            planned = self._plan(state, parts, written)
            result = planned.commit
            return planned.records

        self._ledger.try_append(build, sync=[written.index] if written.index else [])
        self._clear()
        return CommitView(self._archive, self.info.repo, result)

    def abort(self) -> None:
        """Drop what all writers left. Idempotent; a commit that was published stays."""
        self._archive.backend.put_if_absent(closed_key(self.id), token_bytes(8))
        self._clear()

    # --- inside ---------------------------------------------------------------------------------------------------

    def _published(self) -> CommitView | None:
        found = self._ledger.refresh().session(self.id)
        return CommitView(self._archive, *found) if found is not None else None

    def _check_open(self, *, closed_too: bool = False) -> None:
        backend = self._archive.backend
        if read_open(backend, self.id) is None or (not closed_too and backend.size(closed_key(self.id)) is not None):
            published = self._published()
            how = f"was published as {published.id[:12]}" if published else "was closed: somebody ends it, or did"
            raise NotFoundError(f"open commit {self.id} {how}")

    def _clear(self) -> None:
        backend = self._archive.backend
        keys = [key for key, _ in backend.list(folder_of(self.id))]
        # Whoever looks must see it closed until it is gone.
        last = [open_key(self.id), closed_key(self.id)]
        try:
            backend.delete_many([key for key in keys if key not in last])
            for key in last:
                backend.delete_many([key])
        except BackendError as error:
            logger.warning("%s could not be cleared away: %s", self, error)

    def _join(self, parts: Sequence[Part]) -> tuple[Written, int]:
        """Return all packs of the parts under one index, and the version of the registry from before it was made."""
        backend = self._archive.backend
        version = self._archive.nodes.condemned.begin()
        packs = tuple(dict.fromkeys(pack for part in parts for pack in part.packs))
        indexes = list(dict.fromkeys(part.index for part in parts if part.index))
        named = packs if len(packs) <= _MAX_PACKS_NAMED else ()
        if len(indexes) <= 1:
            return Written(named, *indexes), version
        bodies = backend.get_many([(key, None, None) for key in indexes])
        body = BlobIndex.build(entry for key, raw in zip(indexes, bodies, strict=True) for entry in BlobIndex(raw, key))
        index = index_key(body)
        backend.put_if_absent(index, body)
        return Written(named, index), version

    def _check_sweeps(self, state: State, parts: Sequence[Part]) -> None:
        """Refuse what a sweep may have taken that was published after a writer stored it."""
        if not parts:
            return
        for n, sweep in state.sweeps(after=min(part.since for part in parts)):
            found = read_list(self._archive.nodes, sweep)
            for part in parts:
                if n <= part.since:
                    continue
                if found is None or not {*part.keys, *part.packs, part.index}.isdisjoint(found.keys):
                    raise _collected()
                if not set(part.blobs).isdisjoint(found.blobs):
                    raise _collected()

    def _plan(self, state: State, parts: Sequence[Part], written: Written) -> Planned:
        head = head_to_follow(state, self.target, creates_repo=self.info.creates_repo)
        tree = self._archive.tree(self._archive.body(head).tree if head else "")
        edits = Edits.of_changes(tree, combine(tree, parts))
        return plan_commit(
            self._archive,
            state,
            self.target,
            edits.finish(),
            head=head,
            size_change=edits.size_change(),
            clock=self._clock,
            written=written,
            session=self.id,
        )


class PartWriter(Editing):
    """One writer's edits to an open commit. Safe for use by many threads of one process.

    Parameters
    ----------
    archive, ledger
        Of the store.
    commit
        What it writes into.
    name
        The writer's.
    open_commit
        Resolves ``repo@ref`` for `copy`.
    """

    def __init__(
        self,
        archive: Archive,
        ledger: Ledger,
        commit: OpenCommit,
        name: str,
        *,
        open_commit: Callable[[str], CommitView],
    ) -> None:
        # Before anything is stored: a sweep that comes later may take it.
        self._began_n = ledger.refresh().n
        super().__init__(archive, commit.target, commit.info.base or None, open_commit=open_commit)
        self._ledger = ledger
        self._commit = commit
        self.name = name
        """The writer's."""
        commit.renew()

    def finish(self) -> None:
        """Leave the edits in the store, durable, for the commit.

        Raises
        ------
        ConflictError
            The commit was closed meanwhile: these edits are not part of it. Or a garbage collection took what was
            stored (code ``collected``).
        InvalidInputError
            There are too many edits for one part.
        """
        with self._lock:
            self._open()
            written = self._writer.flush()
            backend, nodes = self._archive.backend, self._archive.nodes
            backend.sync(dict.fromkeys([*self._writer.take_keys(), *nodes.take_written()]))
            self._ledger.refresh()
            # What stood in the base already was not stored again, and the commit may be made on another head.
            self._rely_on_values(
                value for edit in self._edits.log if isinstance(edit, PutMany) for value in edit.files.values
            )
            self._writer.check()
            keys, blobs = self._writer.relied_on()
            log = encode_edits(self._edits.log)
            self.abort()
            if not log:
                return
            raw = encode_part(
                Part(
                    writer=self.name,
                    since=self._began_n,
                    edits=log,
                    packs=written.packs,
                    index=written.index,
                    keys=tuple(keys),
                    blobs=tuple(blobs),
                )
            )
            if len(raw) > MAX_OBJECT_BYTES:
                raise InvalidInputError(f"{len(log):,} edits are too many for one writer", hint="use several")
            self._leave(raw)

    def _leave(self, raw: bytes) -> None:
        backend, session = self._archive.backend, self._commit.id
        seq = 0
        while not backend.put_if_absent(part_key(session, self.name, seq), raw, durable=True):
            seq += 1
        # After the part is there: whoever closes lists the parts afterwards, and so sees this one or is seen here.
        is_gone = backend.size(open_key(session)) is None
        if is_gone or backend.size(closed_key(session)) is not None:
            if is_gone:
                backend.delete_many([part_key(session, self.name, seq)])
            raise ConflictError(
                f"open commit {session} was closed while writer {self.name} was at work",
                hint="commit when all writers have finished",
            )
        self._commit.renew()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        elif not self._ended:
            self.finish()


def begin_open_commit(
    backend: Backend, state: State, target: Target, *, opened: str, actor: str
) -> tuple[str, OpenInfo]:
    """Make the objects of a new open commit; return its id and what was decided.

    Raises
    ------
    NotFoundError, ReadOnlyError
        See `plan_repo`.
    """
    check_name(target.repo, "repo")
    check_name(target.branch, "branch")
    session = token_hex(8)
    info = OpenInfo(
        repo=target.repo,
        branch=target.branch,
        message=target.message,
        author=target.author,
        if_head=target.if_head,
        creates_repo=plan_repo(state, target),
        base=state.head(target.repo, target.branch) or "",
        opened=opened,
        actor=actor,
    )
    backend.put(heartbeat_key(session), msgspec.json.encode({"started": opened}))
    backend.put_if_absent(open_key(session), encode_json(info), durable=True)
    return session, info


def find_open_commit(backend: Backend, session: str) -> OpenInfo:
    """Return what was decided when a commit was opened.

    Raises
    ------
    NotFoundError
        There is none of this id, or it has ended.
    """
    info = read_open(backend, session) if _ID.fullmatch(session) else None
    if info is None:
        raise NotFoundError(f"no open commit {session!r}: it was published or aborted, or never was")
    return info


def combine(tree: Tree, parts: Iterable[Part]) -> dict[bytes, bytes | None]:
    """Return what writers change of `tree`, all together: path to new value, None: deleted.

    Raises
    ------
    ConflictError
        Two of them disagree on a path, or one makes a file where another makes a folder.
    """
    writers: dict[str, Edits] = {}
    for part in parts:
        writers.setdefault(part.writer, Edits(tree)).replay(part.log())
    found: dict[bytes, bytes | None] = {}
    author: dict[bytes, str] = {}
    folders: dict[bytes, str] = {}
    for writer, edits in writers.items():
        for path, value in edits.changes.items():
            if path in found and found[path] != value:
                raise _disagree(path, author[path], writer, "left different content there")
            found[path] = value
            author[path] = writer
            if value is not None:
                folders.update(dict.fromkeys(folders_of(path), writer))
    for folder in sorted(folders):
        if found.get(folder) is not None and author[folder] != folders[folder]:
            raise _disagree(folder, author[folder], folders[folder], "made a file and a folder of it")
    return found


def _disagree(path: bytes, one: str, two: str, what: str) -> ConflictError:
    return ConflictError(
        f"{show_path(path)}: writers {one} and {two} {what}", hint="nothing was published; abort, and write again"
    )


def _collected() -> ConflictError:
    return ConflictError(
        "a garbage collection took content that a writer stored and nothing referred to",
        code=ErrorCode.COLLECTED,
        hint="nothing was published; abort, and write again",
    )
