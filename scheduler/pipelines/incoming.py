"""What may come in by a name: files, a chunk, a group, a capture, a value, the output folder."""

from __future__ import annotations

from dataclasses import dataclass

from ..inputs.expression import Array, Files, Leaf, Values
from ..inputs.scope import Scope
from .spec import bad_spec

__all__ = ["OUT", "Incoming", "incoming_of"]

_ALLOWED = {
    "files": "Path (what the glob matched), bytes (one file's content)",
    "array": "numpy.ndarray, numpy.typing.NDArray[...], xarray.DataArray",
    "group": "list[Path] (all its files)",
    "capture": "str",
    "value": "int, float, bool, str, list, dict",
    "out": "Path",
}


@dataclass(frozen=True, slots=True)
class Incoming:
    """What comes in by one name."""

    kind: str
    """`files`, `array`, `group`, `capture`, `value` or `out`."""
    leaf: Leaf | None
    """The input that it is of, the first where members of a union share its name; None: the output folder."""
    optional: bool = False
    """Whether a datum may lack it: then it comes in as None."""

    @property
    def allowed(self) -> str:
        """Annotations that may ask for it, for an error."""
        return _ALLOWED[self.kind] + (", each `| None`: it may be missing" if self.optional else "")

    @property
    def usual(self) -> str:
        """The first of them."""
        return _ALLOWED[self.kind].partition(" ")[0].rstrip(",")

    def __str__(self) -> str:
        if self.leaf is None:
            return "the output folder"
        if self.kind == "capture":
            return f"a capture of {self.leaf.name!r}"
        kinds = {"files": "input", "group": "group", "array": "array", "value": "value"}
        return f"{kinds[self.kind]} {self.leaf.name!r}"


OUT = Incoming("out", None)


def incoming_of(label: str, scope: Scope) -> dict[str, Incoming]:
    """Return what comes in from a transform's inputs, by name.

    Parameters
    ----------
    label
        Of the transform, for errors.

    Raises
    ------
    InvalidInputError
        `BAD_SPEC`: a name is none in Python, or stands for two things.
    """
    found: dict[str, Incoming] = {}
    for name, slot in scope.slots.items():
        leaf = slot.leaves[0]
        if not name.isidentifier():
            raise bad_spec(
                f"{label}: input {name!r} is no Python name",
                hint=f'name it: cross({_identifier(name)}=...) or name="{_identifier(name)}"',
            )
        kind = "group" if slot.many else {Files: "files", Array: "array", Values: "value"}[type(leaf)]
        found[name] = Incoming(kind, leaf, slot.optional)
    for capture, named in scope.captures.items():
        if not capture.isidentifier():
            continue  # $1: for specs
        if capture in found or named.clash:
            raise bad_spec(f"{label}: the capture {{{capture}}} has the name of another input or capture")
        found[capture] = Incoming("capture", scope.slots[named.slot].leaves[0], named.optional)
    return found


def _identifier(name: str) -> str:
    text = "".join(letter if letter.isalnum() else "_" for letter in name)
    return text if text.isidentifier() else f"x{text}"
