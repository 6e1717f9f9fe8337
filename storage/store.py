"""A store: open or make one, name what is in it, put and read commits.

Opening reads one small object; the ledger is read when something is first asked of it.
"""

from __future__ import annotations

import logging
import os
import re
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from . import ref_changes
from .actor import user_name
from .archive import Archive
from .backend import Backend, is_vacant, open_backend, probe_exclusive_create
from .clock import utc_now
from .commits import CommitView
from .digest import Digest, digest
from .errors import BackendError, DmlpipeError, ErrorCode, InvalidInputError, NotFoundError, ReadOnlyError
from .info import (
    FIXED_PIECES,
    INFO_KEY,
    STORE_FOLDER,
    WRITE_FEATURES,
    StoreInfo,
    default_cache_dir,
    encode_info,
    new_info,
    read_info,
    root_of,
)
from .ledger.heads import RememberedHead
from .ledger.ledger import Build, Ledger
from .ledger.sweeps import SweepWatch
from .local.memory import StatCache
from .objects.cache import FileCache
from .objects.cutting import FEATURE as CUTTING_FEATURE
from .objects.cutting import read_parameters
from .objects.locations import Locator
from .objects.node import NodeStore
from .objects.object_store import Objects
from .objects.pack import Location
from .records import Commit, Entry, JobState, Record, RepoCreate, Trigger
from .refs import DEFAULT_BRANCH, CommitRef, Ref, as_ref, check_name, resolve
from .sessions.parts import SESSIONS_PREFIX, OpenInfo, read_open
from .sessions.session import Session, Target
from .sources import Source
from .state import State
from .trees.prolly import Tree

# What few commands need is imported where it is used: every command waits for what stands here.
if TYPE_CHECKING:
    from .fsck import CheckedLog, Mended, Progress, Rederive, Report
    from .provenance.derivation import Derivation
    from .provenance.sqlindex import SqlIndex
    from .sessions.branch_merge import MergeResult
    from .sessions.open_commit import OpenCommit
    from .sessions.transaction import Transaction
    from .trees.merge import Prefer

logger = logging.getLogger(__name__)

_PLACE_DIGITS = 16


class Store:
    """Everything under one root URL. Make with `init` or `open`. Safe for use by many threads."""

    def __init__(
        self,
        backend: Backend,
        info: StoreInfo,
        *,
        read_only: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
        actor: str | None = None,
        clock: Callable[[], str] = utc_now,
    ) -> None:
        self.info = info
        """What the store says of itself."""
        self.read_only = read_only
        self.backend = backend
        self.cache_dir = Path(cache_dir) if cache_dir else default_cache_dir()
        """Folder of this machine's caches."""
        self._clock = clock
        self.nodes = NodeStore(backend, tree_target=info.tree.target)
        shared = backend.properties.shared
        own = self._own = self.cache_dir / "stores" / info.repo_id
        # One for each place: a clone elsewhere has the same id, and may lag behind.
        self._place = digest(backend.url.encode()).hex()[:_PLACE_DIGITS]
        self._head = RememberedHead(own / "heads" / f"{self._place}.json") if shared else None
        self.ledger = Ledger(
            backend,
            self.nodes,
            head=self._head,
            actor=actor,
            read_only=read_only,
            clock=clock,
            watch=SweepWatch(self.nodes, lambda: self._locator.forget()),
        )
        self._locator = Locator(
            backend,
            state=lambda: self.ledger.state,
            refresh=self.ledger.refresh,
            folder=own / "index" if backend.properties.remote else None,
        )
        self.objects = Objects(
            backend,
            self.nodes,
            locate=self._locator.find,
            known=self._locator.known,
            names=self._locator.names,
            locate_many=self._locator.find_many,
            recheck=self.refresh,
            cutting=read_parameters(info.pieces) if CUTTING_FEATURE in info.read_features else None,
        )
        self.cache = FileCache(self.cache_dir / "files")
        stats = StatCache(own / "stats") if shared else None
        self.archive = Archive(backend, self.nodes, self.objects, self.cache, stats)

    # --- making and opening ----------------------------------------------------------------------------------------

    @classmethod
    def init(
        cls,
        url: str | os.PathLike[str] = f"./{STORE_FOLDER}",
        *,
        storage_options: Mapping[str, Any] | None = None,
        description: str = "",
        pieces: str = FIXED_PIECES,
        cache_dir: str | os.PathLike[str] | None = None,
        actor: str | None = None,
    ) -> Self:
        """Make a store and open it.

        Parameters
        ----------
        url
            A folder, ``memory://name``, or any URL that fsspec knows.
        storage_options
            For the backend, see `open_backend`.
        description
            For people.
        pieces
            How files above 16 MiB are cut, for good: ``fixed``, at each 16 MiB; or ``content-defined``, by what they
            hold, so that of a file that was edited or shifted only what is new is stored.
        cache_dir, actor
            See `open`.

        Raises
        ------
        InvalidInputError
            There is a store already (code ``exists``), or something else; or `pieces` are content-defined and the
            library that cuts is not installed (code ``unsupported``).
        BackendError
            The medium failed, or does not create exclusively (code ``unsafe-backend``).
        """
        info = new_info(description, pieces)
        backend = open_backend(os.fspath(url), storage_options)
        if backend.size(INFO_KEY) is not None:
            raise InvalidInputError(f"there is a store at {backend.url} already", code=ErrorCode.EXISTS)
        if not is_vacant(backend):
            raise InvalidInputError(
                f"{backend.url} is not empty and no store", code=ErrorCode.EXISTS, hint="name an empty or a new place"
            )
        probe_exclusive_create(backend)
        if not backend.put_if_absent(INFO_KEY, encode_info(info), durable=True):
            raise InvalidInputError(f"there is a store at {backend.url} already", code=ErrorCode.EXISTS)
        if backend.properties.path is not None:
            backend.put_if_absent(".gitignore", b"*\n")
        return cls(backend, info, cache_dir=cache_dir, actor=actor)

    @classmethod
    def open(
        cls,
        url: str | os.PathLike[str] | None = None,
        *,
        read_only: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        actor: str | None = None,
        patience_s: float = 0.0,
    ) -> Self:
        """Open a store.

        Parameters
        ----------
        url
            Its root; None: ``$DMLPIPE_STORE``, else the nearest ``.dmlpipe`` here or above.
        read_only
            Refuse whatever would write.
        cache_dir
            This machine's caches; None: see `default_cache_dir`.
        storage_options
            For the backend, see `open_backend`.
        actor
            ``user@host`` in ledger entries.
        patience_s
            See `Backend.be_patient`.

        Raises
        ------
        FormatError
            There is no store (code ``no-store``), or one of another format.

        Notes
        -----
        One request. The ledger is read when first needed.
        """
        backend = open_backend(root_of(url), storage_options)
        backend.be_patient(patience_s)
        info = read_info(backend)
        read_only = read_only or not WRITE_FEATURES.issuperset(info.write_features)
        return cls(backend, info, read_only=read_only, cache_dir=cache_dir, actor=actor)

    def __repr__(self) -> str:
        return f"<store {self.url}>"

    @property
    def url(self) -> str:
        """Where it is, in a form that `open` takes."""
        return self.backend.url

    @property
    def repo_id(self) -> str:
        """The store's own id, made by `init`."""
        return self.info.repo_id

    # --- state ----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The folded ledger as of the last look. Does not change; a newer one takes its place."""
        return self.ledger.state

    def refresh(self) -> State:
        """Catch up with the ledger and return the state."""
        return self.ledger.refresh()

    def publish(
        self, build: Build | Sequence[Record], *, sync: Iterable[str] | Callable[[], Iterable[str]] = ()
    ) -> Entry:
        """Append a ledger entry; see `Ledger.append`."""
        return self.ledger.append(build, sync=sync)

    def now(self) -> str:
        """Return the time by the store's clock: UTC, ISO 8601."""
        return self._clock()

    # --- content --------------------------------------------------------------------------------------------------

    def tree(self, root: str | bytes = "") -> Tree:
        """Return the tree with this root: hex, digest, or empty for the empty tree."""
        return self.archive.tree(root)

    def body(self, commit: str) -> Commit:
        """Return a commit's body (hex id)."""
        return self.archive.body(commit)

    def locate(self, name: Digest) -> Location | None:
        """Return where a packed blob is, or None if no published pack holds it."""
        return self._locator.find(name)

    # --- names ----------------------------------------------------------------------------------------------------

    def resolve(self, name: str | Ref) -> CommitRef:
        """Return the commit that ``repo@ref`` means now.

        Raises
        ------
        NotFoundError
            There is none; the hint names the nearest and the list.
        """
        ref = as_ref(name)
        state = self.refresh()
        return CommitRef(ref.repo, resolve(ref, state, lambda commit: self.body(commit).parents), ref.path)

    def __getitem__(self, name: str | Ref | CommitRef) -> CommitView:
        found = name if isinstance(name, CommitRef) else self.resolve(name)
        return CommitView(self.archive, found.repo, found.commit, found.path)

    # --- repos, branches, tags --------------------------------------------------------------------------------------

    def create_repo(self, name: str, description: str = "") -> None:
        """Make an empty repo.

        Raises
        ------
        ConflictError
            There is one of that name (code ``exists``).
        """
        check_name(name, "repo")
        self.publish([RepoCreate(repo=name, description=description)])

    def delete_repo(self, name: str, *, force: bool = False) -> None:
        """Delete a repo and its branches; its history stays in the ledger.

        Raises
        ------
        InvalidInputError
            It is a pipeline's output, or a pipeline reads it, unless `force`.
        """
        self.publish(lambda state: ref_changes.end_repo(state, name, force=force))

    def create_branch(self, repo: str, branch: str, at: str | Ref | None = None) -> CommitRef:
        """Make a branch at a commit (None: the head of master).

        Raises
        ------
        ConflictError
            There is one of that name (code ``exists``).
        """
        check_name(branch, "branch")
        commit = self._commit_in(repo, at if at is not None else Ref(repo))
        self.publish(lambda state: ref_changes.begin_branch(state, repo, branch, commit))
        return CommitRef(repo, commit)

    def set_branch(self, repo: str, branch: str, at: str | Ref) -> CommitRef:
        """Move a branch to a commit of its repo, making the branch if need be.

        Raises
        ------
        ReadOnlyError
            The repo is the output of a pipeline: `revert` moves it.
        """
        check_name(branch, "branch")
        commit = self._commit_in(repo, at)
        self.ledger.try_append(lambda state: ref_changes.move_branch(state, repo, branch, commit, asked=at))
        return CommitRef(repo, commit)

    def set_trigger(self, repo: str, branch: str, trigger: Trigger | None) -> None:
        """Let a branch follow another one of its repo by a rule; None: no longer.

        The branch need not exist: it begins when the rule first holds. Rules are evaluated by commits, not by
        branches that are moved by hand.

        Raises
        ------
        InvalidInputError
            The rule is none, or branches would follow each other in a circle (code ``bad-spec``).
        """
        check_name(branch, "branch")
        self.ledger.try_append(lambda state: ref_changes.follow(state, repo, branch, trigger))

    def delete_branch(self, repo: str, branch: str) -> None:
        """Delete a branch; its commits stay.

        Raises
        ------
        NotFoundError
            There is none of that name (code ``no-branch``).
        InvalidInputError
            A pipeline reads it.
        ReadOnlyError
            A pipeline publishes it.
        """
        self.publish(lambda state: ref_changes.end_branch(state, repo, branch))

    def create_tag(self, repo: str, tag: str, at: str | Ref | None = None, *, force: bool = False) -> CommitRef:
        """Name a commit (None: the head of master) for good.

        Parameters
        ----------
        force
            Move a tag that exists.

        Raises
        ------
        ConflictError
            There is a tag of that name (code ``exists``), unless `force`; or a branch, which would hide it.
        """
        check_name(tag, "tag")
        commit = self._commit_in(repo, at if at is not None else Ref(repo))
        self.ledger.try_append(lambda state: ref_changes.begin_tag(state, repo, tag, commit, force=force))
        return CommitRef(repo, commit)

    def delete_tag(self, repo: str, tag: str) -> None:
        """Remove a tag; its commit stays.

        Raises
        ------
        NotFoundError
            There is none of that name.
        """
        self.publish(lambda state: ref_changes.end_tag(state, repo, tag))

    def _commit_in(self, repo: str, at: str | Ref) -> str:
        ref = as_ref(at)
        if isinstance(at, str) and "@" not in at and ref.repo != repo:
            ref = as_ref(f"{repo}@{at}")
        if ref.repo != repo:
            raise InvalidInputError(f"{ref.commitish} is no commit of repo {repo!r}", code=ErrorCode.BAD_REF)
        return self.resolve(ref).commit

    # --- commits ----------------------------------------------------------------------------------------------------

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
        """Begin a commit: a context manager that publishes when it ends, and aborts on an exception.

        Parameters
        ----------
        repo, branch
            Where; both are made if they are missing.
        message
            What it is, for people.
        create
            Make a missing repo: True always, False never, None unless a repo has nearly that name.
        if_head
            Publish only if the branch is at this commit id (empty: has none).
        author
            Empty: the user.
        """
        return self._session(Target(repo, branch, message, author, create, if_head))

    def open_commit(
        self,
        repo: str,
        branch: str = DEFAULT_BRANCH,
        message: str = "",
        *,
        create: bool | None = None,
        if_head: str | None = None,
        author: str = "",
    ) -> OpenCommit:
        """Begin a commit that many processes write into; see `commit` for the parameters.

        What it returns pickles, and `attach` finds it by its id.

        Examples
        --------
        >>> store = Store.init("memory://open-commit-example")
        >>> opened = store.open_commit("images")
        >>> for name in ("a", "b"):  # each of these may be another process
        ...     with store.attach(opened.id).writer() as writer:
        ...         writer.write(f"/{name}.txt", name)
        >>> [info.path for info in opened.commit().ls()]
        ['/a.txt', '/b.txt']
        """
        self._writable()
        target = Target(repo, branch, message, author, create, if_head)
        actor = author or user_name()
        from .sessions.open_commit import begin_open_commit

        session, info = begin_open_commit(self.backend, self.refresh(), target, opened=self._clock(), actor=actor)
        return self._opened(session, info)

    def attach(self, session: str) -> OpenCommit:
        """Return an open commit by its id.

        Raises
        ------
        NotFoundError
            There is none: it was published or aborted, or never was.
        """
        self._writable()
        from .sessions.open_commit import find_open_commit

        return self._opened(session, find_open_commit(self.backend, session))

    def open_commits(self) -> list[OpenCommit]:
        """Return all open commits."""
        return [
            self._opened(session, info)
            for session in self.backend.list_folders(SESSIONS_PREFIX)
            if (info := read_open(self.backend, session)) is not None
        ]

    def _opened(self, session: str, info: OpenInfo) -> OpenCommit:
        from .sessions.open_commit import OpenCommit

        return OpenCommit(
            self.archive,
            self.ledger,
            session,
            info,
            open_commit=self.__getitem__,
            reopen=attach_open_commit,
            cache_dir=self.cache_dir,
            clock=self._clock,
        )

    def transaction(self) -> Transaction:
        """Begin commits to several branches or repos that are published in one entry, all or none.

        Examples
        --------
        >>> store = Store.init("memory://transaction-example")
        >>> with store.transaction() as both:
        ...     both.commit("images").write("/1.png", b"...")
        ...     both.commit("labels").write("/1.txt", "seven")
        >>> [commit.repo for commit in both.results], store.state.n
        (['images', 'labels'], 0)
        """
        from .sessions.transaction import Transaction

        return Transaction(
            self.ledger,
            lambda repo, branch, message, create, if_head, author: self._session(
                Target(repo, branch, message, author, create, if_head), owned=True
            ),
        )

    def merge(
        self,
        repo: str,
        source: str | Ref,
        *,
        into: str = DEFAULT_BRANCH,
        message: str = "",
        strategy: Prefer | str = "refuse",
        fast_forward: bool = True,
        if_head: str | None = None,
        author: str = "",
        dry_run: bool = False,
    ) -> MergeResult:
        """Merge a commit of a repo into one of its branches.

        Parameters
        ----------
        source
            Branch, tag, commit, or a name with ``repo@``.
        into
            Branch that gets what `source` changed since the two parted.
        message, author
            Of the commit; empty: which merge it is, and the user.
        strategy
            What to do with a path that both changed: ``refuse`` to merge, or take ``ours`` or ``theirs``.
        fast_forward
            Only move the branch where `source` follows its head.
        if_head
            Merge only if the branch is at this commit id.
        dry_run
            Write nothing.

        Raises
        ------
        MergeConflictError
            Both changed the same paths, and neither side is preferred. Nothing was written.
        ReadOnlyError
            The repo is the output of a pipeline.
        """
        if not dry_run:
            self._writable()
        named = str(source)
        commit = self._commit_in(repo, source)
        check_name(into, "branch")
        target = Target(repo, into, message or f"merge {named} into {repo}@{into}", author, False, if_head)
        from .sessions.branch_merge import merge_branch
        from .trees.merge import Prefer

        return merge_branch(
            self.archive,
            self.ledger,
            target,
            commit,
            prefer=Prefer(strategy),
            fast_forward=fast_forward,
            dry_run=dry_run,
            clock=self._clock,
        )

    def _session(self, target: Target, *, owned: bool = False) -> Session:
        self._writable()
        return Session(
            self.archive,
            self.ledger,
            target,
            open_commit=self.__getitem__,
            clock=self._clock,
            owned=owned,
            give_back=self._give_back,
        )

    def _give_back(self, keys: Sequence[str]) -> None:
        """Collect what an aborted session stored: somebody needs the space now."""
        from .gc.sweep import Collector

        try:
            done = Collector(self.backend, self.nodes, self.objects, self.ledger, grace_s=0).collect(frozenset(keys))
            logger.info("gave back %d bytes of what was not committed", done.freed_bytes)
        except DmlpipeError as error:
            logger.warning("what was not committed takes space until the next gc: %s", error)

    def _writable(self) -> None:
        if self.read_only:
            raise ReadOnlyError(f"{self.url} was opened read-only")

    def put(
        self,
        repo: str,
        *sources: Source,
        dest: str = "/",
        branch: str = DEFAULT_BRANCH,
        message: str = "",
        append: bool = False,
        mirror: bool = False,
        exclude: Sequence[str] = (),
        create: bool | None = None,
        if_head: str | None = None,
        link: bool = False,
    ) -> CommitView:
        """Put files and folders in one commit; return it, or the head if nothing changed.

        See `Session.put` for the sources and `commit` for the rest.
        """
        with self.commit(repo, branch, message, create=create, if_head=if_head) as session:
            session.put(list(sources), dest, append=append, mirror=mirror, exclude=exclude, link=link)
        assert session.result is not None
        return session.result

    # --- questions ------------------------------------------------------------------------------------------------

    def why(self, target: str | Ref) -> Derivation:
        """Say what made a file, a commit, or the content of a hash.

        Parameters
        ----------
        target
            ``repo@ref:/path``, ``repo@ref``, or 8 or more digits of a content hash that some branch's head holds.

        Raises
        ------
        NotFoundError
            There is no such thing.
        """
        from .provenance.explain import CONTENT_PREFIX_MIN, why

        state = self.refresh()
        content_hash = re.compile(rf"[0-9a-f]{{{CONTENT_PREFIX_MIN},64}}")
        if isinstance(target, str) and content_hash.fullmatch(target) and state.repo(target) is None:
            commit, path = self._find_content(target)
        else:
            ref = as_ref(target)
            commit, path = self[ref], ref.path or ""
        return why(self.archive, state, commit, path)

    def prove(self, target: str | Ref) -> bytes:
        """Return a proof that the store's history holds the file ``repo@ref:/path``; see `storage.proof`.

        Raises
        ------
        NotFoundError
            There is no such file.
        """
        from .provenance.proof import prove

        commit = self[target]
        if not commit.path:
            raise InvalidInputError(f"{target} names no file", code=ErrorCode.BAD_REF, hint="for example: repo:/path")
        return prove(self.archive, self.state, commit, commit.path)

    def impact(self, target: str | Ref) -> list[tuple[CommitView, JobState]]:
        """Return the commits that jobs made from a commit, directly or through others, with those jobs."""
        from .provenance.explain import impact

        commit = self[target]
        return list(impact(self.archive, self.state, commit))

    def fsck(self, *, links: bool = False, sample: float | None = None, progress: Progress | None = None) -> Report:
        """Check the whole store, or a sample of it, and with `links` the files that it links to; see `storage.fsck`."""
        from .fsck import fsck

        seen = self._head.read() if self._head is not None else None
        log = self.checked if self.backend.properties.shared or sample is not None else None
        return fsck(self.backend, seen=seen, links=links, progress=progress, sample=sample, log=log)

    def repair(
        self, sources: Iterable[Backend] = (), *, rederive: Rederive | None = None, progress: Progress | None = None
    ) -> Mended:
        """Check the whole store and mend what can be mended; see `storage.fsck.repair`.

        Parameters
        ----------
        sources
            Other places to look for what is lost: clones, archives, any store with the same content.
        rederive
            Makes outputs of pipelines again.
        progress
            Hears how far the check is.
        """
        from .fsck import Mirror, repair

        self._writable()
        seen = self._head.read() if self._head is not None else None
        places = list(sources)
        for place in places:
            read_info(place)
        mirrors = [Mirror(place) for place in places]
        mended = repair(self, mirrors=mirrors, rederive=rederive, seen=seen, progress=progress)
        index = self.sql_index
        if index.exists and mended.ok:
            self.refresh()
            wrong = index.mend(self.archive, self.ledger)
            if wrong:
                mended = mended.with_index(str(index.file), wrong)
        return mended

    @property
    def checked(self) -> CheckedLog:
        """When this machine last compared each object with its name."""
        from .fsck import CheckedLog

        return CheckedLog(self._own / "checked" / f"{self._place}.sqlite")

    @property
    def sql_index(self) -> SqlIndex:
        """The SQLite index in this machine's cache: made by its `refresh`, never needed."""
        from .provenance.sqlindex import SqlIndex

        return SqlIndex(self._own / "sql" / f"{self._place}.sqlite")

    def _find_content(self, prefix: str) -> tuple[CommitView, str]:
        from .provenance.explain import find_content

        places = find_content(self.archive, self.state, prefix)
        index = self.sql_index
        if index.exists:
            from .provenance import sqlindex

            try:
                index.refresh(self.archive, self.ledger)
                places = sqlindex.find_content(index, self.archive, self.state, prefix)
            except BackendError as error:
                logger.warning("%s; every branch's head is read instead", error)
        found = next(places, None)
        if found is None:
            raise NotFoundError(f"no branch's head holds content {prefix}", code=ErrorCode.NO_FILE)
        return found


_reopened: weakref.WeakValueDictionary[tuple[int, str, Path], Store] = weakref.WeakValueDictionary()
"""Stores of open commits that were unpickled here, by process, place and cache."""


def attach_open_commit(backend: Backend, cache_dir: Path, session: str) -> OpenCommit:
    """Return an open commit that was pickled, in whichever process this is."""
    key = (os.getpid(), backend.url, cache_dir)
    store = _reopened.get(key)
    if store is None:
        store = _reopened[key] = Store(backend, read_info(backend), cache_dir=cache_dir)
    return store.attach(session)
