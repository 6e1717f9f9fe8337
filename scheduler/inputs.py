"""Input expressions: what a pipeline reads.

`files`, `values`, `array` and `cross` build frozen structs; what they mean for given commits is in `datums.py`.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Files(msgspec.Struct, frozen=True, kw_only=True, tag="files", omit_defaults=True):
    """Files of a repo that a glob matches: one datum per match."""

    repo: str
    glob: str = "/"
    name: str = ""
    branch: str = "master"


class Array(msgspec.Struct, frozen=True, kw_only=True, tag="array", omit_defaults=True):
    """A Zarr array of a repo: one datum per chunk."""

    repo: str
    path: str
    name: str = ""
    branch: str = "master"
    halo: tuple[int, ...] = ()
    """Cells read beyond the chunk in each dimension; one number counts for all."""


class Values(msgspec.Struct, frozen=True, kw_only=True, tag="values", omit_defaults=True):
    """A grid of plain values: one datum per value."""

    name: str
    values: tuple[Any, ...]


class Cross(msgspec.Struct, frozen=True, kw_only=True, tag="cross", omit_defaults=True):
    """All combinations."""

    inputs: tuple[Input, ...]


Input = Files | Array | Values | Cross


class Like(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`writes=like("ndvi", dtype="uint8")`: an output array with the shape and chunks of an input."""

    input: str
    dtype: str
    fill_value: Any = 0
