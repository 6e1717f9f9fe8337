"""Where following begins: everything that a state refers to by itself, in the order in which people ask for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from ..digest import Digest, from_hex
from ..errors import CorruptError, NotFoundError
from ..gc.mark import input_trees, keeps_results, keeps_rows
from ..objects.bodies import NodeReader, code_trees, read_commit, read_job
from ..records import Context
from ..refs import show_commit
from ..state import State


class Root(NamedTuple):
    """One thing to follow."""

    what: str
    """As `Touch.what`."""
    name: str
    """What people call it: ``r@master``, ``job 20ce...``."""
    node: Digest | None = None
    """A body that it needs."""
    tree: Digest | None = None
    """A tree that it needs, with all below."""
    kind: str = "plain"
    """Of the tree: one of `trees.VALUES`."""
    blob: Digest | None = None
    job: str = ""
    """Of a commit's tree: the job that made it."""
    unreadable: tuple[Digest, str] | None = None
    """A node that is there and is no body, with the reason."""


def roots(state: State, nodes: NodeReader) -> Iterator[Root]:
    """Yield everything that a state refers to: heads, older commits, then what the engine keeps of jobs.

    A body that cannot be read is yielded, and what hangs below it is not.
    """
    yield from _commits(state, nodes)
    for name, context in (*state.contexts(), *state.replaced_contexts()):
        yield from _context(f"context {name[:12]}", context)
    with_rows: set[str] = set()
    for name, job in state.jobs():
        about = f"job {name}"
        origins: Iterable[str] = ()
        if job.end.record:
            yield Root("job", about, node=from_hex(job.end.record))
            try:
                body = read_job(nodes, job.end.record)
            except NotFoundError:
                continue
            except CorruptError as error:
                yield Root("job", about, unreadable=(from_hex(job.end.record), str(error)))
                continue
            origins = body.origins
            if keeps_results(state, job):
                yield from _tree("job", about, body.out, "files")
                for root in (body.t, body.p):
                    yield from _tree("job", about, root)
            yield from _spec("job", about, body.spec, nodes)
            yield from _tree("job", about, body.bundle, "code")
        if keeps_rows(state, job):
            with_rows |= {name, *origins}
    for name, job in state.jobs():
        if name in with_rows:
            yield from _tree("job", f"job {name}", job.end.rows)
    for name, _ in state.pipelines():
        for version, recorded in state.versions(name):
            yield from _spec("pipeline", f"pipeline {name} version {version}", recorded.spec, nodes)


def _commits(state: State, nodes: NodeReader) -> Iterator[Root]:
    heads = [
        (repo, commit, f"{repo}@{branch}")
        for repo, _ in state.repos()
        for branch, commit in sorted(state.branches(repo).items())
    ]
    done = {(repo, commit) for repo, commit, _ in heads}
    older = []
    for key, _ in state.scan(b"commit/"):
        _, repo, commit = key.decode().split("/", 2)
        if (repo, commit) not in done:
            older.append((repo, commit, show_commit(repo, commit)))
    for _, commit, shown in (*heads, *older):
        yield Root("commit", shown, node=from_hex(commit))
        try:
            body = read_commit(nodes, commit)
        except NotFoundError:
            continue
        except CorruptError as error:
            yield Root("commit", shown, unreadable=(from_hex(commit), str(error)))
            continue
        if body.tree:
            yield Root("commit", shown, tree=from_hex(body.tree), kind="files", job=body.job)
        yield from _tree("commit", shown, body.failed)


def _context(about: str, context: Context) -> Iterator[Root]:
    yield from _tree("context", about, context.out, "files")
    yield from _tree("context", about, context.metadata, "files")
    yield from _tree("context", about, context.s, "memo")
    for root in (context.t, context.p, context.f, *input_trees(context)):
        yield from _tree("context", about, root)


def _tree(what: str, about: str, root: str, kind: str = "plain") -> Iterator[Root]:
    if root:
        yield Root(what, about, tree=from_hex(root), kind=kind)


def _spec(what: str, about: str, spec: str, nodes: NodeReader) -> Iterator[Root]:
    if not spec:
        return
    yield Root(what, about, node=from_hex(spec))
    try:
        body = msgspec.msgpack.decode(nodes.get(from_hex(spec)), type=dict[str, Any])
    except NotFoundError:
        return
    except (CorruptError, msgspec.DecodeError) as error:
        yield Root(what, about, unreadable=(from_hex(spec), f"it is no pipeline spec: {error}"))
        return
    transform = body.get("transform")
    if isinstance(transform, dict):
        for tree in code_trees(transform):
            yield from _tree(what, about, tree, "code")
        pickled = str(transform.get("pickled") or "")
        if pickled:
            yield Root(what, about, blob=from_hex(pickled))
