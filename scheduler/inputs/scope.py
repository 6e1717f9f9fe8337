"""What the datums of an expression hold: the names that come in, and the captures that come along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ...storage.glob import compile_glob
from .expression import Array, Cross, Files, Group, Input, Join, Leaf, Union, Values, bad_input

__all__ = ["RESERVED_NAMES", "Named", "Scope", "Slot", "finally_named", "scope"]

RESERVED_NAMES = ("out", ".env")
"""Beside the inputs in `/pfs` stand these two."""


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


def finally_named(leaf: Leaf) -> Leaf:
    """Return a leaf with the name that it comes in by: its own, else its repo's."""
    return leaf if isinstance(leaf, Values) else msgspec.structs.replace(leaf, name=leaf.name or leaf.repo)


def scope(node: Input) -> Scope:
    """Return the names and captures that an expression's datums hold.

    Raises
    ------
    InvalidInputError
        Two inputs have one name and are not members of one union, or a name is reserved (code ``bad-input``).
    """
    match node:
        case Files() | Array() | Values():
            leaf = finally_named(node)
            if leaf.name in RESERVED_NAMES:
                raise bad_input(f"an input cannot be named {leaf.name!r}", hint="give it another one with name=")
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
                raise bad_input(f"group() takes files, and {wrong[0]!r} is none")
            slots = {name: slot._replace(optional=False, many=True) for name, slot in inner.slots.items()}
            return Scope(slots, {name: Named(inner.captures[name].slot) for name in node.by})


def _side_by_side(sides: Sequence[Scope], shared: Sequence[str]) -> Scope:
    slots: dict[str, Slot] = {}
    captures: dict[str, Named] = {}
    for side in sides:
        for name, slot in side.slots.items():
            if name in slots:
                raise bad_input(
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
                raise bad_input(f"two members of a union name {name!r} what is not of one kind")
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
