"""Input expressions: what a pipeline reads.

`files`, `values`, `array`, `cross`, `union`, `join` and `group` build frozen structs; what they mean for given commits
is in `datums.py`. An input's name is where it shows (a parameter, a folder in `/pfs`); members of a union may share
one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.glob import compile_glob
from ...storage.paths import normalize_folder
from ...storage.records import Trigger
from ...storage.refs import DEFAULT_BRANCH, check_name
from ...storage.triggers import check_trigger

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
    "Named",
    "Placed",
    "Scope",
    "Slot",
    "Union",
    "Values",
    "array",
    "canonical_json",
    "constants",
    "cross",
    "factors",
    "files",
    "followed",
    "group",
    "is_constant",
    "join",
    "leaves",
    "like",
    "placed",
    "scope",
    "union",
    "values",
]

VALUE_MAX_BYTES = 1024
"""Of a value's canonical JSON, which stands in datum keys."""

RESERVED_NAMES = ("out", ".env")
"""Beside the inputs in `/pfs` stand these two."""

MEMBERS_MAX = 256
"""Of a union: a member's number stands in datum keys, with two digits."""

_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)


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

_NODES = (Cross, Union, Join, Group)


class Like(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`writes=like("ndvi", dtype="uint8")`: an output array with the shape and chunks of an input."""

    input: str
    dtype: str
    fill_value: Any = 0


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
        raise _bad(f"files({repo!r}) is lazy and empty; choose one")
    if trigger is not None:
        if branch == trigger.on:
            raise _bad(
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
    found = Cross(inputs=_given("cross", inputs, named))
    scope(found)
    return found


def union(*inputs: Input, **named: Input) -> Union:
    """All datums of each input, one after the other.

    An input that is not in every member is absent from the other members' datums: its parameter is ``Path | None``.
    Members may share a name: then the transform sees one input.

    Examples
    --------
    >>> both = union(files("north", "/*", name="shop"), files("south", "/*", name="shop"))
    >>> list(scope(both).slots)
    ['shop']
    """
    found = Union(inputs=_given("union", inputs, named))
    if len(found.inputs) > MEMBERS_MAX:
        raise _bad(f"union() takes at most {MEMBERS_MAX} inputs, got {len(found.inputs)}")
    scope(found)
    return found


def join(
    *inputs: Input,
    on: str | Sequence[str] | None = None,
    outer: bool | str | Sequence[str] = False,
    **named: Input,
) -> Join:
    """Combinations of datums, one of each input, that agree in their key.

    Parameters
    ----------
    inputs, named
        As of `cross`.
    on
        The captures that make the key; default: those that all inputs share.
    outer
        Names of inputs whose datums stay, without a partner, where another input has none of their key; True: of all.
        An input that may be missing is ``Path | None``.

    Examples
    --------
    >>> join(r1=files("reads", "/{sample}_R1.fq"), r2=files("reads", "/{sample}_R2.fq")).on
    ('sample',)
    """
    nodes = _given("join", inputs, named)
    kept = _outer(nodes, outer)
    keys = _keys("join", "on", nodes, on)
    if not keys:
        raise _bad("join(on=[]) has no key: every combination is cross(...)")
    found = Join(inputs=nodes, on=keys, outer=kept)
    scope(found)
    return found


def group(*inputs: Input, by: str | Sequence[str] | None = None, **named: Input) -> Group:
    """One datum per key, with all files of all inputs that have it: parameters are ``list[Path]``.

    Parameters
    ----------
    inputs, named
        As of `cross`.
    by
        The captures that make the key; default: those that all inputs share. ``[]``: all files are one datum.

    Examples
    --------
    >>> group(files("purchases", "/{shop}/{day}.csv"), by="shop").by
    ('shop',)
    """
    nodes = _given("group", inputs, named)
    if by is None and len(nodes) == 1:
        raise _bad("group() of one input needs to know by what", hint='by="..." names one of its captures')
    found = Group(inputs=nodes, by=_keys("group", "by", nodes, by))
    scope(found)
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


class Placed(NamedTuple):
    """A leaf with its place in an expression."""

    label: str
    """Its name; of union members that share one, the second is `name/2`. Commits are recorded under it."""
    mark: bytes
    """Tells apart members of a union that share a name and read it otherwise; empty for the first."""
    leaf: Leaf
    """With its final name."""


class Slot(NamedTuple):
    """One name that comes in."""

    name: str
    leaves: tuple[Leaf, ...]
    """Several: of union members."""
    optional: bool = False
    """Whether it may be missing from a datum."""
    many: bool = False
    """Whether it is a group's: all its files of the key."""


class Named(NamedTuple):
    """A capture that comes along."""

    slot: str
    """The first input that has it."""
    optional: bool = False
    clash: bool = False
    """Whether two inputs of one datum have it, with texts that may differ."""


class Scope(NamedTuple):
    """What the datums of an expression hold."""

    slots: dict[str, Slot]
    captures: dict[str, Named]


def leaves(node: Input) -> tuple[Leaf, ...]:
    """Return what an expression is made of, in declared order, each with its final name.

    Raises
    ------
    InvalidInputError
        Two have one name, or a name is reserved (code ``bad-input``).
    """
    scope(node)
    return tuple(_walk(node))


def placed(node: Input) -> tuple[Placed, ...]:
    """Return the leaves in declared order, each with its label and mark."""
    readings: dict[str, list[Any]] = {}
    seen: dict[str, int] = {}
    found = []
    for leaf in leaves(node):
        seen[leaf.name] = number = seen.get(leaf.name, 0) + 1
        label = leaf.name if number == 1 else f"{leaf.name}/{number}"
        known = readings.setdefault(leaf.name, [])
        reading = _reading(leaf)
        if reading not in known:
            known.append(reading)
        at = known.index(reading)
        found.append(Placed(label, str(at).encode() if at else b"", leaf))
    return tuple(found)


def followed(node: Input) -> dict[str, Files | Array]:
    """Return the leaves that follow a branch, by label."""
    return {entry.label: entry.leaf for entry in placed(node) if not isinstance(entry.leaf, Values)}


def factors(node: Input) -> tuple[Input, ...]:
    """Return the sides of the cross that an expression is, nested crosses included; of anything else, itself."""
    if isinstance(node, Cross):
        return tuple(found for child in node.inputs for found in factors(child))
    return (node,)


def constants(node: Input) -> frozenset[str]:
    """Names of the inputs that are the same in every datum: their content stands in the context."""
    return frozenset(side.name or side.repo for side in factors(node) if isinstance(side, Files) and is_constant(side))


def is_constant(leaf: Leaf) -> bool:
    """Whether an input yields exactly one file set by construction; inside a union, join or group it varies even so.

    Files that stand for content are a datum's own: they are not shared.
    """
    return isinstance(leaf, Files) and compile_glob(leaf.glob).is_root and not (leaf.lazy or leaf.empty)


def scope(node: Input) -> Scope:
    """Return the names and captures that an expression's datums hold.

    Raises
    ------
    InvalidInputError
        Two inputs have one name and are not members of one union, or a name is reserved (code ``bad-input``).
    """
    match node:
        case Files() | Array() | Values():
            (leaf,) = _walk(node)
            if leaf.name in RESERVED_NAMES:
                raise _bad(f"an input cannot be named {leaf.name!r}", hint="give it another one with name=")
            names = compile_glob(leaf.glob).captures if isinstance(leaf, Files) else ()
            return Scope({leaf.name: Slot(leaf.name, (leaf,))}, {name: Named(leaf.name) for name in names})
        case Cross():
            return _side_by_side([scope(child) for child in node.inputs], ())
        case Union():
            return _alternatives([scope(child) for child in node.inputs])
        case Join():
            sides = [scope(child) for child in node.inputs]
            for at, side in enumerate(sides):
                if any(other != at for other in node.outer):
                    sides[at] = _optional(side, node.on)
            return _side_by_side(sides, node.on)
        case Group():
            inner = _side_by_side([scope(child) for child in node.inputs], node.by)
            wrong = [slot.name for slot in inner.slots.values() if not isinstance(slot.leaves[0], Files)]
            if wrong:
                raise _bad(f"group() takes files, and {wrong[0]!r} is none")
            slots = {name: slot._replace(optional=False, many=True) for name, slot in inner.slots.items()}
            return Scope(slots, {name: Named(inner.captures[name].slot) for name in node.by})


def _side_by_side(sides: Sequence[Scope], shared: Sequence[str]) -> Scope:
    slots: dict[str, Slot] = {}
    captures: dict[str, Named] = {}
    for side in sides:
        for name, slot in side.slots.items():
            if name in slots:
                raise _bad(
                    f"two inputs are named {name!r}",
                    hint="name them: cross(old=files(...), new=files(...)), or with name=",
                )
            slots[name] = slot
        for name, found in side.captures.items():
            known = captures.get(name)
            if known is None:
                captures[name] = found
            elif name in shared:
                captures[name] = known._replace(optional=known.optional and found.optional)
            else:
                captures[name] = known._replace(clash=True)
    return Scope(slots, captures)


def _alternatives(members: Sequence[Scope]) -> Scope:
    slots: dict[str, Slot] = {}
    captures: dict[str, Named] = {}
    for member in members:
        for name, slot in member.slots.items():
            known = slots.get(name)
            if known is None:
                slots[name] = slot
                continue
            kinds = {_kind(each) for each in (*known.leaves, *slot.leaves)}
            if known.many != slot.many or len(kinds) > 1:
                raise _bad(f"two members of a union name {name!r} what is not of one kind")
            slots[name] = known._replace(leaves=(*known.leaves, *slot.leaves), optional=known.optional or slot.optional)
        for name, found in member.captures.items():
            before = captures.get(name, found)
            captures[name] = before._replace(
                optional=before.optional or found.optional, clash=before.clash or found.clash
            )
    for name, slot in slots.items():
        if not slot.many and any(name not in member.slots for member in members):
            slots[name] = slot._replace(optional=True)
    for name, found in captures.items():
        if any(name not in member.captures for member in members):
            captures[name] = found._replace(optional=True)
    return Scope(slots, captures)


def _kind(leaf: Leaf) -> tuple[type, bool, bool]:
    return (type(leaf), leaf.lazy, leaf.empty) if isinstance(leaf, Files) else (type(leaf), False, False)


def _optional(side: Scope, key: Sequence[str]) -> Scope:
    """What may be missing as a whole; of its captures, those of the key are there with the others."""
    return Scope(
        {name: slot if slot.many else slot._replace(optional=True) for name, slot in side.slots.items()},
        {name: found._replace(optional=found.optional or name not in key) for name, found in side.captures.items()},
    )


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
        case Cross() | Union() | Join() | Group():
            for child in node.inputs:
                yield from _walk(child)
        case Files() | Array():
            yield msgspec.structs.replace(node, name=node.name or node.repo)
        case Values():
            yield node


def _reading(leaf: Leaf) -> list[Any]:
    """How a leaf reads its commit, without names."""
    match leaf:
        case Files():
            return ["files", leaf.glob, leaf.join_on, leaf.group_by, leaf.folders, leaf.reference]
        case Array():
            return ["array", leaf.path, leaf.halo]
        case Values():
            return ["values"]


def _given(what: str, inputs: Sequence[Input], named: dict[str, Input]) -> tuple[Input, ...]:
    given = [*inputs, *(_renamed(what, node, name) for name, node in named.items())]
    if not given:
        raise _bad(f"{what}() needs at least one input")
    for node in given:
        if not isinstance(node, (Files, Array, Values, *_NODES)):
            raise _bad(
                f"{what}() takes inputs, got {type(node).__name__}: {node!r}",
                hint='files("images", "/*"), values(C=[1, 2])',
            )
    return tuple(given)


def _keys(what: str, option: str, nodes: Sequence[Input], given: str | Sequence[str] | None) -> tuple[str, ...]:
    """The captures of a key: checked, or those that all inputs share."""
    sides = [scope(node) for node in nodes]
    sure = [[name for name, found in side.captures.items() if not found.optional and not found.clash] for side in sides]
    if given is None:
        shared = [name for name in sure[0] if name.isidentifier() and all(name in names for names in sure)]
        if not shared:
            raise _bad(
                f"{what}() found no capture that all its inputs share",
                hint=f'files("reads", "/{{sample}}_R1.fq") has the capture sample; or say {option}="..."',
            )
        return tuple(shared)
    keys = (given,) if isinstance(given, str) else tuple(given)
    for key in keys:
        for side, names in zip(sides, sure, strict=True):
            if key not in names:
                inputs = ", ".join(side.slots)
                there = f"it has {', '.join(names)}" if names else "it has none"
                raise _bad(f"{what}({option}=...): {inputs} has no capture {key!r} in every datum; {there}")
    if len(set(keys)) < len(keys):
        raise _bad(f"{what}({option}=...) names a capture twice: {', '.join(keys)}")
    return keys


def _outer(nodes: Sequence[Input], given: bool | str | Sequence[str]) -> tuple[int, ...]:
    if isinstance(given, bool):
        return tuple(range(len(nodes))) if given else ()
    names = (given,) if isinstance(given, str) else tuple(given)
    found = []
    for name in names:
        places = [at for at, node in enumerate(nodes) if name in scope(node).slots]
        if not places:
            raise _bad(f"join(outer=...) names {name!r}, which is no input of it")
        found += places
    return tuple(sorted(set(found)))


def _name(name: str | None, repo: str) -> str:
    if name is None:
        return ""
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise _bad(f"an input of repo {repo!r} cannot be named {name!r}", hint="it is a variable and a folder's name")
    return name


def _renamed(what: str, node: Input, name: str) -> Input:
    if isinstance(node, _NODES):
        kind = type(node).__name__.lower()
        raise _bad(f"a {kind} has no name of its own: {name}={kind}(...)", hint="name the inputs inside it")
    if not isinstance(node, Files | Array | Values):
        raise _bad(f"{what}() takes inputs, got {name}={node!r}", hint=f"{name}=files({name!r})")
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
