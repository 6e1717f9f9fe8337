"""What a datum key says: which items of which inputs a datum is made of.

A key is a list of parts without NUL, joined by NUL, which the pipeline's input expression and the context's order
explain: the sides of the outermost cross, in that order, each as follows.

============  ======================================================================================================
files, array  the path of the file or chunk; of a folder, with a slash at its end
values        the value's canonical JSON
cross         the parts of each input
union         the number of the member, two hex digits; then the member's parts
join          the key, one part for each capture of `on`, or one; if `outer` is not empty, a part with ``1`` for each
              input that is there and ``0`` for each that is not; then the parts of the inputs that are there
group         the key, one part for each capture of `by`, or one
============  ======================================================================================================

Expressions are plain maps here: what stands in a spec belongs to a higher layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["KeyPart", "labelled_leaves", "read_key"]

Node = Mapping[str, Any]


class KeyPart(NamedTuple):
    """One input's part in a datum, or a group's key."""

    name: str
    """Of the input; of a group's key, the capture's, or `group`."""
    text: str
    """Path, value or key; of a file in a group, its glob with the key's texts in it."""
    label: str = ""
    """Under which the input's commit is recorded; empty: a group's key."""
    leaf: Node | None = None
    grouped: bool = False


def labelled_leaves(node: Node) -> Iterator[tuple[str, Node]]:
    """Yield (label, leaf) in declared order; the second of one name has the label `name/2`."""
    seen: dict[str, int] = {}
    for leaf in _leaves(node):
        name = _name(leaf)
        seen[name] = number = seen.get(name, 0) + 1
        yield (name if number == 1 else f"{name}/{number}"), leaf


def read_key(node: Node, order: Sequence[str], key: bytes) -> list[KeyPart] | None:
    """Return what a key says of each varying input, in the key's order; None if it is no key of that expression.

    Parameters
    ----------
    order
        Names of the varying inputs in the order of the key (`Context.order`).
    """
    labels = labelled_leaves(node)
    sides: list[tuple[int, Node, list[str]]] = []
    for side in _sides(node):
        names = [_name(leaf) for leaf in _leaves(side)]
        own = [label for label, _ in itertools.islice(labels, len(names))]
        if names[0] in order:
            sides.append((order.index(names[0]), side, own))
    reader = _Reader(key.split(b"\0") if sides else [])
    found = [part for _, side, own in sorted(sides, key=lambda one: one[0]) for part in reader.node(side, own)]
    return found if reader.whole(key if not sides else b"") else None


class _Reader:
    """Reads parts from left to right; a part that is not there is empty, and noted."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = [part.decode("utf-8", "backslashreplace") for part in parts]
        self._at = 0
        self._wrong = False

    def whole(self, rest: bytes) -> bool:
        """Whether the key was read to its end, and was one."""
        return not self._wrong and not rest and self._at == len(self._parts)

    def node(self, node: Node, labels: list[str]) -> Iterator[KeyPart]:
        """Read a node, whose leaves have these labels."""
        inputs: list[Node] = node.get("inputs", [])
        match node.get("type"):
            case "cross":
                yield from self._inputs(inputs, labels, "1" * len(inputs))
            case "union":
                number = self._next()
                chosen = "".join("01"[number == f"{member:02x}"] for member in range(len(inputs)))
                self._wrong |= "1" not in chosen
                yield from self._inputs(inputs, labels, chosen)
            case "join":
                for _ in node.get("on") or [""]:
                    self._next()
                there = self._next() if node.get("outer") else "1" * len(inputs)
                self._wrong |= len(there) != len(inputs)
                yield from self._inputs(inputs, labels, there)
            case "group":
                key = [(name, self._next()) for name in node.get("by") or [""]]
                yield from (KeyPart(name or "group", text) for name, text in key)
                for label, leaf in zip(labels, _leaves(node), strict=True):
                    glob = str(leaf.get("glob", "/"))
                    for name, text in key:
                        glob = glob.replace(f"{{{name}}}", text) if name else glob
                    yield KeyPart(_name(leaf), glob.strip("/"), label, leaf, grouped=True)
            case _:
                yield KeyPart(_name(node), self._next(), labels[0], node)

    def _inputs(self, inputs: Sequence[Node], labels: list[str], there: str) -> Iterator[KeyPart]:
        at = 0
        for child, flag in zip(inputs, there, strict=False):
            end = at + sum(1 for _ in _leaves(child))
            if flag == "1":
                yield from self.node(child, labels[at:end])
            at = end

    def _next(self) -> str:
        self._at += 1
        if self._at > len(self._parts):
            self._wrong = True
            return ""
        return self._parts[self._at - 1]


def _sides(node: Node) -> Iterator[Node]:
    if node.get("type") == "cross":
        for child in node.get("inputs", []):
            yield from _sides(child)
    else:
        yield node


def _leaves(node: Node) -> Iterator[Node]:
    inputs = node.get("inputs")
    if inputs is None:
        yield node
    else:
        for child in inputs:
            yield from _leaves(child)


def _name(leaf: Node) -> str:
    return str(leaf.get("name") or leaf.get("repo") or "")
