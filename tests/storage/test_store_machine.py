"""A store against a dictionary: what people do, by two clients that share a ledger, one of which dies now and then.

Commits, branches, merges, tags, squash, delete, gc. A client that dies does so at one of its writes, whichever the
search picks: what it was doing is done whole or not at all, and whoever opens the store next goes on.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dmlpipe.storage.errors import ConflictError, DmlpipeError, InvalidInputError, NotFoundError
from dmlpipe.storage.gc.retain import plan_delete, plan_squash
from dmlpipe.storage.gc.run import collect
from dmlpipe.storage.paths import folders_of
from dmlpipe.storage.sessions.branch_merge import MergeConflictError, MergeKind
from dmlpipe.storage.sessions.session import Session
from dmlpipe.storage.store import Store
from dmlpipe.storage.testing import Stopped, StoppingBackend

Files = dict[str, str]

_count = itertools.count()

clients = st.integers(0, 1)
branches = st.sampled_from(["master", "one", "two"])
tags = st.sampled_from(["v1", "v2"])
paths = st.sampled_from(["a", "b", "b/x", "c/1", "c/2", "c/2/deep", "d"])
texts = st.sampled_from(["1", "22", "3" * 200])
edits = st.lists(st.tuples(paths, texts | st.none()), min_size=1, max_size=3)


@dataclass(frozen=True)
class Version:
    """A commit of the model."""

    files: Files = field(compare=False)
    parents: tuple[str, ...]


def edited(files: Files, path: str, text: str | None) -> Files:
    """What `edit` makes of a commit's files."""
    if text is None:
        return {name: kept for name, kept in files.items() if not f"{name}/".startswith(f"{path}/")}
    return files | {path: text}


def edit(session: Session, path: str, text: str | None) -> None:
    if text is None:
        session.delete(path, missing_ok=True)
    else:
        session.write(path, text)


def is_consistent(files: Files) -> bool:
    return not any(folder.decode() in files for path in files for folder in folders_of(path.encode()))


class StoreMachine(RuleBasedStateMachine):
    """Each rule does one thing to the store, through either client, and to the model."""

    @initialize()
    def begin(self) -> None:
        url = f"memory://store-machine-{next(_count)}"
        first = Store.init(url)
        self.clients = [first, Store.open(url)]
        self.versions: dict[str, Version] = {}
        self.heads: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.gone: dict[str, tuple[str, ...]] = {}
        self.commit(0, "master", [("a", "1"), ("c/1", "1")])
        self.branch(1, "one", 0)

    # --- the model ------------------------------------------------------------------------------------------------

    def ancestors(self, commit: str) -> set[str]:
        found: set[str] = set()
        stack = [commit]
        while stack:
            found.add(each := stack.pop())
            stack += [parent for parent in self.live(self.versions[each].parents) if parent not in found]
        return found

    def live(self, parents: tuple[str, ...]) -> list[str]:
        """Those who ask for a commit that ended are led to what it followed."""
        return [
            found for parent in parents for found in (self.live(self.gone[parent]) if parent in self.gone else [parent])
        ]

    def bases(self, one: str, two: str) -> list[str]:
        common = self.ancestors(one) & self.ancestors(two)
        return [each for each in common if not any(each != other and each in self.ancestors(other) for other in common)]

    def merged(self, ours: str, theirs: str) -> Files | None:
        """What a merge makes, by its definition; None: it conflicts."""
        bases = [self.versions[base].files for base in self.bases(ours, theirs)]
        mine, other = self.versions[ours].files, self.versions[theirs].files
        result: Files = {}
        for path in set(mine) | set(other) | {path for base in bases for path in base}:
            before = {base.get(path) for base in bases} or {None}
            o, t = mine.get(path), other.get(path)
            if o == t:
                value = o
            elif before == {o}:
                value = t
            elif before == {t}:
                value = o
            else:
                return None
            if value is not None:
                result[path] = value
        return result if is_consistent(result) else None

    def note(self, commit: str, files: Files, *parents: str) -> None:
        self.versions[commit] = Version(files, parents)

    # --- what people do -------------------------------------------------------------------------------------------

    @rule(client=clients, branch=branches, edits=edits)
    def commit(self, client: int, branch: str, edits: list[tuple[str, str | None]]) -> None:
        head = self.heads.get(branch)
        files = dict(self.versions[head].files) if head else {}
        clash = False
        once = self.clients[client].transaction()
        session = once.commit("r", branch, create=True)
        try:
            for path, text in edits:
                files = edited(files, path, text)
                clash = clash or not is_consistent(files)
                edit(session, path, text)
            (made,) = once.publish()
        except InvalidInputError:
            assert clash
            once.abort()
            return
        assert is_consistent(files)
        if made.id in self.versions:
            assert (made.id, files) == (head, self.versions[made.id].files)
        else:
            self.note(made.id, files, *([head] if head else []))
        self.heads[branch] = made.id

    @rule(client=clients, branch=branches, number=st.integers(0, 20))
    @precondition(lambda self: self.versions)
    def branch(self, client: int, branch: str, number: int) -> None:
        at = list(self.versions)[number % len(self.versions)]
        if branch in self.heads:
            with pytest.raises(ConflictError):
                self.clients[client].create_branch("r", branch, at)
            self.clients[client].set_branch("r", branch, at)
        else:
            self.clients[client].create_branch("r", branch, at)
        self.heads[branch] = at

    @rule(client=clients, branch=branches)
    def delete_branch(self, client: int, branch: str) -> None:
        if branch in self.heads:
            self.clients[client].delete_branch("r", branch)
            del self.heads[branch]
        else:
            with pytest.raises(DmlpipeError):
                self.clients[client].delete_branch("r", branch)

    @rule(client=clients, tag=tags, branch=branches, force=st.booleans())
    def tag(self, client: int, tag: str, branch: str, force: bool) -> None:
        head = self.heads.get(branch)
        if head is None:
            with pytest.raises(DmlpipeError):
                self.clients[client].create_tag("r", tag, branch, force=force)
        elif self.tags.get(tag, head) != head and not force:
            with pytest.raises(ConflictError):
                self.clients[client].create_tag("r", tag, branch)
        else:
            self.clients[client].create_tag("r", tag, branch, force=force)
            self.tags[tag] = head

    @rule(client=clients, tag=tags)
    def delete_tag(self, client: int, tag: str) -> None:
        if tag in self.tags:
            self.clients[client].delete_tag("r", tag)
            del self.tags[tag]
        else:
            with pytest.raises(DmlpipeError):
                self.clients[client].delete_tag("r", tag)

    @rule(
        client=clients,
        number=st.integers(0, 20),
        into=branches,
        prefer=st.sampled_from(["refuse", "ours", "theirs"]),
        by_name=st.booleans(),
    )
    @precondition(lambda self: self.heads)
    def merge(self, client: int, number: int, into: str, prefer: str, by_name: bool) -> None:
        store = self.clients[client]
        if into not in self.heads:
            with pytest.raises(NotFoundError):
                store.merge("r", next(iter(self.heads)), into=into, strategy=prefer)
            return
        named = sorted({**self.tags, **self.heads}.items())
        source, theirs = named[number % len(named)]
        if not by_name:
            source = theirs = list(self.versions)[number % len(self.versions)]
        ours = self.heads[into]
        expected = self.merged(ours, theirs)
        if expected is None and prefer == "refuse":
            entries = store.refresh().n
            with pytest.raises(MergeConflictError) as caught:
                store.merge("r", source, into=into)
            assert caught.value.conflicts
            assert store.refresh().n == entries
            return
        result = store.merge("r", source, into=into, strategy=prefer)
        if theirs in self.ancestors(ours):
            assert (result.kind, result.commit.id) == (MergeKind.UP_TO_DATE, ours)
        elif ours in self.ancestors(theirs):
            assert (result.kind, result.commit.id) == (MergeKind.FAST_FORWARD, theirs)
        else:
            assert result.kind is MergeKind.MERGED
            files = {info.path[1:]: result.commit.read_text(info.path) for info in result.commit.ls(recursive=True)}
            assert expected is None or files == expected
            assert bool(result.conflicts) == (expected is None)
            winner = self.versions[ours if prefer == "ours" else theirs].files
            assert expected is not None or {
                files.get(each.path[1:]) for each in result.conflicts if not each.folder
            } <= {
                None,
                *winner.values(),
            }
            self.note(result.commit.id, files, ours, theirs)
        self.heads[into] = result.commit.id

    @rule(client=clients, number=st.integers(0, 20))
    @precondition(lambda self: len(self.versions) > 1)
    def squash(self, client: int, number: int) -> None:
        store = self.clients[client]
        commit = list(self.versions)[number % len(self.versions)]

        def squash() -> None:
            store.publish(lambda state: plan_squash(state, "r", commit, lambda each: store.body(each).parents))

        if commit in {*self.heads.values(), *self.tags.values()}:
            with pytest.raises(DmlpipeError):
                squash()
            return
        squash()
        self.gone[commit] = self.versions.pop(commit).parents

    @rule(client=clients, number=st.integers(0, 20))
    @precondition(lambda self: self.versions)
    def delete(self, client: int, number: int) -> None:
        """Take a commit back: branches that are at it go to what it followed."""
        store = self.clients[client]
        commit = list(self.versions)[number % len(self.versions)]
        at_it = [branch for branch, head in self.heads.items() if head == commit]

        def delete() -> None:
            store.publish(lambda state: plan_delete(state, "r", commit, lambda each: store.body(each).parents))

        if not at_it or commit in self.tags.values():
            with pytest.raises(DmlpipeError):
                delete()
            return
        delete()
        self.gone[commit] = self.versions.pop(commit).parents
        followed = self.live(self.gone[commit])
        for branch in at_it:
            if followed:
                self.heads[branch] = followed[0]
            else:
                del self.heads[branch]

    @rule(client=clients, branch=branches, edits=edits, writes=st.integers(0, 6), after=st.booleans())
    def die(self, client: int, branch: str, edits: list[tuple[str, str | None]], writes: int, after: bool) -> None:
        """Commit, and die at a write: the commit is there whole, or not at all."""
        living = self.clients[client]
        head = self.heads.get(branch)
        files = dict(self.versions[head].files) if head else {}
        stopping = StoppingBackend(living.backend, writes, after=after)
        dying = Store(stopping, living.info, cache_dir=living.cache_dir)
        once = dying.transaction()
        session = once.commit("r", branch, create=True)
        try:
            for path, text in edits:
                files = edited(files, path, text)
                edit(session, path, text)
            once.publish()
        except Stopped:
            pass
        except InvalidInputError:
            return  # a name that is both a file and a folder, as in `commit`
        self.clients[client] = Store.open(living.url)
        now = self.clients[client].refresh().head("r", branch)
        assert stopping.dead or now is not None or not files
        if now is not None and now != head:
            if now not in self.versions:
                self.note(now, files, *([head] if head else []))
            assert self.versions[now].files == files
            self.heads[branch] = now

    @rule(client=clients)
    def collect(self, client: int) -> None:
        collect(self.clients[client], grace_s=0)

    @rule(client=clients)
    def reopen(self, client: int) -> None:
        self.clients[client] = Store.open(self.clients[client].url)

    # --- what holds -----------------------------------------------------------------------------------------------

    @invariant()
    def both_clients_see_the_model(self) -> None:
        for store in self.clients:
            state = store.refresh()
            assert state.branches("r") == self.heads
            assert state.tags("r") == self.tags
            assert set(state.commits_by_prefix("r", "")) == set(self.versions)

    def teardown(self) -> None:
        store = Store.open(self.clients[0].url)
        for commit, version in self.versions.items():
            view = store[f"r@{commit}"]
            assert {info.path[1:]: view.read_text(info.path) for info in view.ls(recursive=True)} == version.files
            assert view.parents == version.parents
            assert (view.files, view.size) == (len(version.files), sum(map(len, version.files.values())))
        assert store.fsck().ok


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
