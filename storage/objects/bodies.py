"""Bodies of commits and jobs: nodes, named by the hash of their canonical encoding (msgpack maps, fields in order)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from ..digest import Digest, from_hex, short
from ..errors import CorruptError
from ..records import Commit, JobRecord


class NodeReader(Protocol):
    """Where bodies are read."""

    def get(self, name: Digest) -> bytes:
        """Return a node's bytes, checked."""
        ...


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_commit_decoder = msgspec.msgpack.Decoder(Commit)
_job_decoder = msgspec.msgpack.Decoder(JobRecord)


def encode_body(body: Commit | JobRecord) -> bytes:
    """Return the canonical bytes of a body: what `NodeStore.put` takes, and whose hash is its id."""
    return _encoder.encode(body)


def read_commit(nodes: NodeReader, commit: str) -> Commit:
    """Return the body of a commit (hex id).

    Raises
    ------
    CorruptError
        The node is no commit.
    """
    try:
        return _commit_decoder.decode(nodes.get(from_hex(commit)))
    except msgspec.DecodeError as error:
        raise CorruptError(f"node {short(commit)} is no commit: {error}") from error


def read_job(nodes: NodeReader, record: str) -> JobRecord:
    """Return the job record that a node (hex name) holds.

    Raises
    ------
    CorruptError
        The node is no job record.
    """
    try:
        return _job_decoder.decode(nodes.get(from_hex(record)))
    except msgspec.DecodeError as error:
        raise CorruptError(f"node {short(record)} is no job record: {error}") from error


def code_trees(transform: Mapping[str, Any]) -> list[str]:
    """Return the trees of files that a transform runs with, hex: its code, and what its environment is made from."""
    environment = transform.get("environment")
    made_from = environment.get("tree") if isinstance(environment, Mapping) else ""
    return [str(tree) for tree in (transform.get("bundle"), transform.get("code"), made_from) if tree]
