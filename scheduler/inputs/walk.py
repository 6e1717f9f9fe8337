"""What an expression is made of: its leaves, their labels, the sides of its cross, what is constant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ...storage.glob import compile_glob
from .expression import Array, Cross, Files, Group, Input, Join, Leaf, Union, Values
from .scope import finally_named, scope

__all__ = [
    "Placed",
    "constants",
    "factors",
    "followed",
    "is_constant",
    "leaves",
    "placed",
]


class Placed(NamedTuple):
    """A leaf with its place in an expression."""

    label: str
    """Its name; of union members that share one, the second is `name/2`. Commits are recorded under it."""
    mark: bytes
    """Tells apart members of a union that share a name and read it otherwise; empty for the first."""
    leaf: Leaf
    """With its final name."""


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


def _walk(node: Input) -> Iterator[Leaf]:
    match node:
        case Cross() | Union() | Join() | Group():
            for child in node.inputs:
                yield from _walk(child)
        case Files() | Array() | Values():
            yield finally_named(node)


def _reading(leaf: Leaf) -> list[Any]:
    """How a leaf reads its commit, without names."""
    match leaf:
        case Files():
            return ["files", leaf.glob, leaf.join_on, leaf.group_by, leaf.folders, leaf.reference]
        case Array():
            return ["array", leaf.path, leaf.halo]
        case Values():
            return ["values"]
