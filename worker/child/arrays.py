"""Regions of Zarr v3 arrays for user code: which chunks a box needs, reading it, encoding an output chunk.

An array reaches user code as a folder that holds ``zarr.json`` and the chunks that are needed; zarr is imported where
one is read, never before.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from ...storage.errors import ErrorCode, InvalidInputError, UserCodeError
from ..job import ArrayWrites
from .wire import Box

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

METADATA_FILE = "zarr.json"


class Grid(msgspec.Struct, frozen=True):
    """How an array is cut into chunks."""

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    separator: str = "/"
    prefix: tuple[str, ...] = ("c",)
    """What stands before the numbers: nothing in the encoding of format 2."""

    def key(self, index: tuple[int, ...]) -> str:
        """File of the chunk at a grid index, below the array's folder."""
        return self.separator.join((*self.prefix, *map(str, index))) or "0"

    def covering(self, box: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, ...]]:
        """Grid indexes of the chunks that overlap a box."""
        spans = [range(start // c, math.ceil(stop / c)) for (start, stop), c in zip(box, self.chunk, strict=True)]
        return itertools.product(*spans)

    def box(self, index: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """Cells of a chunk, clipped to the shape."""
        return tuple((i * c, min((i + 1) * c, s)) for i, c, s in zip(index, self.chunk, self.shape, strict=True))


def parse_grid(metadata: bytes, where: str) -> Grid:
    """Read shape and chunks from a ``zarr.json``.

    Raises
    ------
    InvalidInputError
        It is no Zarr v3 array with a regular grid.
    """
    try:
        meta = json.loads(metadata)
        if meta["zarr_format"] != 3 or meta["node_type"] != "array" or meta["chunk_grid"]["name"] != "regular":
            raise ValueError("not an array of Zarr format 3 with a regular grid")
        encoding: dict[str, Any] = meta.get("chunk_key_encoding") or {"name": "default"}
        own = encoding["name"] == "default"
        if not own and encoding["name"] != "v2":
            raise ValueError(f"chunk key encoding {encoding['name']!r}; expected 'default' or 'v2'")
        return Grid(
            tuple(meta["shape"]),
            tuple(meta["chunk_grid"]["configuration"]["chunk_shape"]),
            encoding.get("configuration", {}).get("separator", "/" if own else "."),
            ("c",) if own else (),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise InvalidInputError(f"{where}: not a readable array: {err}", code=ErrorCode.BAD_INPUT) from err


def output_metadata(like: bytes, writes: ArrayWrites) -> bytes:
    """Return the ``zarr.json`` of an output array: shape, chunks and names of `like`, its own dtype and codecs.

    Canonical: a function of its arguments alone, so that equal jobs write equal metadata.
    """
    meta = json.loads(like)
    body: dict[str, Any] = {
        "attributes": {},
        "chunk_grid": meta["chunk_grid"],
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "zstd", "configuration": {"level": 0, "checksum": False}},
        ],
        "data_type": writes.dtype,
        "fill_value": writes.fill_value,
        "node_type": "array",
        "shape": meta["shape"],
        "storage_transformers": [],
        "zarr_format": 3,
    }
    if meta.get("dimension_names"):
        body["dimension_names"] = meta["dimension_names"]
    return json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False).encode()


def read_box(folder: str, box: Box | None) -> npt.NDArray[Any]:
    """Read a region (all of the array without `box`), writable and contiguous."""
    import numpy as np
    import zarr
    import zarr.storage

    array = zarr.open_array(zarr.storage.LocalStore(folder, read_only=True), mode="r")
    selection = ... if box is None else tuple(slice(start, stop) for start, stop in box.read)
    return np.array(array[selection])


def dimension_names(folder: str) -> list[str] | None:
    """Names of the dimensions as the metadata says."""
    with open(f"{folder}/{METADATA_FILE}", "rb") as file:
        names: list[str] | None = json.load(file).get("dimension_names")
    return names


def encode_chunk(result: object, box: Box, metadata: bytes) -> tuple[str, bytes]:
    """Encode a returned array as the output chunk at the box's core.

    Returns
    -------
    tuple[str, bytes]
        The chunk's file below the output array's folder, and its content.

    Raises
    ------
    UserCodeError
        It is no array, or neither the core's shape nor (with a halo) the shape that was read, or its dtype cannot
        become the declared one without loss of kind.
    """
    import numpy as np
    import zstandard

    meta = json.loads(metadata)
    grid = parse_grid(metadata, "output array")
    wanted = np.dtype(meta["data_type"]).newbyteorder("<")
    values = getattr(result, "values", result) if type(result).__module__.startswith("xarray") else result
    if not isinstance(values, np.ndarray | np.generic):
        raise UserCodeError(f"it returned a {type(result).__name__}; expected an array (writes=)")
    cells: npt.NDArray[Any] = np.asarray(values)
    core = tuple(stop - start for start, stop in box.core)
    read = tuple(stop - start for start, stop in box.read)
    if cells.shape == read and read != core:
        inner = zip(box.core, box.read, strict=True)
        cells = cells[tuple(slice(c0 - r0, c1 - r0) for (c0, c1), (r0, _) in inner)]
    if cells.shape != core:
        also = "" if read == core else f" or {read}, the shape read"
        raise UserCodeError(f"it returned an array of shape {cells.shape}; expected {core}{also}")
    if not np.can_cast(cells.dtype, wanted, "same_kind") and not _fits(cells, wanted):
        raise UserCodeError(f"it returned {cells.dtype}; writes= declares {meta['data_type']}, which loses values")
    full = np.full(grid.chunk, _fill(meta["fill_value"], wanted), dtype=wanted)
    full[tuple(slice(0, n) for n in core)] = cells
    data = zstandard.ZstdCompressor(level=0).compress(full.tobytes())
    index = tuple(start // c for (start, _), c in zip(box.core, grid.chunk, strict=True))
    return grid.key(index), data


def _fits(cells: npt.NDArray[Any], wanted: np.dtype[Any]) -> bool:
    """Whole numbers may change their type where every value survives."""
    import numpy as np

    if cells.dtype.kind not in "biu" or wanted.kind not in "iu":
        return False
    return bool(np.array_equal(cells.astype(wanted), cells))


def _fill(value: Any, dtype: np.dtype[Any]) -> Any:
    special = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
    return dtype.type(special.get(value, value) if isinstance(value, str) else value)
