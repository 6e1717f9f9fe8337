"""Input expressions: what a pipeline reads.

`files`, `values`, `array` and `cross` build frozen structs; what they mean for given commits is in `datums.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from ..storage.errors import ErrorCode, InvalidInputError
from ..storage.glob import compile_glob
from ..storage.paths import normalize_folder
from ..storage.refs import DEFAULT_BRANCH, check_name

__all__ = [
    "Array",
    "Cross",
    "Files",
    "Input",
    "Leaf",
    "Like",
    "Values",
    "array",
    "canonical_json",
    "cross",
    "files",
    "is_constant",
    "leaves",
    "like",
    "values",
]

VALUE_MAX_BYTES = 1024
"""Of a value's canonical JSON, which stands in datum keys."""

RESERVED_NAMES = ("out", ".env")
"""Beside the inputs in `/pfs` stand these two."""

_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)


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


Leaf = Files | Array | Values

Input = Files | Array | Values | Cross


class Like(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`writes=like("ndvi", dtype="uint8")`: an output array with the shape and chunks of an input."""

    input: str
    dtype: str
    fill_value: Any = 0


def files(repo: str, glob: str = "/", *, name: str | None = None, branch: str = DEFAULT_BRANCH) -> Files:
    """Files of a repo: one datum per file or folder that `glob` matches.

    Parameters
    ----------
    repo
        Name of a repo or pipeline.
    glob
        ``"/"``: the whole repo is one datum. ``"/*"``: each file or folder at the top. ``"/{stem}.png"``: each PNG
        at the top, with `stem` as a parameter. ``"/**"``: each file at any depth.
    name
        What the transform calls it; default: the repo's name.

    Examples
    --------
    >>> files("images", "/{stem}.png").glob
    '/{stem}.png'
    """
    check_name(repo)
    check_name(branch, "branch")
    return Files(repo=repo, glob=compile_glob(glob).pattern, name=_name(name, repo), branch=branch)


def array(
    repo: str, path: str = "/", *, name: str | None = None, branch: str = DEFAULT_BRANCH, halo: int | Sequence[int] = 0
) -> Array:
    """Return the chunks of a Zarr v3 array: one datum per chunk.

    Parameters
    ----------
    path
        Of the array in the repo: the folder that holds its ``zarr.json``. An array that a pipeline writes is its
        whole output, ``"/"``.
    halo
        Cells beyond the chunk that come along on each side, one number for all dimensions or one for each.
    """
    check_name(repo)
    check_name(branch, "branch")
    widths = (halo,) if isinstance(halo, int) else tuple(halo)
    if not all(isinstance(width, int) and width >= 0 for width in widths):
        raise _bad(f"a halo is a count of cells, 0 or more, or one for each dimension, got {halo!r}")
    if not any(widths):
        widths = ()
    return Array(
        repo=repo,
        path="/" + normalize_folder(path).decode(),
        name=_name(name, repo),
        branch=branch,
        halo=widths,
    )


def values(**lists: Iterable[Any]) -> Values | Cross:
    """Plain values: one datum per value; of several names: per combination.

    Examples
    --------
    >>> values(C=[0.1, 1, 10]).values
    (0.1, 1, 10)
    """
    if not lists:
        raise _bad("values() needs at least one list", hint="values(C=[0.1, 1, 10])")
    grids = tuple(Values(name=name, values=_values(name, given)) for name, given in lists.items())
    return grids[0] if len(grids) == 1 else Cross(inputs=grids)


def cross(*inputs: Input, **named: Input) -> Cross:
    """All combinations: one datum per choice of one datum from each input; none if any input yields none.

    Parameters
    ----------
    inputs
        Inputs that go by their own names.
    named
        Inputs and the names that the transform knows them by.
    """
    given = [*inputs, *(_renamed(node, name) for name, node in named.items())]
    if not given:
        raise _bad("cross() needs at least one input")
    for node in given:
        if not isinstance(node, Files | Array | Values | Cross):
            raise _bad(
                f"cross() takes inputs, got {type(node).__name__}: {node!r}",
                hint='files("images", "/*"), values(C=[1, 2])',
            )
    found = Cross(inputs=tuple(given))
    leaves(found)
    return found


def like(name: str, dtype: str, fill_value: Any = 0) -> Like:
    """Describe an output array with the shape and chunks of the array input `name`.

    Parameters
    ----------
    dtype
        Zarr's (and NumPy's) name: ``"uint8"``, ``"float32"``.
    fill_value
        What chunks that were not written hold.
    """
    if dtype not in _DTYPES:
        raise _bad(f"no dtype {dtype!r} for an output array", hint=f"there are {', '.join(_DTYPES)}")
    return Like(input=name, dtype=dtype, fill_value=fill_value)


def leaves(node: Input) -> tuple[Leaf, ...]:
    """Return what an expression is made of, in declared order, each with its final name.

    Raises
    ------
    InvalidInputError
        Two have one name, or a name is reserved (code ``bad-input``).
    """
    found = tuple(_walk(node))
    seen: set[str] = set()
    for leaf in found:
        if leaf.name in RESERVED_NAMES:
            raise _bad(f"an input cannot be named {leaf.name!r}", hint="give it another one with name=")
        if leaf.name in seen:
            raise _bad(
                f"two inputs are named {leaf.name!r}",
                hint="name them: cross(old=files(...), new=files(...)), or with name=",
            )
        seen.add(leaf.name)
    return found


def is_constant(leaf: Leaf) -> bool:
    """Whether an input yields exactly one file set by construction: then its content stands in the context."""
    return isinstance(leaf, Files) and compile_glob(leaf.glob).is_root


def canonical_json(value: Any) -> str:
    """Compact JSON with sorted keys: how a value stands in datum keys and plans.

    Examples
    --------
    >>> canonical_json({"b": 1.0, "a": [True, None]})
    '{"a":[true,null],"b":1.0}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _walk(node: Input) -> Iterator[Leaf]:
    match node:
        case Cross():
            for child in node.inputs:
                yield from _walk(child)
        case Files() | Array():
            yield msgspec.structs.replace(node, name=node.name or node.repo)
        case Values():
            yield node


def _name(name: str | None, repo: str) -> str:
    if name is None:
        return ""
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise _bad(f"an input of repo {repo!r} cannot be named {name!r}", hint="it is a variable and a folder's name")
    return name


def _renamed(node: Input, name: str) -> Input:
    if isinstance(node, Cross):
        raise _bad(f"a cross has no name of its own: {name}=cross(...)", hint="name the inputs inside it")
    if not isinstance(node, Files | Array | Values):
        raise _bad(f"cross() takes inputs, got {name}={node!r}", hint=f"{name}=files({name!r})")
    return msgspec.structs.replace(node, name=name)


def _values(name: str, given: Iterable[Any]) -> tuple[Any, ...]:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise _bad(f"values({name}=...) needs a list, got {given!r}", hint=f"values({name}=[{given!r}])")
    found = tuple(_plain(name, value) for value in given)
    if not found:
        raise _bad(f"values({name}=[]) is empty: there would never be a datum")
    seen: set[str] = set()
    for value in found:
        text = canonical_json(value)
        if text in seen:
            raise _bad(f"values({name}=...) has {text} twice")
        if len(text.encode()) > VALUE_MAX_BYTES:
            raise _bad(f"values({name}=...) has a value of {len(text.encode())} bytes; at most {VALUE_MAX_BYTES} fit")
        seen.add(text)
    return found


def _plain(name: str, value: Any) -> Any:
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        # NumPy's scalars and arrays, without importing it.
        value = value.tolist()
    try:
        canonical_json(value)
    except (TypeError, ValueError) as error:
        raise _bad(f"values({name}=...) takes plain values (numbers, text, lists), got {value!r}: {error}") from error
    return value


def _bad(message: str, *, hint: str | None = None) -> InvalidInputError:
    return InvalidInputError(message, code=ErrorCode.BAD_INPUT, hint=hint)
