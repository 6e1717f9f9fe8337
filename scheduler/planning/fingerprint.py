"""Hashes that say when results may be reused: the context K and a datum's fingerprint.

Neither holds a name of a pipeline, repo, branch, commit, job or host, nor a time: so a renamed or copied pipeline, a
reverted model and a promoted backtest find their results. Values of a grid are not in K (they are in the
fingerprints of their datums), so that a longer grid runs only what is new.

Pure. The encodings are fixed: changing one makes every stored result unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ...storage.digest import Digest, digest
from ..inputs.expression import Array, Cross, Files, Group, Input, Join, Union, Values
from ..pipelines.spec import PipelineSpec, expression

__all__ = ["CONTEXT_FORMAT", "context_key", "datum_fingerprint"]

CONTEXT_FORMAT = "context-1"
"""Part of every K; a new one when what a result means changes."""

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


def context_key(spec: PipelineSpec, constants: Mapping[str, bytes]) -> Digest:
    """Return K: what all datums of a job share and what determines their outputs.

    Parameters
    ----------
    spec
        The pipeline's version.
    constants
        Content id of each constant input by name: the root of its commit's tree; empty if it has no commit.
    """
    return digest(
        _encode(
            [
                CONTEXT_FORMAT,
                spec.code_id,
                spec.parameters,
                spec.env,
                spec.salt,
                spec.writes,
                _shape(spec.input),
                dict(constants),
                *(["by-content"] if spec.by_content else []),
            ]
        )
    )


def datum_fingerprint(context: bytes, inputs: Sequence[tuple[str, Sequence[tuple[bytes, bytes]]]]) -> Digest:
    """Return the hash of all that determines one datum's outputs.

    Parameters
    ----------
    context
        K.
    inputs
        For each varying input, in declared order: its name and (path, content id) of what it contributes: one, a
        group's files, or nothing.
    """
    return digest(_encode([context, inputs]))


def _shape(node: Input) -> Any:
    match node:
        case Values():
            return ["values", node.name]
        case Cross():
            return ["cross", *[_shape(child) for child in node.inputs]]
        case Union():
            return ["union", *[_shape(child) for child in node.inputs]]
        case Join():
            return ["join", node.on, node.outer, *[_shape(child) for child in node.inputs]]
        case Group():
            return ["group", node.by, *[_shape(child) for child in node.inputs]]
        case Files() | Array():
            return expression(node)
