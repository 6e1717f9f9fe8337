"""`cross`, `union`, `join`, `group`: expressions made of expressions, checked where they are written."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .expression import Array, Cross, Files, Group, Input, Join, Union, Values, bad_input
from .scope import scope

__all__ = [
    "MEMBERS_MAX",
    "cross",
    "group",
    "join",
    "union",
]

MEMBERS_MAX = 256
"""Of a union: a member's number stands in datum keys, with two digits."""


_NODES = (Cross, Union, Join, Group)


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
    >>> from dmlpipe import files
    >>> both = union(files("north", "/*", name="shop"), files("south", "/*", name="shop"))
    >>> list(scope(both).slots)
    ['shop']
    """
    found = Union(inputs=_given("union", inputs, named))
    if len(found.inputs) > MEMBERS_MAX:
        raise bad_input(f"union() takes at most {MEMBERS_MAX} inputs, got {len(found.inputs)}")
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
    >>> from dmlpipe import files
    >>> join(r1=files("reads", "/{sample}_R1.fq"), r2=files("reads", "/{sample}_R2.fq")).on
    ('sample',)
    """
    nodes = _given("join", inputs, named)
    kept = _outer(nodes, outer)
    keys = _keys("join", "on", nodes, on)
    if not keys:
        raise bad_input("join(on=[]) has no key: every combination is cross(...)")
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
    >>> from dmlpipe import files
    >>> group(files("purchases", "/{shop}/{day}.csv"), by="shop").by
    ('shop',)
    """
    nodes = _given("group", inputs, named)
    if by is None and len(nodes) == 1:
        raise bad_input("group() of one input needs to know by what", hint='by="..." names one of its captures')
    found = Group(inputs=nodes, by=_keys("group", "by", nodes, by))
    scope(found)
    return found


def _given(what: str, inputs: Sequence[Input], named: dict[str, Input]) -> tuple[Input, ...]:
    given = [*inputs, *(_renamed(what, node, name) for name, node in named.items())]
    if not given:
        raise bad_input(f"{what}() needs at least one input")
    for node in given:
        if not isinstance(node, (Files, Array, Values, *_NODES)):
            raise bad_input(
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
            raise bad_input(
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
                raise bad_input(f"{what}({option}=...): {inputs} has no capture {key!r} in every datum; {there}")
    if len(set(keys)) < len(keys):
        raise bad_input(f"{what}({option}=...) names a capture twice: {', '.join(keys)}")
    return keys


def _outer(nodes: Sequence[Input], given: bool | str | Sequence[str]) -> tuple[int, ...]:
    if isinstance(given, bool):
        return tuple(range(len(nodes))) if given else ()
    names = (given,) if isinstance(given, str) else tuple(given)
    found = []
    for name in names:
        places = [at for at, node in enumerate(nodes) if name in scope(node).slots]
        if not places:
            raise bad_input(f"join(outer=...) names {name!r}, which is no input of it")
        found += places
    return tuple(sorted(set(found)))


def _renamed(what: str, node: Input, name: str) -> Input:
    if isinstance(node, _NODES):
        kind = type(node).__name__.lower()
        raise bad_input(f"a {kind} has no name of its own: {name}={kind}(...)", hint="name the inputs inside it")
    if not isinstance(node, Files | Array | Values):
        raise bad_input(f"{what}() takes inputs, got {name}={node!r}", hint=f"{name}=files({name!r})")
    return msgspec.structs.replace(node, name=name)
