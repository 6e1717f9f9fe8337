"""Check a store: the ledger's chain, that everything it refers to is there, and that all bytes are what they are named.

Three passes. The first folds the ledger from its first entry (`history.py`), the second reads objects and compares
them with their names (`contents.py`), the third follows everything that the ledger and open commits refer to
(`reach.py`). Only if something is wrong a fourth one names all that it touches (`touched.py`).

Writes nothing to the store; `repair.py` does. Checkpoints and indexes are derived: a bad one is reported as such and
costs time, not data. Objects that nothing refers to are counted; a crash leaves them, and they harm nobody.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..backend import Backend
from ..errors import BackendError
from ..ledger.heads import SeenHead
from ..objects.content import OBJECT_PREFIX
from ..objects.index import INDEX_PREFIX
from ..objects.node import NODE_PREFIX, NodeStore
from ..objects.pack import PACK_PREFIX
from ..sessions.parts import SESSIONS_PREFIX
from .contents import Contents, list_contents, locate_unread, read_contents
from .history import History, read_history
from .open_commits import open_parts
from .reach import Follower, Reached
from .report import Findings, Problem, Progress, Report
from .sample import CheckedLog, choose_sample
from .touched import Touched, find_touched

logger = logging.getLogger(__name__)

_COUNTED = (NODE_PREFIX, OBJECT_PREFIX, PACK_PREFIX, INDEX_PREFIX)


@dataclass(slots=True)
class Checked:
    """A check with all that it learned: what a repair begins from, and brings up to date."""

    report: Report
    history: History
    findings: Findings
    contents: Contents
    reached: Reached
    touched: Touched


def fsck(
    backend: Backend,
    *,
    seen: SeenHead | None = None,
    links: bool = False,
    progress: Progress | None = None,
    sample: float | None = None,
    log: CheckedLog | None = None,
) -> Report:
    """Check a store.

    Parameters
    ----------
    backend
        Where it is.
    seen
        The last ledger entry that this machine saw: the chain alone cannot tell whether its own end is genuine.
    links
        Look whether linked files are still what was put. One request each, to where they are.
    progress
        Hears how far the check is.
    sample
        Read only so much of the stored bytes (a fraction, > 0 and at most 1): what was never checked first, then what
        was checked longest ago. The ledger is read whole; nothing is followed unless something is wrong.
    log
        Remembers what was checked when.

    Returns
    -------
    Report
        Complete: a damaged object does not end the check.

    Raises
    ------
    BackendError
        The medium failed.
    """
    return examine(backend, seen=seen, links=links, progress=progress, sample=sample, log=log).report


def examine(
    backend: Backend,
    *,
    seen: SeenHead | None = None,
    links: bool = False,
    progress: Progress | None = None,
    sample: float | None = None,
    log: CheckedLog | None = None,
) -> Checked:
    """Check a store as `fsck` does, and return everything that was learned."""
    findings = Findings(progress=progress or _silent)
    nodes = NodeStore(backend, cache_nodes=64)
    history = read_history(backend, nodes, findings, seen)
    contents = list_contents(backend)
    only = None
    if sample is not None:
        only = choose_sample(contents.listed, log.times() if log is not None else {}, sample)
    read_contents(backend, history.state, contents, findings, only=only)
    never = 0
    if log is not None:
        listed = {key for keys in contents.listed.values() for key in keys}
        try:
            never = log.note(only if only is not None else listed, listed)
        except BackendError as error:
            if only is not None:  # the next sample would be this one again
                raise
            logger.warning("%s", error)
    if only is not None and findings.found:
        locate_unread(backend, contents, findings, only)
    follow = only is None or bool(findings.found)
    return conclude(
        backend, nodes, history, contents, findings, links=links, follow=follow, whole=only is None, never=never
    )


def conclude(
    backend: Backend,
    nodes: NodeStore,
    history: History,
    contents: Contents,
    findings: Findings,
    *,
    links: bool = False,
    follow: bool = True,
    whole: bool = True,
    never: int = 0,
) -> Checked:
    """Follow what the ledger refers to through what was read, and report; see `examine` for the parameters.

    Parameters
    ----------
    follow
        False: nothing is wrong with what was read, and that is enough.
    whole
        Everything was read, so that orphans can be told.
    """
    reached = Reached()
    sessions = contents.listed[SESSIONS_PREFIX.rstrip("/")]
    if follow:
        follower = Follower(backend, nodes, contents, findings, look_at_links=links)
        reached = follower.follow(history.state)
        follower.follow_open(open_parts(backend, nodes, history.state, sessions))
        follower.follow_checkpoints(root for n, _, root in history.checkpoints if n in history.sound)
    bad_links = frozenset(key for key, (kind, _) in findings.found.items() if kind == "link")
    touched = Touched()
    if reached.broken or bad_links:
        parts = open_parts(backend, nodes, history.state, sessions)
        touched = find_touched(history.state, nodes, reached, bad_links, parts)
    problems = sorted(
        Problem(kind, key, message, touched.touches.get(key, ())) for key, (kind, message) in findings.found.items()
    )
    orphans = 0
    if whole:
        orphans = sum(key not in reached.keys for prefix in _COUNTED for key in contents.listed[prefix])
    report = Report(
        problems=tuple(problems),
        entries=history.state.n + 1,
        commits=reached.commits,
        objects=findings.objects,
        size_bytes=findings.size_bytes,
        orphans=orphans,
        ignored=history.ignored,
        links=len(reached.links),
        stored=contents.stored() + history.state.n + 1,
        never=never,
    )
    return Checked(report, history, findings, contents, reached, touched)


def _silent(what: str, count: int) -> None:
    del what, count
