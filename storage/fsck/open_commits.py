"""What open commits need: their writers' parts, which no ledger entry refers to yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..backend import Backend
from ..errors import CorruptError, FormatError, NotFoundError
from ..ledger.sweeps import read_list
from ..objects.condemned import SweepList
from ..objects.node import NodeStore
from ..sessions.parts import Part, decode_part, read_open
from ..state import State
from ..trees.operations import Append, Put


class OpenPart(NamedTuple):
    """What one writer left for an open commit."""

    name: str
    """What people call the commit: ``open commit 5f0c... of r@master``."""
    key: str
    """Of the part."""
    files: tuple[tuple[bytes, bytes], ...] = ()
    """Paths with their values, encoded."""
    objects: tuple[str, ...] = ()
    """Keys of what it says that it needs: packs, their index, nodes, loose objects."""


def open_parts(backend: Backend, nodes: NodeStore, state: State, listed: Iterable[str]) -> Iterator[OpenPart]:
    """Yield the parts that may still be published; one that cannot be read needs nothing but itself.

    Parameters
    ----------
    listed
        Keys below ``sessions/``.

    Notes
    -----
    Left out are parts of commits that were published meanwhile, and those that a sweep voided: what they need may be
    gone, and committing them says so.
    """
    sweeps = [(n, read_list(nodes, sweep)) for n, sweep in state.sweeps()]
    for key in listed:
        session = key.split("/")[1]
        if not key.endswith(".mp") or state.session(session) is not None:
            continue
        name = _name(backend, session)
        try:
            part = decode_part(key, backend.get(key))
        except NotFoundError:  # published or aborted since it was listed
            continue
        except (CorruptError, FormatError):
            yield OpenPart(name, key)
            continue
        if any(n > part.since and _voids(sweep, part) for n, sweep in sweeps):
            continue
        files = tuple((edit.path, edit.value) for edit in part.log() if isinstance(edit, Put | Append))
        index = (part.index,) if part.index else ()
        yield OpenPart(name, key, files, (*part.packs, *index, *part.keys))


def _voids(sweep: SweepList | None, part: Part) -> bool:
    if sweep is None:
        return True
    needed = {*part.keys, *part.packs, part.index}
    return not needed.isdisjoint(sweep.keys) or not set(part.blobs).isdisjoint(sweep.blobs)


def _name(backend: Backend, session: str) -> str:
    try:
        info = read_open(backend, session)
    except (CorruptError, FormatError):
        info = None
    return f"open commit {session}" + (f" of {info.repo}@{info.branch}" if info is not None else "")
