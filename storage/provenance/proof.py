"""Proofs of inclusion: that a store's history holds a certain file, checked without the store.

A proof goes from the path through the tree's nodes to the commit's body, to the ledger entry that holds the commit, and
along the chain of entries to a later one. Each link is named by the hash of what follows it, so whoever trusts the last
hash (their own note of a ledger head) need trust nothing else.

::

    proof = "dmlproof1" body hash
    body  = msgpack [1, repo, commit, path, [tree node...], commit body, n, [entry n, entry n + 1, ...]]
    hash  = of all bytes before it: finds accidents; against forgers stands the chain

What it does not show: that the entry counted (a reader ignores one whose records are invalid where they stand, which
only a forger writes), that the commit is a branch's head, or that later entries did not drop it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from ..archive import Archive
from ..backend import Backend
from ..commits import CommitView
from ..digest import DIGEST_SIZE, digest, from_hex
from ..errors import CorruptError, ErrorCode, FormatError, InvalidInputError, NotFoundError
from ..ledger.heads import SeenHead
from ..ledger.ledger import decode_entry, entry_key
from ..objects.value import Value, decode_value
from ..paths import normalize_path, show_path
from ..records import Commit, CommitMade
from ..refs import show_commit
from ..state import State
from ..trees.tree_proof import check_proof

MAGIC = b"dmlproof1"
VERSION = 1


class Proof(msgspec.Struct, frozen=True, array_like=True):
    """What a proof consists of; nothing in it is trusted."""

    v: int
    repo: str
    commit: str
    path: bytes
    nodes: tuple[bytes, ...]
    """From the tree's root to the leaf."""
    body: bytes
    """Of the commit."""
    n: int
    """Number of the first of `entries`, which holds the commit."""
    entries: tuple[bytes, ...]
    """As they are in the ledger."""


class _Link(msgspec.Struct):
    """What the chain needs of an entry, whatever version wrote its records."""

    n: int
    prev: str


@dataclass(frozen=True, slots=True)
class Proven:
    """What a proof shows to whoever trusts one of `hashes`."""

    repo: str
    commit: str
    path: str
    """With leading slash."""
    value: Value
    body: Commit
    n: int
    """Entry that holds the commit."""
    time: str
    actor: str
    """Who appended it, and when, as it says."""
    hashes: Mapping[int, str]
    """Hash of each entry from `n` to the last."""

    @property
    def head(self) -> SeenHead:
        """The last entry."""
        last = max(self.hashes)
        return SeenHead(n=last, hash=self.hashes[last])

    def anchored_by(self, head: SeenHead) -> bool:
        """Whether the chain contains a head that somebody trusts."""
        return self.hashes.get(head.n) == head.hash


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Proof)
_link_decoder = msgspec.json.Decoder(_Link)
_body_decoder = msgspec.msgpack.Decoder(Commit)


def prove(archive: Archive, state: State, commit: CommitView, path: str) -> bytes:
    """Return the proof that a commit holds a file, up to the last entry of `state`.

    Raises
    ------
    NotFoundError
        The commit has no such file.

    Notes
    -----
    Its size is that of 2 or 3 tree nodes and of all entries since the commit.
    """
    key = normalize_path(path)
    commit.value(path)  # says what is near if there is none
    found = state.commit(commit.repo, commit.id)
    if found is None:
        raise NotFoundError(f"no commit {show_commit(commit.repo, commit.id)}", code=ErrorCode.NO_COMMIT)
    entries = _read_entries(archive.backend, found.n, state.n)
    body = archive.nodes.get(from_hex(commit.id))
    proof = Proof(VERSION, commit.repo, commit.id, key, tuple(commit.tree.prove(key)), body, found.n, entries)
    return _encode(proof)


def verify(raw: bytes) -> Proven:
    """Check all that a proof says against its last hash, and return it. Needs no store.

    Raises
    ------
    CorruptError
        It is not what some client made: a single changed byte is enough.
    FormatError
        It is no proof, or one of a later version.

    Notes
    -----
    The result is worth what the head is worth that it is compared with: see `Proven.anchored_by`.
    """
    proof = _parse(raw)
    first = decode_entry(proof.entries[0], proof.n)
    hashes = _check_chain(proof)
    if not any(
        isinstance(record, CommitMade) and record.repo == proof.repo and record.id == proof.commit
        for record in first.recs
    ):
        raise CorruptError(f"entry {proof.n} does not hold commit {proof.commit[:12]} of {proof.repo!r}")
    if digest(proof.body).hex() != proof.commit:
        raise CorruptError(f"the body of commit {proof.commit[:12]} is another one")
    try:
        body = _body_decoder.decode(proof.body)
        root = from_hex(body.tree)
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: no UTF-8, or no hash
        raise CorruptError(f"the body of commit {proof.commit[:12]} is unreadable: {error}") from error
    value = check_proof(root, proof.path, proof.nodes)
    if value is None:
        raise CorruptError(f"{show_commit(proof.repo, proof.commit)} has no file {show_path(proof.path)}")
    try:
        content = decode_value(value)
    except msgspec.DecodeError as error:
        raise CorruptError(f"the value of {show_path(proof.path)} is unreadable: {error}") from error
    return Proven(
        proof.repo, proof.commit, show_path(proof.path), content, body, proof.n, first.ts, first.actor, hashes
    )


def parse_head(text: str) -> SeenHead:
    """Parse ``N:HASH``, a head that somebody trusts.

    Raises
    ------
    InvalidInputError
        It is none.
    """
    number, colon, name = text.partition(":")
    try:
        if not colon or not number.isdecimal():
            raise ValueError(text)
        return SeenHead(n=int(number), hash=from_hex(name).hex())
    except ValueError as error:
        raise InvalidInputError(
            f"{text!r} is no head: expected the number of an entry, a colon, and the 64 digits of its hash"
        ) from error


def _read_entries(backend: Backend, first: int, last: int) -> tuple[bytes, ...]:
    return tuple(backend.get_many([(entry_key(n), None, None) for n in range(first, last + 1)]))


def _encode(proof: Proof) -> bytes:
    raw = MAGIC + _encoder.encode(proof)
    return raw + digest(raw)


def _parse(raw: bytes) -> Proof:
    if not raw.startswith(MAGIC):
        raise FormatError(f"this is no proof: it does not begin with {MAGIC.decode()}")
    end = len(raw) - DIGEST_SIZE
    if end < len(MAGIC) or digest(raw[:end]) != raw[end:]:
        raise CorruptError("the proof is damaged: its bytes have another hash than it says")
    try:
        proof = _decoder.decode(raw[len(MAGIC) : end])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptError(f"the proof is unreadable: {error}") from error
    if proof.v != VERSION:
        raise FormatError(f"the proof has version {proof.v}: expected {VERSION}", hint="upgrade dmlpipe")
    if _encode(proof) != raw:
        raise CorruptError("the proof is not encoded as it has to be")
    if not proof.entries:
        raise CorruptError("the proof has no ledger entry")
    return proof


def _check_chain(proof: Proof) -> dict[int, str]:
    hashes: dict[int, str] = {}
    for n, link in enumerate(_links(proof.entries), proof.n):
        if link.n != n or (n > proof.n and link.prev != hashes[n - 1]):
            raise CorruptError(f"entry {n} of the proof does not follow the one before it")
        hashes[n] = digest(proof.entries[n - proof.n]).hex()
    return hashes


def _links(entries: Sequence[bytes]) -> list[_Link]:
    try:
        return [_link_decoder.decode(entry) for entry in entries]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptError(f"an entry of the proof is unreadable: {error}") from error
