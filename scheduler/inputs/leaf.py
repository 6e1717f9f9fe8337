"""`files`, `array`, `values`: the leaves of an expression, checked where they are written; and `like`, made of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ...storage.glob import compile_glob
from ...storage.paths import normalize_folder
from ...storage.records import Trigger
from ...storage.refs import DEFAULT_BRANCH, check_name
from ...storage.triggers import check_trigger
from .expression import Array, Cross, Files, Like, Values, bad_input, canonical_json

__all__ = [
    "VALUE_MAX_BYTES",
    "array",
    "files",
    "like",
    "values",
]

VALUE_MAX_BYTES = 1024
"""Of a value's canonical JSON, which stands in datum keys."""


_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)


def files(
    repo: str,
    glob: str = "/",
    *,
    name: str | None = None,
    branch: str = DEFAULT_BRANCH,
    folders: bool = False,
    lazy: bool = False,
    empty: bool = False,
    reference: bool = False,
    propagate: bool = True,
    trigger: Trigger | None = None,
) -> Files:
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
    folders
        Folders match a ``**``, too, as in Pachyderm; then datums overlap.
    lazy
        Files are named pipes: each can be read once, from beginning to end, and is fetched when it is opened.
    empty
        Files are empty, and nothing is fetched: for code that looks at names. A link in the output to one of them (or a
        returned `Path`) is a copy of what it stands for.
    reference
        Its content does not count: a change of it alone makes no datum run.
    propagate
        False: a new commit starts no job by itself; the next job sees it.
    trigger
        `branch` follows another branch by this rule, see `dml.trigger`.

    Examples
    --------
    >>> files("images", "/{stem}.png").glob
    '/{stem}.png'
    """
    check_name(repo)
    check_name(branch, "branch")
    if lazy and empty:
        raise bad_input(f"files({repo!r}) is lazy and empty; choose one")
    if trigger is not None:
        if branch == trigger.on:
            raise bad_input(
                f"files({repo!r}): its branch {branch!r} cannot follow itself",
                hint=f'give the input a branch of its own, that follows {branch}: branch="batch"',
            )
        check_trigger(repo, branch, trigger)
    return Files(
        repo=repo,
        glob=compile_glob(glob).pattern,
        name=_name(name, repo),
        branch=branch,
        folders=folders,
        lazy=lazy,
        empty=empty,
        reference=reference,
        quiet=not propagate,
        trigger=trigger,
    )


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
        raise bad_input(f"a halo is a count of cells, 0 or more, or one for each dimension, got {halo!r}")
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
        raise bad_input("values() needs at least one list", hint="values(C=[0.1, 1, 10])")
    grids = tuple(Values(name=name, values=_values(name, given)) for name, given in lists.items())
    return grids[0] if len(grids) == 1 else Cross(inputs=grids)


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
        raise bad_input(f"no dtype {dtype!r} for an output array", hint=f"there are {', '.join(_DTYPES)}")
    return Like(input=name, dtype=dtype, fill_value=fill_value)


def _name(name: str | None, repo: str) -> str:
    if name is None:
        return ""
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise bad_input(
            f"an input of repo {repo!r} cannot be named {name!r}", hint="it is a variable and a folder's name"
        )
    return name


def _values(name: str, given: Iterable[Any]) -> tuple[Any, ...]:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise bad_input(f"values({name}=...) needs a list, got {given!r}", hint=f"values({name}=[{given!r}])")
    found = tuple(_plain(name, value) for value in given)
    if not found:
        raise bad_input(f"values({name}=[]) is empty: there would never be a datum")
    seen: set[str] = set()
    for value in found:
        text = canonical_json(value)
        if text in seen:
            raise bad_input(f"values({name}=...) has {text} twice")
        if len(text.encode()) > VALUE_MAX_BYTES:
            raise bad_input(
                f"values({name}=...) has a value of {len(text.encode())} bytes; at most {VALUE_MAX_BYTES} fit"
            )
        seen.add(text)
    return found


def _plain(name: str, value: Any) -> Any:
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        # NumPy's scalars and arrays, without importing it.
        value = value.tolist()
    try:
        canonical_json(value)
    except (TypeError, ValueError) as error:
        raise bad_input(
            f"values({name}=...) takes plain values (numbers, text, lists), got {value!r}: {error}"
        ) from error
    return value
