"""A state whose edits count whole or not at all, and what several kinds of records do to it alike."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from .. import records as r
from .view import LAST, StateView, down, merge_edits, up


class Scratch(StateView):
    """A state whose edits are thrown away or taken over as a whole."""

    def __init__(self, below: StateView) -> None:
        super().__init__(None, below.n, below.chain)
        self._below = below

    @property
    def edits(self) -> dict[bytes, bytes | None]:
        """What was written so far; None drops a key."""
        return self._edits

    def get(self, key: bytes) -> bytes | None:
        """Value of a raw key."""
        return self._edits[key] if key in self._edits else self._below.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs whose raw key begins with `prefix`, sorted."""
        return merge_edits(_Below(self._below), self._edits, prefix)

    def put(self, key: str, value: object) -> None:
        """Set a key to a msgpack value."""
        self._edits[key.encode()] = msgspec.msgpack.encode(value)

    def put_text(self, key: str, value: str) -> None:
        """Set a key to a text as it is."""
        self._edits[key.encode()] = value.encode()

    def drop(self, key: str) -> None:
        """Take a key out."""
        self._edits[key.encode()] = None


class _Below:
    def __init__(self, state: StateView) -> None:
        self._state = state

    def get(self, key: bytes) -> bytes | None:
        return self._state.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return self._state.scan(prefix)


def add_content(s: Scratch, entry: r.Entry, packs: tuple[str, ...], index: str) -> None:
    """Packs that the entry is the first to need, and the index of what is in them."""
    if index:
        s.put_text(f"index/{down(entry.n)}/{index}", index)
    if packs:
        s.put(f"packs/{down(entry.n)}/{packs[0]}", packs)


def next_place(s: Scratch, kind: str, n: int) -> str:
    """Return the key for the next of what is listed newest first; of several in one entry the later is the newer."""
    prefix = f"{kind}/{down(n)}/"
    newest = next(s.scan(prefix.encode()), None)
    before = 0 if newest is None else LAST - int(newest[0][len(prefix) :]) + 1
    return f"{prefix}{down(before)}"


def add_cause(s: Scratch, entry: r.Entry, entry_hash: str, kind: str, subject: str) -> None:
    """Something begins a run: a branch (`repo@branch`) or a pipeline is the `subject`."""
    pipeline = s.pipeline(subject) if "@" not in subject else None
    if pipeline is not None and pipeline.standing:
        return
    cause = r.Cause(n=entry.n, hash=entry_hash, kind=kind, subject=subject)
    s.put(cause_key(cause), cause)


def cause_key(cause: r.Cause) -> str:
    """Return where a cause stands: causes are taken oldest first."""
    return f"cause/{up(cause.n)}/{cause.kind}/{cause.subject}"


def add_branch_cause(s: Scratch, entry: r.Entry, entry_hash: str, kind: str, repo: str, branch: str) -> None:
    """A branch moved; where only pipelines read it that this starts nothing for, that is no cause."""
    for name in s.readers(repo, branch):
        pipeline = s.pipeline(name)
        if pipeline is not None and (repo, branch) not in pipeline.quiet and not pipeline.standing:
            add_cause(s, entry, entry_hash, kind, f"{repo}@{branch}")
            return
