"""Input expressions: what a pipeline reads. Frozen structs, nothing else.

An input's name is where it shows (a parameter, a folder in `/pfs`); members of a union may share one. How expressions
are written is in `leaf` and `combine`, what their datums hold in `scope`, and what they mean for given commits in
`streams` and the modules beside it.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.records import Trigger

__all__ = [
    "Array",
    "Cron",
    "Cross",
    "Files",
    "Group",
    "Input",
    "Join",
    "Leaf",
    "Like",
    "Union",
    "Values",
    "bad_input",
    "canonical_json",
]


class Cron(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The schedule whose ticks a repo holds."""

    spec: str
    start: str = ""
    """Ticks count from here, RFC 3339; empty: from the pipeline's first version."""
    overwrite: bool = False
    """A tick takes the place of the one before it."""


class Files(msgspec.Struct, frozen=True, kw_only=True, tag="files", omit_defaults=True):
    """Files of a repo that a glob matches: one datum per match."""

    repo: str
    glob: str = "/"
    name: str = ""
    branch: str = "master"
    join_on: str = ""
    """Of specs: what a join without `on` matches, `$1` standing for the first capture."""
    group_by: str = ""
    """Of specs: the same for a group without `by`."""
    folders: bool = False
    """Folders match a ``**``, too: Pachyderm's reading of it."""
    lazy: bool = False
    """Files are named pipes, fetched when they are opened."""
    empty: bool = False
    """Files are empty; a link in the output to one of them is a copy of what it stands for."""
    reference: bool = False
    """Content does not count: a change of it alone makes no datum run."""
    quiet: bool = False
    """A new commit starts no job by itself; the next job sees it."""
    cron: Cron | None = None
    trigger: Trigger | None = None
    """The rule by which the branch follows another one."""


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


class Union(msgspec.Struct, frozen=True, kw_only=True, tag="union", omit_defaults=True):
    """The datums of each input, one after the other."""

    inputs: tuple[Input, ...]


class Join(msgspec.Struct, frozen=True, kw_only=True, tag="join", omit_defaults=True):
    """Combinations whose key is equal."""

    inputs: tuple[Input, ...]
    on: tuple[str, ...] = ()
    """Captures that make the key; empty: each file's `join_on`."""
    outer: tuple[int, ...] = ()
    """Inputs (by position) whose datums stay where another input has none of their key."""


class Group(msgspec.Struct, frozen=True, kw_only=True, tag="group", omit_defaults=True):
    """One datum per key: all files of all inputs that have it."""

    inputs: tuple[Input, ...]
    by: tuple[str, ...] = ()
    """Captures that make the key; empty: each file's `group_by`."""


Leaf = Files | Array | Values

Input = Files | Array | Values | Cross | Union | Join | Group


class Like(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`writes=like("ndvi", dtype="uint8")`: an output array with the shape and chunks of an input."""

    input: str
    dtype: str
    fill_value: Any = 0


def canonical_json(value: Any) -> str:
    """Compact JSON with sorted keys: how a value stands in datum keys and plans.

    Examples
    --------
    >>> canonical_json({"b": 1.0, "a": [True, None]})
    '{"a":[true,null],"b":1.0}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def bad_input(message: str, *, hint: str | None = None) -> InvalidInputError:
    """Make the error that says what is wrong with an expression."""
    return InvalidInputError(message, code=ErrorCode.BAD_INPUT, hint=hint)
