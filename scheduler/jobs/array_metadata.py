"""The metadata of a pipeline's output array: it is the job's own, no datum's."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...storage import records as r
from ...storage.errors import CorruptError
from ...storage.trees.prolly import Tree
from ...worker.child.arrays import output_metadata
from ..inputs.expression import Array
from ..inputs.walk import leaves
from ..pipelines.spec import PipelineSpec
from .worker_spec import array_writes

__all__ = [
    "ARRAY_METADATA",
    "array_metadata",
]

ARRAY_METADATA = "zarr.json"
"""The file of an output array that is its job's own, no datum's."""


def array_metadata(
    spec: PipelineSpec,
    bindings: Mapping[str, r.InputBinding],
    open_tree: Callable[[str], Tree],
    read: Callable[[bytes], bytes],
) -> bytes:
    """Return `ARRAY_METADATA` of the output array of a job: the input's grid with another type.

    Parameters
    ----------
    open_tree, read
        As of `plan_job`.

    Raises
    ------
    CorruptError
        The pipeline writes no array, or its input is none.
    """
    writes = array_writes(spec)
    leaf = next((leaf for leaf in leaves(spec.input) if writes is not None and leaf.name == writes.like), None)
    if writes is None or not isinstance(leaf, Array):
        raise CorruptError(f"pipeline {spec.name} writes an array like an input that is none")
    folder = leaf.path.strip("/")
    raw = open_tree(bindings[leaf.name].tree).get((f"{folder}/zarr.json" if folder else "zarr.json").encode())
    if raw is None:
        raise CorruptError(f"{leaf.repo}:/{folder} holds no zarr.json")
    return output_metadata(read(raw), writes)
